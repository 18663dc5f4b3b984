//! Units that let everything pass until a driver comes (`boot-bypass=on`). The order of the cases counts.
#![no_std]
#![no_main]

iommu_boot::test_entry!();

#[defmt_test::tests]
mod cases {
    use iommu_boot::cases::bypass;
    use iommu_boot::machine::Machine;
    use iommu_boot::world::World;

    struct State {
        machine: Machine,
        world: Option<World>,
    }

    #[init]
    fn start() -> State {
        let machine = Machine::bring_up().expect("the machine can be brought up");
        assert_eq!(machine.devices.len(), 5);
        State { machine, world: None }
    }

    #[teardown]
    fn end() {
        iommu_boot::tally::report();
    }

    #[test]
    fn dma_passes_before_a_driver(state: &mut State) {
        bypass::dma_passes_before_a_driver(&state.machine);
    }

    #[test]
    fn the_driver_decides(state: &mut State) {
        state.world = Some(bypass::the_driver_decides(&state.machine));
    }

    #[test]
    fn dma_is_refused_after_the_driver(state: &mut State) {
        drop(state.world.take().expect("the case before has started the IOMMUs"));
        bypass::dma_is_refused_after_the_driver(&state.machine);
    }

    #[test]
    fn the_driver_comes_again(state: &mut State) {
        state.world = Some(bypass::the_driver_decides(&state.machine));
    }
}
