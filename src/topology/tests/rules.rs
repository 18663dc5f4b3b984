//! The rules one by one, and what they are about in words.

use super::*;
use Kind::*;

#[test]
fn c051_what_each_kind_of_function_isolates() {
    // Single function without ACS, multi-function without, multi-function with REQ on.
    let table = [
        (Endpoint, [true, false, true]),
        (LegacyEndpoint, [true, false, true]),
        (RcIntegratedEndpoint, [true, false, true]),
        (UpstreamPort, [true, false, true]),
        (RootPort, [false, false, true]),
        (DownstreamPort, [false, false, true]),
        (PcieToPciBridge, [false, false, false]),
        (PciToPcieBridge, [false, false, false]),
        (EventCollector, [false, false, false]),
        (ConventionalBridge, [false, false, false]),
        (ConventionalDevice, [false, false, false]),
    ];
    for (kind, expected) in table {
        let single = Function::new(id(0, 3, 0), kind);
        let multi = Function { multifunction: true, ..single };
        let with = Function { acs: ON, ..multi };
        let found = [single, multi, with].map(|function| acs_enabled(&function, AcsBits::REQ));
        assert_eq!(found, expected, "{kind:?}");
    }
}

#[test]
fn c051_the_quirk_table_is_asked_before_the_registers() {
    let vouched = Quirks { acs: Some(AcsBits::REQ), ..Quirks::NONE };
    let plain = Function::new(id(0, 3, 0), RootPort);
    assert!(acs_enabled(&Function { quirks: vouched, ..plain }, AcsBits::REQ));
    let broken = Quirks { acs: Some(NONE), ..Quirks::NONE };
    assert!(!acs_enabled(&Function { acs: ON, quirks: broken, ..plain }, AcsBits::REQ));
}

#[test]
fn c052_bits_that_are_not_advertised_are_hard_wired_except_egress_control() {
    let acs = |capability, control| Acs { capability, control };
    let two = AcsBits::P2P_REQUEST_REDIRECT | AcsBits::P2P_COMPLETION_REDIRECT;
    assert!(acs(NONE, NONE).enabled(AcsBits::REQ));
    assert!(acs(two, two).enabled(AcsBits::REQ));
    assert!(!acs(two, AcsBits::P2P_REQUEST_REDIRECT).enabled(AcsBits::REQ));
    assert!(!acs(ALL, NONE).enabled(AcsBits::REQ));
    assert!(!acs(NONE, NONE).enabled(AcsBits::P2P_EGRESS_CONTROL));
    // Neither of these is part of REQ.
    let rest = AcsBits::TRANSLATION_BLOCKING | AcsBits::DIRECT_TRANSLATED_P2P;
    assert!(acs(ALL, ALL.difference(rest)).enabled(AcsBits::REQ));
    // Nobody is asked where there is no capability.
    assert!(!acs_enabled(&Function::new(id(0, 3, 0), RootPort), AcsBits::REQ));
}

/// A root port, a switch with two downstream ports, an endpoint below each.
fn switch(root: Option<Acs>, ports: [Option<Acs>; 2]) -> [Function; 6] {
    let [r, u, d1, d2] = [id(0, 1, 0), id(1, 0, 0), id(2, 1, 0), id(2, 2, 0)];
    [
        bridge(r, RootPort, None, 1, root),
        bridge(u, UpstreamPort, Some(r), 2, None),
        bridge(d1, DownstreamPort, Some(u), 3, ports[0]),
        bridge(d2, DownstreamPort, Some(u), 4, ports[1]),
        leaf(id(3, 0, 0), Endpoint, Some(d1)),
        leaf(id(4, 0, 0), Endpoint, Some(d2)),
    ]
}

#[test]
fn c053_a_path_isolates_if_every_bridge_of_it_does() {
    for (root, port, expected) in [(ON, ON, true), (ON, OFF, false), (OFF, ON, false)] {
        let functions = switch(root, [port, ON]);
        let topology = Tree::new(&functions).unwrap();
        assert_eq!(topology.acs_path_enabled(id(2, 1, 0), AcsBits::REQ), expected);
    }
    let functions = switch(ON, [ON, ON]);
    let topology = Tree::new(&functions).unwrap();
    assert!(!topology.acs_path_enabled(id(77, 0, 0), AcsBits::REQ), "an unknown bridge");
}

#[test]
fn c054_control_is_written_before_grouping() {
    let port = Function { acs: OFF, ..Function::new(id(0, 1, 0), RootPort) };
    assert_eq!(acs_to_enable(&port), Some(AcsBits::REQ));
    assert_eq!(acs_to_enable(&Function { acs: None, ..port }), None);
    // Towards the outside, translated requests are blocked as well.
    let outside = Function { untrusted: true, ..port };
    assert_eq!(acs_to_enable(&outside), Some(AcsBits::REQ | AcsBits::TRANSLATION_BLOCKING));
    // Only what is advertised, and nothing is turned off, named here or not.
    let capability = AcsBits::SOURCE_VALIDATION;
    let control = AcsBits::from_bits_retain(1 << 12);
    let acs = Some(Acs { capability, control });
    assert_eq!(acs_to_enable(&Function { acs, ..outside }), Some(capability | control));
    // After the write the port isolates: two devices on two ports are told apart.
    let mut functions = switch(OFF, [OFF, OFF]);
    assert_eq!(groups(&functions).count(), 1);
    for function in &mut functions {
        if let (Some(acs), Some(control)) = (function.acs, acs_to_enable(function)) {
            function.acs = Some(Acs { control, ..acs });
        }
    }
    assert_eq!(groups(&functions).count(), 6);
}

#[test]
fn c055_aliases_come_in_order_from_the_device_to_the_root() {
    let [r, p, c, x] = [id(0, 1, 0), id(1, 0, 0), id(2, 4, 0), id(3, 0, 0)];
    let quirks = Quirks { alias_devfns: DevfnSet::EMPTY.with(9), ..Quirks::NONE };
    let device = Function { quirks, ..leaf(id(4, 0, 0), Endpoint, Some(x)) };
    let mut functions = [
        bridge(r, RootPort, None, 1, ON),
        bridge(p, PcieToPciBridge, Some(r), 2, None),
        bridge(c, ConventionalBridge, Some(p), 3, None),
        bridge(x, PciToPcieBridge, Some(c), 4, None),
        device,
        leaf(id(0, 7, 0), RcIntegratedEndpoint, None),
    ];
    let aliases = |functions: &[Function], of| {
        let topology = Tree::new(functions).unwrap();
        let aliases: std::vec::Vec<_> = topology.aliases(of).unwrap().collect();
        aliases
    };
    let quirk = id(4, 1, 1);
    assert_eq!(aliases(&functions, device.id), [device.id, quirk, x, c, id(2, 0, 0)]);
    // A conventional bridge with the quirk takes its secondary bus.
    functions[2].quirks.alias_is_secondary = true;
    assert_eq!(aliases(&functions, device.id), [device.id, quirk, x, id(3, 0, 0), id(2, 0, 0)]);
    // The same id twice is one row of the table, and what the root sees is the last.
    let topology = Tree::new(&functions).unwrap();
    let table = topology.requester_ids::<8>(device.id).unwrap();
    assert_eq!(table.as_slice(), [device.id, quirk, x, id(2, 0, 0)]);
    // It ends where a bridge translates.
    functions[2].quirks.translation_root = true;
    assert_eq!(aliases(&functions, device.id), [device.id, quirk, x]);
    // Another function stands in: its id, its quirks, its way up.
    functions[4].quirks.dma_function = Some(id(0, 7, 0));
    functions[5].quirks.alias_devfns = DevfnSet::EMPTY.with(1);
    assert_eq!(aliases(&functions, device.id), [id(0, 7, 0), id(0, 0, 1)]);
    assert!(groups(&functions).is_shared(device.id, id(0, 7, 0)));
}

#[test]
fn c056_devices_on_a_conventional_bus_are_one_with_the_bridge_that_names_them() {
    let [r, p, a, b] = [id(0, 1, 0), id(1, 0, 0), id(2, 1, 0), id(2, 2, 0)];
    let functions = [
        bridge(r, RootPort, None, 1, ON),
        bridge(p, PcieToPciBridge, Some(r), 2, None),
        leaf(a, ConventionalDevice, Some(p)),
        leaf(b, ConventionalDevice, Some(p)),
    ];
    assert_groups(&functions, &[&[r], &[p, a, b]]);
}

#[test]
fn c057_below_a_port_without_acs_all_share_its_group() {
    let [r, u, d1, d2, a, b] = switch(OFF, [ON, ON]).map(|function| function.id);
    assert_groups(&switch(OFF, [ON, ON]), &[&[r, u, d1, d2, a, b]]);
    assert_groups(&switch(ON, [ON, ON]), &[&[r], &[u], &[d1], &[d2], &[a], &[b]]);
    // Two root ports: only the one without ACS shares.
    let s = id(0, 2, 0);
    let two = [
        bridge(r, RootPort, None, 1, None),
        bridge(s, RootPort, None, 2, ON),
        leaf(id(1, 0, 0), Endpoint, Some(r)),
        leaf(id(2, 0, 0), Endpoint, Some(s)),
    ];
    assert_groups(&two, &[&[r, id(1, 0, 0)], &[s], &[id(2, 0, 0)]]);
}

#[test]
fn c058_a_quirk_joins_in_both_directions_and_through_others() {
    let [a, b, c, d] = [1, 2, 3, 4].map(|device| id(0, device, 0));
    let sends_as = |from, to: RequesterId| {
        let quirks = Quirks { alias_devfns: DevfnSet::EMPTY.with(to.devfn), ..Quirks::NONE };
        Function { quirks, ..leaf(from, RcIntegratedEndpoint, None) }
    };
    // a sends as b, c sends as b: neither knows of the other. d has nothing to do with it.
    let plain = |id| leaf(id, RcIntegratedEndpoint, None);
    let functions = [sends_as(a, b), plain(b), sends_as(c, b), plain(d)];
    assert_groups(&functions, &[&[a, b, c], &[d]]);
    // A circle ends.
    let circle = [sends_as(a, b), sends_as(b, c), sends_as(c, a), plain(d)];
    assert_groups(&circle, &[&[a, b, c], &[d]]);
    // The same devfn on another bus is another id.
    let port = bridge(id(0, 9, 0), RootPort, None, 1, ON);
    let other = leaf(id(1, 2, 0), Endpoint, Some(port.id));
    assert_groups(&[sends_as(a, b), port, other], &[&[a], &[port.id], &[other.id]]);
    // Functions that an alias is not isolated from come along.
    let chip = [0, 1].map(|f| Function { multifunction: true, ..plain(id(0, 2, f)) });
    let [b0, b1] = chip.map(|function| function.id);
    assert_groups(&[sends_as(a, b), chip[0], chip[1]], &[&[a, b0, b1]]);
}

#[test]
fn c046_equal_ids_share_a_group_though_nobody_owns_the_id() {
    let [a, b] = [id(0, 1, 0), id(0, 2, 0)];
    let quirks = Quirks { alias_devfns: DevfnSet::EMPTY.with(0xff), ..Quirks::NONE };
    let both = [a, b].map(|id| Function { quirks, ..leaf(id, RcIntegratedEndpoint, None) });
    assert_groups(&both, &[&[a, b]]);
    // And where firmware gives two requesters one endpoint id.
    let plain = [a, b].map(|id| leaf(id, RcIntegratedEndpoint, None));
    assert_groups(&plain, &[&[a], &[b]]);
    let topology = Tree::new(&plain).unwrap();
    assert_eq!(Groups::compute_by(&topology, |requester| requester.rid() & !0x18).count(), 1);
}

#[test]
fn c059_functions_of_one_chip_share_unless_they_isolate() {
    let [f0, f1, f2, other] = [id(0, 3, 0), id(0, 3, 1), id(0, 3, 2), id(0, 4, 0)];
    let of_chip =
        |id, acs| Function { multifunction: true, acs, ..leaf(id, RcIntegratedEndpoint, None) };
    let functions = [of_chip(f0, None), of_chip(f1, ON), of_chip(f2, OFF), of_chip(other, None)];
    assert_groups(&functions, &[&[f0, f2], &[f1], &[other]]);
    // Root ports in one slot are functions of one chip too, and what is below comes along.
    let port =
        |id, below, acs| Function { multifunction: true, ..bridge(id, RootPort, None, below, acs) };
    let [a, b, c] = [1, 2, 3].map(|bus| id(bus, 0, 0));
    let ports = [
        port(f0, 1, None),
        port(f1, 2, None),
        port(f2, 3, ON),
        leaf(a, Endpoint, Some(f0)),
        leaf(b, Endpoint, Some(f1)),
        leaf(c, Endpoint, Some(f2)),
    ];
    assert_groups(&ports, &[&[f0, f1, a, b], &[f2], &[c]]);
}

#[test]
fn c060_nothing_in_common_is_a_group_of_its_own() {
    let far = RequesterId { segment: 1, ..id(0, 1, 0) };
    let functions = [
        leaf(id(0, 1, 0), RcIntegratedEndpoint, None),
        leaf(id(0, 2, 0), RcIntegratedEndpoint, None),
        leaf(far, RcIntegratedEndpoint, None),
    ];
    assert_groups(&functions, &[&[id(0, 1, 0)], &[id(0, 2, 0)], &[far]]);
}

#[test]
fn c061_every_order_of_discovery_gives_the_same_groups() {
    let mut functions = std::vec::Vec::from(switch(ON, [ON, OFF]));
    let quirks = Quirks { alias_devfns: DevfnSet::EMPTY.with(0x10), ..Quirks::NONE };
    functions.push(Function { quirks, ..leaf(id(0, 3, 0), ConventionalDevice, None) });
    let expected = groups(&functions);
    assert_eq!(expected.count(), 3);
    let mut orders = 0;
    each_order(&mut functions, 0, &mut |order| {
        orders += 1;
        assert_eq!(groups(order), expected, "{order:#?}");
    });
    assert_eq!(orders, 5040);
}

fn each_order(functions: &mut [Function], fixed: usize, visit: &mut dyn FnMut(&[Function])) {
    if fixed == functions.len() {
        return visit(functions);
    }
    for place in fixed..functions.len() {
        functions.swap(fixed, place);
        each_order(functions, fixed + 1, visit);
        functions.swap(fixed, place);
    }
}

#[test]
fn c062_virtual_functions_count_as_single_even_on_a_bus_of_their_own() {
    let port = id(0, 1, 0);
    let virtual_function = |at| Function {
        virtual_function: true,
        multifunction: true,
        ..leaf(at, Endpoint, Some(port))
    };
    let [pf, near, far] = [id(1, 0, 0), id(1, 0, 1), id(2, 0, 0)];
    let functions = |acs| {
        let nic = leaf(pf, Endpoint, Some(port));
        let port = bridge(port, RootPort, None, 1, acs);
        [port, nic, virtual_function(near), virtual_function(far)]
    };
    assert!(acs_enabled(&virtual_function(near), AcsBits::REQ));
    assert_groups(&functions(ON), &[&[port], &[pf], &[near], &[far]]);
    // Bus 2 has no bridge, and still the port without ACS is above it.
    assert_groups(&functions(None), &[&[port, pf, near, far]]);
}

#[test]
fn c063_single_functions_on_the_root_bus_stand_alone_even_conventional() {
    let [a, b, c] = [1, 2, 3].map(|device| id(0, device, 0));
    let functions = [
        leaf(a, ConventionalDevice, None),
        leaf(b, ConventionalDevice, None),
        leaf(c, RcIntegratedEndpoint, None),
    ];
    assert_groups(&functions, &[&[a], &[b], &[c]]);
}

#[test]
fn c064_no_trust_changes_no_group() {
    let untrusted = switch(ON, [ON, OFF]).map(|f| Function { untrusted: true, ..f });
    assert_eq!(groups(&untrusted), groups(&switch(ON, [ON, OFF])));
}

#[test]
fn c065_one_port_without_acs_opens_the_whole_switch() {
    // b's port lets b's requests turn off to a's port, which isolates a in vain.
    let [r, u, d1, d2, a, b] = switch(ON, [ON, OFF]).map(|function| function.id);
    assert_groups(&switch(ON, [ON, OFF]), &[&[r], &[u, d1, d2, a, b]]);
}

#[test]
fn c065_what_only_a_neighbour_says_is_believed_if_it_shares() {
    let port = bridge(id(0, 1, 0), RootPort, None, 1, ON);
    let on_link = |device, function| leaf(id(1, device, function), Endpoint, Some(port.id));
    // No function has the multi-function bit, but there are two in the slot.
    let [f0, f1] = [on_link(0, 0), on_link(0, 1)];
    assert_groups(&[port, f0, f1], &[&[port.id], &[f0.id, f1.id]]);
    let functions = [port, f0, f1];
    let topology = Tree::new(&functions).unwrap();
    assert!(!topology.acs_enabled(f1.id, AcsBits::REQ) && acs_enabled(&f1, AcsBits::REQ));
    // On a link there is one device; with ARI its ninth function looks like device 1.
    let f8 = on_link(1, 0);
    assert_groups(&[port, f0, f8], &[&[port.id], &[f0.id, f8.id]]);
}
