//! The cases of this machine alone, on the bare machine.
#![no_std]
#![no_main]

iommu_boot::test_entry!();

#[defmt_test::tests]
mod cases {
    use iommu_boot::cases::{selftest, unit};
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
    fn the_ring_index_wraps(state: &mut State) {
        unit::the_ring_index_wraps(&state.world);
    }

    #[test]
    fn an_endpoint_that_does_not_exist(state: &mut State) {
        unit::an_endpoint_that_does_not_exist(&state.world);
    }

    #[test]
    fn an_endpoint_of_the_other_unit(state: &mut State) {
        if state.has_two_units() {
            unit::an_endpoint_of_the_other_unit(&state.world);
        }
    }

    #[test]
    fn selftest_by_transfer(state: &mut State) {
        selftest::by_transfer(&state.world);
    }

    #[test]
    fn selftest_by_interrupt_message(state: &mut State) {
        selftest::by_interrupt_message(&state.world, &state.machine);
    }

    #[test]
    fn selftest_told_a_wrong_requester_id(state: &mut State) {
        selftest::told_a_wrong_requester_id(&state.world);
    }

    // No other board tells which controller takes the messages.
    #[cfg(target_arch = "aarch64")]
    #[test]
    fn a_message_reaches_the_controller(state: &mut State) {
        iommu_boot::cases::messages::a_message_reaches_the_controller(&state.world, &state.machine);
    }

    #[test]
    fn the_request_table(state: &mut State) {
        unit::the_request_table(&mut state.world, &state.machine);
    }

    #[test]
    fn a_hot_added_device_brings_its_regions(state: &mut State) {
        unit::a_hot_added_device_brings_its_regions(&mut state.world, &state.machine);
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn the_viot_says_what_the_device_tree_says(state: &mut State) {
        unit::the_viot_says_what_the_device_tree_says(&state.machine);
    }

    #[test]
    fn restart(state: &mut State) {
        unit::restart(&mut state.world, &state.machine);
    }
}
