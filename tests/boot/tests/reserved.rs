//! A unit with reserved regions of the user's (`reserved-regions`).
#![no_std]
#![no_main]

iommu_boot::test_entry!();

#[defmt_test::tests]
mod cases {
    use iommu_boot::cases::reserved::{self, Scripts};
    use iommu_boot::machine::Machine;

    struct State {
        scripts: Scripts,
    }

    #[init]
    fn start() -> State {
        let machine = Machine::bring_up().expect("the machine can be brought up");
        State { scripts: Scripts::start(&machine) }
    }

    #[teardown]
    fn end() {
        iommu_boot::tally::report();
    }

    #[test]
    fn the_regions_are_those_of_the_machine(state: &mut State) {
        reserved::the_regions_are_those_of_the_machine(&state.scripts);
    }

    #[test]
    fn the_engine_is_translated(state: &mut State) {
        reserved::the_engine_is_translated(&state.scripts);
    }

    #[test]
    fn a_domain_that_maps_there_is_in_use(state: &mut State) {
        reserved::a_domain_that_maps_there_is_in_use(&state.scripts);
    }

    #[test]
    fn pages_beside_a_region_are_usable(state: &mut State) {
        reserved::pages_beside_a_region_are_usable(&state.scripts);
    }

    #[test]
    fn dma_into_a_region_is_refused(state: &mut State) {
        reserved::dma_into_a_region_is_refused(&state.scripts);
    }

    #[test]
    fn a_container_leaves_the_regions_out(state: &mut State) {
        reserved::a_container_leaves_the_regions_out(&state.scripts);
    }
}
