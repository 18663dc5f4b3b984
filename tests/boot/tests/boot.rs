//! The whole table of `iommu-cases` on the bare machine, with real DMA. Where there is one unit, the
//! rows that need two tell that they are skipped.
#![no_std]
#![no_main]

// But for aarch64, our own crate, `iommu-harness`, goes by the name `defmt_test`.
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

            #[teardown]
            fn end() {
                iommu_boot::tally::report();
            }

            $($(#[test] fn $first(state: &mut State) { state.run(stringify!($first)); })+)+
            $($(#[test] fn $second(state: &mut State) { state.run(stringify!($second)); })+)+
        }
    };
}

include!("../../cases/src/list.rs");
