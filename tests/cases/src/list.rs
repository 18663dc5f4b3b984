// The list of all cases, by what they need and by topic. Written once: whoever needs it defines a
// macro `cases!` and includes this file. The table does, and each harness that wants a function
// per case, so no harness can miss a row.
//
// `#[harness]` is the attribute of such a harness. It stands here because `defmt-test` makes names
// of its own beside those of the cases, and both must come from one place.
cases! {
    #[harness]
    one_unit {
        blocking {
            never_attached,
            claimed_only,
            attached_to_an_empty_domain,
            after_detach,
            after_drop,
            after_a_failed_attach,
            after_removal,
        }
        mapping {
            bytes_arrive_in_both_directions,
            read_only_refuses_a_write,
            write_only_refuses_a_read,
            the_neighbours_of_a_mapping,
            after_unmap,
            remapped,
            two_views_of_one_page,
            overlap_is_refused,
            wrong_arguments_send_nothing,
            the_last_page_of_the_aperture,
            two_mebibytes_are_one_request,
            scattered_pages_go_in_batches,
            mapped_before_the_attach,
        }
        attaching {
            a_second_group_shares_the_domain,
            devices_that_share_an_id_move_together,
            one_owner_at_a_time,
            replace_switches_domains,
            domains_keep_groups_apart,
            a_group_leaves_a_shared_domain,
            an_empty_domain_is_filled_again,
            nothing_piles_up,
            domain_ids_are_reused_safely,
        }
        containers {
            reuse_costs_one_request,
            mapped_before_the_first_group,
            the_msi_window_is_no_place_for_memory,
        }
        faults {
            a_record_names_the_device,
            a_flood_is_counted_and_survived,
        }
    }
    two_units {
        blocking {
            after_an_incompatible_attach,
        }
        attaching {
            units_keep_domains_apart,
        }
        containers {
            attach_costs_what_the_table_says,
            a_map_reaches_all_and_an_unmap_leaves_none,
            a_new_domain_is_given_the_mappings,
            a_group_leaves_and_the_others_stay,
            closing_blocks_everything,
        }
    }
}
