//! The cases of the table for which one unit is enough, on a machine with an IOMMU over MMIO alone:
//! in `boot` most of them run over PCI.
#![no_std]
#![no_main]

use defmt_test::tests as harness;

iommu_boot::test_entry!();

/// The harness wants a function per case: this makes them from the list.
macro_rules! cases {
    (
        $hash:tt $harness:tt // the attribute, which is ours and the list's
        one_unit { $($one:ident { $($first:ident,)+ })+ }
        two_units { $($two:ident { $($second:ident,)+ })+ }
    ) => {
        $hash $harness
        mod cases {
            use iommu_boot::harness::State;

            #[init]
            fn start() -> State {
                State::start()
            }

            #[before_each]
            fn no_faults(state: &mut State) {
                state.before_each();
            }

            #[after_each]
            fn nothing_left(state: &mut State) {
                state.after_each();
            }

            $($(#[test] fn $first(state: &mut State) { state.run(stringify!($first)); })+)+
        }
    };
}

include!("../../cases/src/list.rs");
