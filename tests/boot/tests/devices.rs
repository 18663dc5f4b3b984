//! Ready-made drivers, unchanged, with their devices behind the IOMMU.
#![no_std]
#![no_main]

iommu_boot::test_entry!();

#[defmt_test::tests]
mod cases {
    use iommu_boot::cases::devices;
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
    fn virtio_blk_reads_what_the_host_wrote(state: &mut State) {
        devices::virtio_blk_reads_what_the_host_wrote(state);
    }

    #[test]
    fn virtio_blk_writes_what_the_host_finds(state: &mut State) {
        devices::virtio_blk_writes_what_the_host_finds(state);
    }

    #[test]
    fn virtio_blk_reads_into_nothing(state: &mut State) {
        devices::virtio_blk_reads_into_nothing(state);
    }

    #[test]
    fn virtio_blk_writes_from_nothing(state: &mut State) {
        devices::virtio_blk_writes_from_nothing(state);
    }

    #[test]
    fn virtio_rng_gives_random_numbers(state: &mut State) {
        devices::virtio_rng_gives_random_numbers(state);
    }

    #[test]
    fn virtio_net_sends_and_receives(state: &mut State) {
        devices::virtio_net_sends_and_receives(state);
    }

    #[test]
    fn virtio_net_receives_into_nothing(state: &mut State) {
        devices::virtio_net_receives_into_nothing(state);
    }

    #[test]
    fn virtio_net_sends_from_nothing(state: &mut State) {
        devices::virtio_net_sends_from_nothing(state);
    }

    #[test]
    fn a_dropped_driver_leaves_nothing_mapped(state: &mut State) {
        devices::a_dropped_driver_leaves_nothing_mapped(state);
    }

    #[test]
    fn nvme_identifies_itself_and_reads(state: &mut State) {
        devices::nvme_identifies_itself_and_reads(state);
    }

    #[test]
    fn nvme_writes_what_the_host_finds(state: &mut State) {
        devices::nvme_writes_what_the_host_finds(state);
    }

    #[test]
    fn the_queue_of_the_iommu_is_not_translated(state: &mut State) {
        devices::the_queue_of_the_iommu_is_not_translated(state);
    }
}
