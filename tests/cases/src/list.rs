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
            detach_costs_what_the_rule_says,
        }
        container_maps {
            each_page_that_a_container_maps,
            mappings_that_touch_stay_two,
            a_transfer_over_two_mappings,
            a_hole_of_a_container_is_filled_exactly,
            a_container_s_rights,
            one_memory_twice_in_a_container,
            many_mappings_of_a_container,
            a_container_maps_iova_zero,
            a_map_that_fails_half_way,
            the_limit_of_locked_memory,
            scattered_memory_of_a_container,
            reserved_frames_are_reached,
            the_granule_of_a_container,
            a_large_mapping_of_a_container,
            a_container_s_read_only_memory,
            a_container_s_overlap_is_refused,
            a_container_s_wrong_requests,
            a_container_s_limit,
            windows_leave_reserved_regions_out,
            the_first_kind_rounds_its_unmaps,
            two_containers_are_apart,
        }
        container_unmaps {
            a_container_unmaps_everything,
            the_middle_of_three_mappings_goes,
            a_cut_of_one_mapping_spares_the_other,
            a_container_s_mapping_is_not_cut,
            a_container_s_unmap_of_nothing,
            a_container_s_wide_unmap,
            a_container_s_place_is_used_again,
            a_container_s_wrong_unmaps,
            memory_is_pinned_while_it_is_reached,
            scattered_mappings_go_at_once,
        }
        container_groups {
            groups_come_one_by_one,
            groups_leave_in_any_order,
            groups_come_and_go,
            all_transfer_until_the_unmap,
            an_unknown_group_does_not_leave,
            mappings_wait_with_an_emulated_group,
            an_emulated_group_moves_nobody,
            an_attach_fails_on_a_hole,
            an_attach_fails_at_the_limit,
            interrupts_that_are_not_isolated,
            after_a_failed_attach_to_a_container,
            the_msi_window_is_no_place_for_memory,
            mapped_before_the_first_group,
            unmapped_before_the_first_group,
            rights_of_those_who_come_later,
            a_device_joins_a_group_of_a_container,
            a_device_leaves_a_group_of_a_container,
            closing_a_container,
            a_group_changes_its_container,
            the_last_group_takes_the_mappings_along,
            a_group_comes_back_to_its_container,
            nobody_comes_while_an_address_is_void,
        }
        container_owners {
            a_pinned_page_is_the_one_that_devices_reach,
            pins_outlive_the_groups,
            an_unmap_waits_for_a_holder,
            a_holder_keeps_its_mapping,
            the_first_kind_pins_nothing,
            a_copy_is_what_a_device_reads,
            copies_have_the_rights_of_devices,
            a_copy_goes_over_two_mappings,
            devices_go_on_while_an_address_is_void,
            the_owner_of_a_mapping_changes,
        }
        container_dirty {
            what_a_device_may_write_is_dirty,
            mapped_while_tracking,
            a_group_that_left_was_a_writer,
            a_group_comes_while_tracking,
            groups_that_pin_limit_what_is_dirty,
            an_unmap_tells_what_is_dirty,
            tracking_changes_no_mapping,
            trusted_groups_and_copies,
        }
        drivers {
            a_buffer_is_lent_and_taken_back,
            the_neighbours_of_a_buffer_are_out_of_reach,
            the_middle_of_a_buffer_is_mapped_where_it_is,
            a_list_costs_one_exchange,
            a_deferred_unmap_ends_with_the_flush,
            coherent_memory_is_seen_by_both,
            two_drivers_share_a_group,
            a_doorbell_has_an_address_for_the_device,
            a_refused_buffer_comes_back,
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
            the_last_byte_of_a_mapping,
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
            a_map_that_one_domain_refuses_reaches_nobody,
            a_new_domain_is_given_the_mappings,
            scattered_memory_at_two_units,
            either_unit_is_the_source_of_a_replay,
            a_unit_comes_after_an_address_moved,
            a_failed_map_at_two_units,
            a_group_leaves_and_the_others_stay,
            closing_blocks_everything,
            a_unit_leaves_and_comes_back,
            either_of_two_groups_leaves,
            the_narrower_unit_decides,
            a_unit_that_is_too_narrow,
        }
        refused {
            records_stay_with_their_unit,
        }
        sharing {
            the_same_address_at_two_units,
        }
    }
}
