//! The partition: union-find over everything that two functions can have in common.

use heapless::Vec;

use super::acs::AcsBits;
use super::function::{Function, Kind, RequesterId};
use super::{Topology, indexed, is_same_device};

/// The groups of a topology (rule C-019).
///
/// A value of its own: it borrows nothing, and two are equal if they say the same, in whatever
/// order the functions were described. A group is named by its lowest requester id. Later changes
/// of ACS bits do not show (rule C-061): compute again. Linux: `pci_device_group`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Groups<const N: usize> {
    /// Each function and the name of its group, by ascending function.
    members: Vec<(RequesterId, RequesterId), N>,
}

impl<const N: usize> Groups<N> {
    /// Computes the groups, where the IOMMU tells every two requester ids apart.
    #[must_use]
    pub fn compute(topology: &Topology<'_, N>) -> Self {
        Self::compute_by(topology, |requester| requester)
    }

    /// Computes the groups, where the IOMMU sees `endpoint(requester)`: requester ids with equal
    /// endpoints can't be told apart (rule C-046), as under an `iommu-map-mask`.
    ///
    /// `E` is the instance and the endpoint id, say. Give a requester id that no unit translates
    /// an endpoint of its own.
    #[must_use]
    pub fn compute_by<E: PartialEq>(
        topology: &Topology<'_, N>,
        endpoint: impl Fn(RequesterId) -> E,
    ) -> Self {
        let mut forest = Forest::new(topology);
        for (index, function) in indexed(topology.functions()) {
            join_aliases(&mut forest, topology, index, &endpoint);
            join_path(&mut forest, topology, index);
            join_switches(&mut forest, topology, index);
            join_neighbours(&mut forest, topology, index, function);
        }
        let mut members = Vec::new();
        for (index, function) in indexed(topology.functions()) {
            let root = forest.root(index);
            let name = topology.at(root).map_or(function.id, |root| root.id);
            let _ = members.push((function.id, name)); // one each: as many as the topology holds
        }
        members.sort_unstable();
        Self { members }
    }

    /// The group of a function, by its name: the lowest requester id of its members. `None` for an
    /// unknown id.
    #[must_use]
    pub fn group_of(&self, id: RequesterId) -> Option<RequesterId> {
        let place = self.members.binary_search_by_key(&id, |(member, _)| *member).ok()?;
        self.members.get(place).map(|(_, name)| *name)
    }

    /// Whether two functions share a group. False for an unknown id.
    #[must_use]
    pub fn is_shared(&self, one: RequesterId, other: RequesterId) -> bool {
        self.group_of(one).is_some_and(|name| self.group_of(other) == Some(name))
    }

    /// The members of the group of `id`, itself included, by ascending id; none for an unknown id.
    pub fn members(&self, id: RequesterId) -> impl Iterator<Item = RequesterId> {
        let group = self.group_of(id);
        let same = move |name| group == Some(name);
        self.members.iter().filter(move |(_, name)| same(*name)).map(|(member, _)| *member)
    }

    /// The lowest other member of the group of `id` for which `is_added` holds: what
    /// [`DeviceInfo::with`](crate::registry::DeviceInfo::with) has to name.
    ///
    /// The registry wants a device there that it has, and a host need not add its bridges.
    pub fn companion(
        &self,
        id: RequesterId,
        mut is_added: impl FnMut(RequesterId) -> bool,
    ) -> Option<RequesterId> {
        self.members(id).find(|member| *member != id && is_added(*member))
    }

    /// How many groups there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.members.iter().filter(|(member, name)| member == name).count()
    }

    /// Every function with the name of its group, by ascending function.
    pub fn iter(&self) -> impl Iterator<Item = (RequesterId, RequesterId)> {
        self.members.iter().copied()
    }
}

/// Requester ids in common, with functions and with the bridges that rename (rules C-046, C-055,
/// C-056; step 1 of the PCI rule).
fn join_aliases<E: PartialEq, const N: usize>(
    forest: &mut Forest<'_, '_, N>,
    topology: &Topology<'_, N>,
    index: u16,
    endpoint: &impl Fn(RequesterId) -> E,
) {
    for (alias, reason) in topology.aliases_at(index) {
        forest.join(index, reason);
        let seen = endpoint(alias);
        for other in 0..index {
            if topology.aliases_at(other).any(|(alias, _)| endpoint(alias) == seen) {
                forest.join(index, other);
            }
        }
    }
}

/// The bridges on the way up, as far as the way to the root doesn't isolate (rules C-053, C-057;
/// step 2).
fn join_path<const N: usize>(
    forest: &mut Forest<'_, '_, N>,
    topology: &Topology<'_, N>,
    index: u16,
) {
    let open = |bridge: &u16| !topology.path_enabled(*bridge, AcsBits::REQ);
    for bridge in topology.bridges_above(index).take_while(open) {
        forest.join(index, bridge);
    }
}

/// Switches with a port that doesn't redirect: what is behind that port reaches what is behind
/// every other one (rule C-065).
fn join_switches<const N: usize>(
    forest: &mut Forest<'_, '_, N>,
    topology: &Topology<'_, N>,
    index: u16,
) {
    for bridge in topology.bridges_above(index) {
        let is_switch = topology.at(bridge).is_some_and(|f| f.kind == Kind::UpstreamPort);
        if is_switch && is_open_inside(topology, bridge) {
            forest.join(index, bridge);
        }
    }
}

/// Whether something on the bus inside a switch can send to its neighbours. Only a downstream
/// port belongs there, so only that one is believed.
fn is_open_inside<const N: usize>(topology: &Topology<'_, N>, upstream_port: u16) -> bool {
    indexed(topology.functions()).zip(&topology.nodes).any(|((index, function), node)| {
        let redirects =
            function.kind == Kind::DownstreamPort && topology.enabled(index, AcsBits::REQ);
        node.parent == Some(upstream_port) && !redirects
    })
}

/// Aliases on the same bus, in either direction, and functions of one device where neither
/// isolates (rules C-058, C-059; steps 3 and 4). Their recursion is the closure of the forest.
fn join_neighbours<const N: usize>(
    forest: &mut Forest<'_, '_, N>,
    topology: &Topology<'_, N>,
    index: u16,
    one: &Function,
) {
    let has_alias = |one: &Function, other: &Function| {
        (one.id.segment, one.id.bus) == (other.id.segment, other.id.bus)
            && one.quirks.alias_devfns.contains(other.id.devfn)
    };
    for (place, other) in (0..index).zip(topology.functions()) {
        let one_device = || {
            is_same_device(topology.functions(), one, other)
                && !topology.enabled(index, AcsBits::REQ)
                && !topology.enabled(place, AcsBits::REQ)
        };
        if has_alias(one, other) || has_alias(other, one) || one_device() {
            forest.join(index, place);
        }
    }
}

/// Union-find whose roots have the lowest id of their set: order can't show in the result.
struct Forest<'t, 'a, const N: usize> {
    topology: &'t Topology<'a, N>,
    /// One for each function: one that is nearer to the root, or itself.
    next: Vec<u16, N>,
}

impl<'t, 'a, const N: usize> Forest<'t, 'a, N> {
    fn new(topology: &'t Topology<'a, N>) -> Self {
        let next = indexed(topology.functions()).map(|(index, _)| index).collect();
        Self { topology, next }
    }

    fn next(&self, index: u16) -> u16 {
        self.next.get(usize::from(index)).copied().unwrap_or(index)
    }

    fn link(&mut self, index: u16, to: u16) {
        if let Some(next) = self.next.get_mut(usize::from(index)) {
            *next = to;
        }
    }

    fn root(&mut self, mut index: u16) -> u16 {
        while self.next(index) != index {
            let over = self.next(self.next(index));
            self.link(index, over);
            index = over;
        }
        index
    }

    fn join(&mut self, one: u16, other: u16) {
        let (one, other) = (self.root(one), self.root(other));
        let id = |index| self.topology.at(index).map(|function| function.id);
        if id(one) < id(other) {
            self.link(other, one);
        } else {
            self.link(one, other);
        }
    }
}
