//! The cases on the bare machine: a thin list, the cases are in `src/cases`.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the harness exports its entry under the C name `main`")]

use iommu_boot::arch::entry;

entry!(start);

fn start(_: u64, _: u64, _: u64, _: u64) -> ! {
    // SAFETY: `defmt_test::tests` below defines this function, and nothing else calls it.
    unsafe { harness() }
}

unsafe extern "C" {
    #[link_name = "main"]
    fn harness() -> !;
}

#[defmt_test::tests]
mod cases {
    use iommu::pool::Usage;
    use iommu_boot::cases::{attaching, blocking, containers, faults, mapping, unit};
    use iommu_boot::machine::{Machine, PLATFORM, POOL};
    use iommu_boot::world::World;

    struct State {
        machine: Machine,
        world: World,
        left: (Usage, usize),
    }

    #[init]
    fn start() -> State {
        let machine = Machine::bring_up().expect("the machine can be brought up");
        let world = World::start(&machine).expect("the IOMMUs start");
        world.reach_peak();
        let left = (POOL.usage(), PLATFORM.pages_in_use());
        State { machine, world, left }
    }

    #[before_each]
    fn no_faults(state: &mut State) {
        state.world.drop_faults();
    }

    #[after_each]
    fn nothing_left(state: &mut State) {
        let left = (POOL.usage(), PLATFORM.pages_in_use());
        assert_eq!(left, state.left, "the case left memory behind");
    }

    #[test]
    fn never_attached(state: &mut State) {
        blocking::never_attached(&state.world);
    }

    #[test]
    fn claimed_only(state: &mut State) {
        blocking::claimed_only(&state.world);
    }

    #[test]
    fn attached_to_an_empty_domain(state: &mut State) {
        blocking::attached_to_an_empty_domain(&state.world);
    }

    #[test]
    fn after_detach(state: &mut State) {
        blocking::after_detach(&state.world);
    }

    #[test]
    fn after_drop(state: &mut State) {
        blocking::after_drop(&state.world);
    }

    #[test]
    fn after_an_incompatible_attach(state: &mut State) {
        blocking::after_an_incompatible_attach(&state.world);
    }

    #[test]
    fn after_a_failed_attach(state: &mut State) {
        blocking::after_a_failed_attach(&state.world);
    }

    #[test]
    fn after_removal(state: &mut State) {
        blocking::after_removal(&mut state.world);
    }

    #[test]
    fn bytes_arrive_in_both_directions(state: &mut State) {
        mapping::bytes_arrive_in_both_directions(&state.world);
    }

    #[test]
    fn read_only_refuses_a_write(state: &mut State) {
        mapping::read_only_refuses_a_write(&state.world);
    }

    #[test]
    fn write_only_refuses_a_read(state: &mut State) {
        mapping::write_only_refuses_a_read(&state.world);
    }

    #[test]
    fn the_neighbours_of_a_mapping(state: &mut State) {
        mapping::the_neighbours_of_a_mapping(&state.world);
    }

    #[test]
    fn after_unmap(state: &mut State) {
        mapping::after_unmap(&state.world);
    }

    #[test]
    fn remapped(state: &mut State) {
        mapping::remapped(&state.world);
    }

    #[test]
    fn two_views_of_one_page(state: &mut State) {
        mapping::two_views_of_one_page(&state.world);
    }

    #[test]
    fn overlap_is_refused(state: &mut State) {
        mapping::overlap_is_refused(&state.world);
    }

    #[test]
    fn wrong_arguments_send_nothing(state: &mut State) {
        mapping::wrong_arguments_send_nothing(&state.world);
    }

    #[test]
    fn the_last_page_of_the_aperture(state: &mut State) {
        mapping::the_last_page_of_the_aperture(&state.world);
    }

    #[test]
    fn two_mebibytes_are_one_request(state: &mut State) {
        mapping::two_mebibytes_are_one_request(&state.world);
    }

    #[test]
    fn scattered_pages_go_in_batches(state: &mut State) {
        mapping::scattered_pages_go_in_batches(&state.world);
    }

    #[test]
    fn mapped_before_the_attach(state: &mut State) {
        mapping::mapped_before_the_attach(&state.world);
    }

    #[test]
    fn a_second_group_shares_the_domain(state: &mut State) {
        attaching::a_second_group_shares_the_domain(&state.world);
    }

    #[test]
    fn devices_that_share_an_id_move_together(state: &mut State) {
        attaching::devices_that_share_an_id_move_together(&state.world);
    }

    #[test]
    fn one_owner_at_a_time(state: &mut State) {
        attaching::one_owner_at_a_time(&state.world);
    }

    #[test]
    fn replace_switches_domains(state: &mut State) {
        attaching::replace_switches_domains(&state.world);
    }

    #[test]
    fn domains_keep_groups_apart(state: &mut State) {
        attaching::domains_keep_groups_apart(&state.world);
    }

    #[test]
    fn units_keep_domains_apart(state: &mut State) {
        attaching::units_keep_domains_apart(&state.world);
    }

    #[test]
    fn a_group_leaves_a_shared_domain(state: &mut State) {
        attaching::a_group_leaves_a_shared_domain(&state.world);
    }

    #[test]
    fn an_empty_domain_is_filled_again(state: &mut State) {
        attaching::an_empty_domain_is_filled_again(&state.world);
    }

    #[test]
    fn nothing_piles_up(state: &mut State) {
        attaching::nothing_piles_up(&state.world);
    }

    #[test]
    fn attach_costs_what_the_table_says(state: &mut State) {
        containers::attach_costs_what_the_table_says(&state.world);
    }

    #[test]
    fn reuse_costs_one_request(state: &mut State) {
        containers::reuse_costs_one_request(&state.world);
    }

    #[test]
    fn mapped_before_the_first_group(state: &mut State) {
        containers::mapped_before_the_first_group(&state.world);
    }

    #[test]
    fn a_map_reaches_all_and_an_unmap_leaves_none(state: &mut State) {
        containers::a_map_reaches_all_and_an_unmap_leaves_none(&state.world);
    }

    #[test]
    fn a_new_domain_is_given_the_mappings(state: &mut State) {
        containers::a_new_domain_is_given_the_mappings(&state.world);
    }

    #[test]
    fn a_group_leaves_and_the_others_stay(state: &mut State) {
        containers::a_group_leaves_and_the_others_stay(&state.world);
    }

    #[test]
    fn closing_blocks_everything(state: &mut State) {
        containers::closing_blocks_everything(&state.world);
    }

    #[test]
    fn the_msi_window_is_no_place_for_memory(state: &mut State) {
        containers::the_msi_window_is_no_place_for_memory(&state.world);
    }

    #[test]
    fn a_record_names_the_device(state: &mut State) {
        faults::a_record_names_the_device(&state.world);
    }

    #[test]
    fn a_flood_is_counted_and_survived(state: &mut State) {
        faults::a_flood_is_counted_and_survived(&state.world);
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
    fn domain_ids_are_reused_safely(state: &mut State) {
        unit::domain_ids_are_reused_safely(&state.world);
    }

    #[test]
    fn restart(state: &mut State) {
        unit::restart(&mut state.world, &state.machine);
    }
}
