//! Which PCI functions the hardware can't keep apart: groups, computed from the tree as a whole.
//!
//! The host describes every function ([`Function`]), bridges included, after it wrote
//! [`acs_to_enable`] to each ACS Control register (rule C-054). [`Topology`] checks that the
//! description hangs together; [`Groups`] is the partition (rules C-051 to C-065). The order of
//! the description has no influence (rule C-061), and what is in doubt is shared (rule C-065).
//!
//! ```
//! use iommu::topology::{Function, Groups, Kind, RequesterId, Topology};
//!
//! let port = RequesterId::new(0, 0, 1, 0);
//! let nic = RequesterId::new(0, 1, 0, 0);
//! let functions = [
//!     Function { secondary: Some(1), ..Function::new(port, Kind::RootPort) },
//!     Function { parent: Some(port), ..Function::new(nic, Kind::Endpoint) },
//! ];
//! let topology: Topology<'_, 64> = Topology::new(&functions)?;
//! let groups = Groups::compute(&topology);
//! assert_eq!(groups.group_of(nic), Some(port)); // the port has no ACS: one group
//!
//! // What `DeviceInfo` asks for: the endpoint ids, and a device of the group that is there.
//! let requesters = topology.requester_ids::<8>(nic)?;
//! assert_eq!(requesters.as_slice(), [nic]);
//! assert_eq!(groups.companion(nic, |id| id == port), Some(port));
//! # Ok::<(), iommu::topology::TopologyError>(())
//! ```
//!
//! # Where this groups more than Linux
//!
//! - Equal requester ids share a group even if no function owns the id (rules C-046, C-049).
//! - A switch whose ports don't all isolate is one group with all that is below it. Linux asks
//!   the ports from the device up only, though a port without ACS lets its device reach
//!   those behind ports that have it.
//! - Behind a link all functions are one device for rule C-059, whatever their device numbers
//!   (ARI), and one multi-function bit, or two functions, make it a multi-function device.
//!
//! A root bus is where it ends: the root complex is taken to translate what arrives there, unless
//! a root port's own ACS says otherwise (rule C-063).
//!
//! Nothing here allocates, panics or locks. The time is O(n² · depth²) for n functions, once.

mod acs;
mod error;
mod function;
mod groups;
#[cfg(test)]
mod tests;

use core::iter;

use heapless::Vec;

pub use self::acs::{Acs, AcsBits, acs_enabled, acs_to_enable};
pub use self::error::TopologyError;
pub use self::function::{DevfnSet, Function, Kind, Quirks, RequesterId};
pub use self::groups::Groups;

/// A checked description of up to `N` functions, at most 65535.
///
/// Holding one proves: ids are unique, every function is below the bridge that its bus is below,
/// and every way up ends at a root bus.
#[derive(Clone, Debug)]
pub struct Topology<'a, const N: usize> {
    functions: &'a [Function],
    /// One for each of `functions`.
    nodes: Vec<Node, N>,
}

/// What `Topology::new` found out about a function. Numbers are places in `functions`.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: Option<u16>,
    /// The function whose place in the tree DMA has: itself, but for a quirk.
    dma: u16,
    multifunction: bool,
}

impl<'a, const N: usize> Topology<'a, N> {
    /// Checks a description.
    ///
    /// # Errors
    ///
    /// `TooMany`: more than `N` functions. `Duplicate`, `Unknown`, `Misplaced`, `Loop`: as
    /// [`TopologyError`] says; nothing is guessed, because a wrong guess can't isolate.
    pub fn new(functions: &'a [Function]) -> Result<Self, TopologyError> {
        let mut nodes = Vec::new();
        if u16::try_from(functions.len()).is_err() {
            return Err(TopologyError::TooMany);
        }
        for (index, function) in functions.iter().enumerate() {
            let is_twin = |other: &Function| other.id == function.id;
            if functions.iter().take(index).any(is_twin) {
                return Err(TopologyError::Duplicate(function.id));
            }
            let parent = parent_of(functions, function)?;
            let dma = function.quirks.dma_function.unwrap_or(function.id);
            let dma = find(functions, dma).ok_or(TopologyError::Unknown(dma))?;
            let multifunction = is_multifunction(functions, function);
            nodes.push(Node { parent, dma, multifunction }).map_err(|_| TopologyError::TooMany)?;
        }
        let topology = Self { functions, nodes };
        for (index, function) in indexed(functions) {
            // A way up that is longer than there are functions meets one twice.
            if topology.bridges_above(index).nth(functions.len()).is_some() {
                return Err(TopologyError::Loop(function.id));
            }
        }
        Ok(topology)
    }

    /// The functions as described.
    #[must_use]
    pub const fn functions(&self) -> &'a [Function] {
        self.functions
    }

    /// The function with this id.
    #[must_use]
    pub fn function(&self, id: RequesterId) -> Option<&'a Function> {
        self.functions.iter().find(|function| function.id == id)
    }

    /// As [`acs_enabled`], for a function of a multi-function device even where only a neighbour
    /// says that it is one (rules C-051, C-052, C-062). False for an unknown id.
    #[must_use]
    pub fn acs_enabled(&self, id: RequesterId, required: AcsBits) -> bool {
        find(self.functions, id).is_some_and(|index| self.enabled(index, required))
    }

    /// Whether every bridge from `bridge` up to the root bus honours `required` (rule C-053).
    /// False for an unknown id.
    ///
    /// Linux: `pci_acs_path_enabled` with no end.
    #[must_use]
    pub fn acs_path_enabled(&self, bridge: RequesterId, required: AcsBits) -> bool {
        find(self.functions, bridge).is_some_and(|index| self.path_enabled(index, required))
    }

    /// Every requester id that DMA of a function can carry when it reaches the IOMMU, or `None`
    /// for an unknown id (rule C-055).
    ///
    /// In this order, repeats possible: the function's own (or its stand-in's), the quirks of that
    /// one, then one for each bridge on the way up that renames. So with a bridge that renames
    /// the last is what is seen at the root. Linux: `pci_for_each_dma_alias`.
    pub fn aliases(&self, id: RequesterId) -> Option<impl Iterator<Item = RequesterId>> {
        let index = find(self.functions, id)?;
        Some(self.aliases_at(index).map(|(alias, _)| alias))
    }

    /// The same without repeats, as a table: translate each one and put them all in
    /// [`DeviceInfo::endpoints`](crate::registry::DeviceInfo::endpoints).
    ///
    /// # Errors
    ///
    /// `Unknown`: no function `id`. `TooMany`: more than `M` different ids.
    pub fn requester_ids<const M: usize>(
        &self,
        id: RequesterId,
    ) -> Result<Vec<RequesterId, M>, TopologyError> {
        let mut ids = Vec::new();
        for alias in self.aliases(id).ok_or(TopologyError::Unknown(id))? {
            // The last of equals stays, so that what the root sees ends the table.
            ids.retain(|one| *one != alias);
            ids.push(alias).map_err(|_| TopologyError::TooMany)?;
        }
        Ok(ids)
    }

    /// Aliases, each with the function that is the reason for it.
    fn aliases_at(&self, index: u16) -> impl Iterator<Item = (RequesterId, u16)> {
        let dma = self.node(index).map_or(index, |node| node.dma);
        let own = self.at(dma).into_iter().flat_map(move |function| {
            let also = function.quirks.alias_devfns.iter();
            let also = also.map(|devfn| RequesterId { devfn, ..function.id });
            iter::once(function.id).chain(also).map(move |alias| (alias, dma))
        });
        let bridges = self.bridges_above(dma).filter_map(|bridge| Some((self.at(bridge)?, bridge)));
        let bridges = bridges
            .take_while(|(function, _)| !function.quirks.translation_root)
            .filter_map(|(function, bridge)| Some((function.bridge_alias()?, bridge)));
        own.chain(bridges)
    }

    /// The bridges from the one above a function up to the root bus.
    fn bridges_above(&self, index: u16) -> impl Iterator<Item = u16> {
        let above = |index: &u16| self.node(*index)?.parent;
        iter::successors(above(&index), above)
    }

    fn at(&self, index: u16) -> Option<&'a Function> {
        self.functions.get(usize::from(index))
    }

    fn node(&self, index: u16) -> Option<&Node> {
        self.nodes.get(usize::from(index))
    }

    fn enabled(&self, index: u16, required: AcsBits) -> bool {
        let (Some(function), Some(node)) = (self.at(index), self.node(index)) else { return false };
        acs_enabled(&Function { multifunction: node.multifunction, ..*function }, required)
    }

    fn path_enabled(&self, bridge: u16, required: AcsBits) -> bool {
        let mut path = iter::once(bridge).chain(self.bridges_above(bridge));
        path.all(|one| self.enabled(one, required))
    }
}

/// Functions with their places. There are at most 65535, so the count doesn't overflow.
fn indexed(functions: &[Function]) -> impl Iterator<Item = (u16, &Function)> {
    functions.iter().zip(0..).map(|(function, index)| (index, function))
}

fn find(functions: &[Function], id: RequesterId) -> Option<u16> {
    indexed(functions).find(|(_, function)| function.id == id).map(|(index, _)| index)
}

/// The bridge above a function. What the function says and what bus numbers say must agree: one
/// alone can't show that a bridge was left out.
fn parent_of(functions: &[Function], of: &Function) -> Result<Option<u16>, TopologyError> {
    let on = (of.id.segment, of.id.bus);
    let mut bridges = indexed(functions).filter(|(_, f)| f.bus_below() == Some(on));
    let by_bus = bridges.next().map(|(index, _)| index);
    let misplaced = Err(TopologyError::Misplaced(of.id));
    if bridges.next().is_some() {
        return misplaced;
    }
    let Some(id) = of.parent else {
        return if by_bus.is_none() { Ok(None) } else { misplaced };
    };
    let parent = find(functions, id).ok_or(TopologyError::Unknown(id))?;
    // Virtual functions may overflow to buses that no bridge has below it.
    let is_bridge = functions.get(usize::from(parent)).is_some_and(|f| f.bus_below().is_some());
    let overflows = of.virtual_function && id.segment == of.id.segment && is_bridge;
    match by_bus {
        Some(bridge) if bridge == parent => Ok(Some(parent)),
        None if overflows => Ok(Some(parent)),
        _ => misplaced,
    }
}

/// Whether two functions are of one device, as rule C-059 means it. Virtual functions count as
/// devices of their own (rule C-062).
fn is_same_device(functions: &[Function], one: &Function, other: &Function) -> bool {
    let (a, b) = (one.id, other.id);
    let on_link = || {
        let port = one.parent.and_then(|id| functions.iter().find(|function| function.id == id));
        port.is_some_and(|port| port.kind.has_link_below())
    };
    !one.virtual_function
        && !other.virtual_function
        && (a.segment, a.bus) == (b.segment, b.bus)
        && (a.device() == b.device() || on_link())
}

fn is_multifunction(functions: &[Function], one: &Function) -> bool {
    let mut device = functions.iter().filter(|other| is_same_device(functions, one, other));
    one.multifunction || device.any(|other| other.multifunction || other.id != one.id)
}
