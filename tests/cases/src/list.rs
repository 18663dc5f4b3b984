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
            a_container_s_read_only_memory,
            a_container_s_overlap_is_refused,
            a_container_s_mapping_is_not_cut,
            a_container_s_wide_unmap,
            a_container_s_wrong_requests,
            a_container_s_limit,
            two_containers_are_apart,
            a_group_changes_its_container,
            the_last_group_takes_the_mappings_along,
            a_group_comes_back_to_its_container,
            windows_leave_reserved_regions_out,
            after_a_failed_attach_to_a_container,
        }
        faults {
            a_record_names_the_device,
            a_flood_is_counted_and_survived,
            two_devices_have_their_own_records,
            a_record_has_the_exact_address,
        }
        refused {
            attached_but_not_mapped_there,
            one_page_below,
            one_page_above,
            in_a_hole,
            across_the_end_of_a_mapping,
            after_unmap_of_the_neighbours,
            after_unmap_of_a_wide_range,
            after_replace,
            mapped_in_another_domain,
            mapped_in_a_domain_of_nobody,
            after_a_failed_map_of_many,
            after_a_failed_map,
            after_a_failed_replace,
            after_a_change_of_owner,
            while_only_the_attachment_holds_the_domain,
            unmapped_before_the_attach,
            refusals_harm_no_unit,
        }
        rights {
            write_only_lets_a_write_through,
            rights_of_neighbours_do_not_mix,
            two_views_with_different_rights,
            a_new_mapping_has_its_own_rights,
            rights_survive_a_replay,
            rights_are_the_domain_s,
            attributes_are_no_hindrance,
            never_attached_reads_nothing,
            reads_end_with_the_mapping,
            reads_beside_a_mapping_are_refused,
            domains_keep_reads_apart,
            a_replace_changes_what_is_read,
            refusals_name_the_access,
        }
        modes {
            identity_until_the_detach,
            identity_is_one_group_s,
            from_identity_to_a_paging_domain,
            deferred_unmaps_end_with_the_sync,
            deferred_unmaps_end_with_the_value,
            the_default_domain,
            the_default_domain_of_an_owned_group,
            chunks_follow_one_another,
            after_a_failed_map_of_chunks,
            a_region_is_refused_while_attached,
            the_handler_of_the_domain_is_told,
        }
        places {
            the_first_page_of_the_aperture,
            beyond_the_aperture,
            above_four_gibibytes,
            every_page_of_a_mapping,
            words_of_one_page,
            pages_in_reverse_order,
            one_page_at_many_places,
            the_record_agrees_with_the_unit,
        }
        requests {
            unmap_of_nothing,
            unmap_of_a_mapping,
            unmap_of_two_that_touch,
            unmap_of_the_first_half,
            unmap_of_the_other_half_or_the_middle,
            unmap_of_the_first_of_two,
            unmap_of_more_than_is_mapped,
            unmap_over_a_hole,
            unmap_that_cuts_only_the_last,
            map_of_the_same_range,
            map_inside_a_mapping,
            map_around_a_mapping,
            map_over_the_start,
            map_over_the_end,
            map_beside_a_mapping,
            map_of_the_same_range_elsewhere,
        }
        sharing {
            three_groups_on_one_domain,
            groups_leave_one_by_one,
            replace_moves_one_group,
            two_groups_change_places,
            hot_add_into_an_attached_group,
            two_endpoints_in_one_group,
            a_twin_is_removed,
            the_last_device_is_removed,
            a_refused_add_moves_nobody,
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
            a_unit_leaves_and_comes_back,
            either_of_two_groups_leaves,
            the_narrower_unit_decides,
        }
        refused {
            records_stay_with_their_unit,
        }
        sharing {
            the_same_address_at_two_units,
        }
    }
}
