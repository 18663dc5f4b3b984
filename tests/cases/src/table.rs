//! The table, made from the list.

use crate::{Case, Needs};

macro_rules! cases {
    (
        #[harness]
        one_unit { $($one:ident { $($first:ident,)+ })+ }
        two_units { $($two:ident { $($second:ident,)+ })+ }
    ) => {
        /// Every case, by what it needs and by topic.
        pub const CASES: &[Case] = &[
            $($(Case {
                name: stringify!($first),
                needs: Needs::OneUnit,
                run: crate::cases::$one::$first,
            },)+)+
            $($(Case {
                name: stringify!($second),
                needs: Needs::TwoUnits,
                run: crate::cases::$two::$second,
            },)+)+
        ];
    };
}

include!("list.rs");
