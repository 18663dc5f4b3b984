//! Each rule in one situation at least; the tree as a whole against a slow reference in `model`.

mod model;
mod rules;

use super::*;

const ALL: AcsBits = AcsBits::all();
const NONE: AcsBits = AcsBits::empty();
/// The root ports of QEMU 10.0: SV, TB, RR, CR, UF, DT advertised.
const QEMU: AcsBits = ALL.difference(AcsBits::P2P_EGRESS_CONTROL);
/// As such a port is before and after its control register was written.
const OFF: Option<Acs> = Some(Acs { capability: QEMU, control: NONE });
const ON: Option<Acs> = Some(Acs { capability: QEMU, control: AcsBits::REQ });

type Tree<'a> = Topology<'a, 64>;

/// Segment 0.
const fn id(bus: u8, device: u8, function: u8) -> RequesterId {
    RequesterId::new(0, bus, device, function)
}

/// A function below `parent`, or on the root bus.
const fn leaf(id: RequesterId, kind: Kind, parent: Option<RequesterId>) -> Function {
    Function { parent, ..Function::new(id, kind) }
}

/// A bridge with bus `below`.
const fn bridge(
    id: RequesterId,
    kind: Kind,
    parent: Option<RequesterId>,
    below: u8,
    acs: Option<Acs>,
) -> Function {
    Function { secondary: Some(below), acs, ..leaf(id, kind, parent) }
}

fn groups(functions: &[Function]) -> Groups<64> {
    Groups::compute(&Tree::new(functions).expect("a sound description"))
}

/// Whether exactly the functions of each row share a group, and every function is in a row.
#[track_caller]
fn assert_groups(functions: &[Function], rows: &[&[RequesterId]]) {
    let groups = groups(functions);
    let mut expected: std::vec::Vec<_> = rows.iter().map(|row| row.to_vec()).collect();
    expected.iter_mut().for_each(|row| row.sort_unstable());
    expected.sort_unstable();
    let names = groups.iter().filter(|(member, name)| member == name);
    let found: std::vec::Vec<std::vec::Vec<_>> =
        names.map(|(name, _)| groups.members(name).collect()).collect();
    assert_eq!(found, expected);
    assert_eq!(groups.count(), rows.len());
}

#[test]
fn a_wrong_description_is_refused_and_named() {
    use TopologyError::*;
    let port = bridge(id(0, 1, 0), Kind::RootPort, None, 1, ON);
    let nic = leaf(id(1, 0, 0), Kind::Endpoint, Some(port.id));
    let refused = |functions: &[Function]| Tree::new(functions).map(|_| ()).unwrap_err();
    assert_eq!(refused(&[port, nic, nic]), Duplicate(nic.id));
    assert_eq!(refused(&[nic]), Unknown(port.id), "its bridge was left out");
    let orphan = Function { parent: None, ..nic };
    assert_eq!(refused(&[port, orphan]), Misplaced(nic.id), "not a root bus");
    let elsewhere = Function { id: id(7, 0, 0), ..nic };
    assert_eq!(refused(&[port, elsewhere]), Misplaced(elsewhere.id));
    let below_nic = leaf(id(2, 0, 0), Kind::Endpoint, Some(nic.id));
    assert_eq!(refused(&[port, nic, below_nic]), Misplaced(below_nic.id), "a NIC is no bridge");
    let twin = bridge(id(0, 2, 0), Kind::RootPort, None, 1, ON);
    assert_eq!(refused(&[port, twin, nic]), Misplaced(nic.id), "two bridges with bus 1");
    let quirks = Quirks { dma_function: Some(id(9, 0, 0)), ..Quirks::NONE };
    assert_eq!(refused(&[port, Function { quirks, ..nic }]), Unknown(id(9, 0, 0)));
    let own_child = bridge(id(3, 0, 0), Kind::ConventionalBridge, Some(id(3, 0, 0)), 3, None);
    assert_eq!(refused(&[own_child]), Loop(own_child.id));
    let a = bridge(id(4, 0, 0), Kind::UpstreamPort, Some(id(5, 0, 0)), 5, None);
    let b = bridge(id(5, 0, 0), Kind::UpstreamPort, Some(id(4, 0, 0)), 4, None);
    assert_eq!(refused(&[a, b]), Loop(a.id));
    let far = bridge(RequesterId::new(1, 0, 1, 0), Kind::RootPort, None, 9, ON);
    let across = Function { virtual_function: true, ..leaf(id(2, 0, 0), Kind::Endpoint, None) };
    let across = Function { parent: Some(far.id), ..across };
    assert_eq!(refused(&[far, across]), Misplaced(across.id), "another segment");
}

#[test]
fn a_full_table_is_an_ordinary_error() {
    let devices = [0, 1, 2].map(|device| leaf(id(0, device, 0), Kind::Endpoint, None));
    assert_eq!(Topology::<2>::new(&devices).unwrap_err(), TopologyError::TooMany);
    assert_eq!(TopologyError::TooMany.errno(), crate::error::errno::ENOSPC);
    assert_eq!(TopologyError::Loop(id(0, 0, 0)).errno(), crate::error::errno::EINVAL);
    let topology = Topology::<3>::new(&devices).unwrap();
    assert_eq!(Groups::compute(&topology).count(), 3);
    assert_eq!(topology.requester_ids::<0>(id(0, 1, 0)), Err(TopologyError::TooMany));
    let unknown = id(0, 9, 0);
    assert_eq!(topology.requester_ids::<4>(unknown), Err(TopologyError::Unknown(unknown)));
    assert!(topology.aliases(unknown).is_none());
    assert_eq!(Groups::compute(&topology).members(unknown).count(), 0);
}

#[test]
fn port_types_are_those_of_the_pcie_capability() {
    assert_eq!(Kind::from_port_type(0x4), Some(Kind::RootPort));
    assert_eq!(Kind::from_port_type(0x7), Some(Kind::PcieToPciBridge));
    assert_eq!(Kind::from_port_type(0xa), Some(Kind::EventCollector));
    for reserved in [0x2, 0x3, 0xb, 0xf, 0xff] {
        assert_eq!(Kind::from_port_type(reserved), None);
    }
}

#[test]
fn a_devfn_set_yields_what_was_put_in() {
    let devfns = [0, 1, 63, 64, 128, 254, 255];
    let set = devfns.into_iter().fold(DevfnSet::EMPTY, DevfnSet::with);
    assert!(set.iter().eq(devfns));
    assert!(!set.contains(62) && !set.contains(192) && set.contains(255));
    assert_eq!(DevfnSet::EMPTY.iter().count(), 0);
}

/// What the registry gets for a device behind a PCIe-to-PCI bridge that the host does not add.
#[cfg(feature = "sim")]
#[test]
fn the_registry_makes_the_same_groups() {
    use crate::device::DeviceId;
    use crate::driver::EndpointId;
    use crate::pool::Pool;
    use crate::registry::{DeviceInfo, Registry};

    static POOL: Pool = Pool::heap();
    let port = bridge(id(0, 1, 0), Kind::RootPort, None, 1, None);
    let functions = [
        port,
        leaf(id(0, 2, 0), Kind::RcIntegratedEndpoint, None),
        Function { multifunction: true, ..leaf(id(1, 0, 0), Kind::Endpoint, Some(port.id)) },
        bridge(id(1, 0, 1), Kind::PcieToPciBridge, Some(port.id), 2, None),
        leaf(id(2, 3, 0), Kind::ConventionalDevice, Some(id(1, 0, 1))),
    ];
    let topology = Tree::new(&functions).unwrap();
    let groups = Groups::compute(&topology);
    let sim = crate::sim::Sim::new();
    let registry = Registry::new(&POOL);
    let instance = registry.add_instance(sim.driver()).unwrap();
    let name = |id: RequesterId| DeviceId(u64::from(id.rid()));
    let added = |id| registry.group_of(name(id)).is_some();
    let devices = || functions.iter().filter(|function| !function.kind.is_bridge());
    for device in devices() {
        let requesters = topology.requester_ids::<4>(device.id).unwrap();
        let endpoints = requesters.iter().map(|requester| EndpointId(requester.rid().into()));
        let endpoints: std::vec::Vec<_> = endpoints.collect();
        let with = groups.companion(device.id, added).map(name);
        let info = DeviceInfo { id: name(device.id), endpoints: &endpoints, with };
        registry.add_device(&instance, &info).unwrap();
    }
    assert_eq!(registry.group_count(), 2);
    for one in devices() {
        for other in devices() {
            let [a, b] = [one, other].map(|f| registry.group_of(name(f.id)).unwrap().id());
            assert_eq!(a == b, groups.is_shared(one.id, other.id), "{} {}", one.id, other.id);
        }
    }
}
