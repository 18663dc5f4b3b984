//! Units with fewer address bits than 64 (`aw-bits`): the cases of the table at the aperture's ends.
#![no_std]
#![no_main]

iommu_boot::test_entry!();

#[defmt_test::tests]
mod cases {
    use iommu_boot::cases::unit;
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

    #[test]
    fn the_aperture_has_the_bits_of_the_machine(state: &mut State) {
        unit::the_aperture_has_the_bits_of_the_machine(&state.world, &[32, 39]);
    }

    #[test]
    fn the_first_page_of_the_aperture(state: &mut State) {
        state.run("the_first_page_of_the_aperture");
    }

    #[test]
    fn the_last_page_of_the_aperture(state: &mut State) {
        state.run("the_last_page_of_the_aperture");
    }

    #[test]
    fn beyond_the_aperture(state: &mut State) {
        state.run("beyond_the_aperture");
    }

    #[test]
    fn above_four_gibibytes(state: &mut State) {
        state.run("above_four_gibibytes");
    }

    #[test]
    fn the_narrower_unit_decides(state: &mut State) {
        state.run("the_narrower_unit_decides");
    }

    #[test]
    fn windows_leave_reserved_regions_out(state: &mut State) {
        state.run("windows_leave_reserved_regions_out");
    }
}
