//! Load: very many mappings, very many cycles, two CPUs. `load=long` makes the numbers large.
#![no_std]
#![no_main]

iommu_boot::test_entry!();

#[defmt_test::tests]
mod cases {
    use iommu_boot::cases::load::{self, Load};

    #[init]
    fn start() -> Load {
        Load::start()
    }

    #[before_each]
    fn no_faults(load: &mut Load) {
        load.before_each();
    }

    #[after_each]
    fn nothing_left(load: &mut Load) {
        load.after_each();
    }

    #[teardown]
    fn end() {
        iommu_boot::tally::report();
    }

    #[test]
    fn load_fills_a_container(load: &mut Load) {
        load::load_fills_a_container(load);
    }

    #[test]
    fn load_of_very_many_mappings(load: &mut Load) {
        load::load_of_very_many_mappings(load);
    }

    #[test]
    fn load_of_map_and_unmap_cycles(load: &mut Load) {
        load::load_of_map_and_unmap_cycles(load);
    }

    #[test]
    fn load_from_two_cpus(load: &mut Load) {
        load::load_from_two_cpus(load);
    }
}
