//! Random trees against a reference that follows single requests, and hostile descriptions.

use std::collections::BTreeSet;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const KINDS: [Kind; 11] = [
    Kind::Endpoint,
    Kind::RootPort,
    Kind::UpstreamPort,
    Kind::DownstreamPort,
    Kind::PcieToPciBridge,
    Kind::PciToPcieBridge,
    Kind::ConventionalBridge,
    Kind::ConventionalDevice,
    Kind::RcIntegratedEndpoint,
    Kind::EventCollector,
    Kind::LegacyEndpoint,
];

/// The reference. It knows bit numbers and bus numbers; no code is shared with what it checks.
struct Reference<'a>(&'a [Function]);

impl Reference<'_> {
    fn find(&self, id: RequesterId) -> usize {
        self.0.iter().position(|function| function.id == id).unwrap()
    }

    fn parent(&self, index: usize) -> Option<usize> {
        self.0[index].parent.map(|id| self.find(id))
    }

    fn is_below(&self, index: usize, bridge: usize) -> bool {
        self.parent(index).is_some_and(|parent| parent == bridge || self.is_below(parent, bridge))
    }

    fn is_one_device(&self, a: usize, b: usize) -> bool {
        let on_link = self.parent(a).is_some_and(|parent| {
            matches!(self.0[parent].kind, Kind::RootPort | Kind::DownstreamPort)
        });
        let [a, b] = [&self.0[a], &self.0[b]];
        let same_slot = a.id.devfn / 8 == b.id.devfn / 8;
        let same_bus = a.id.segment == b.id.segment && a.id.bus == b.id.bus;
        same_bus && (same_slot || on_link) && !a.virtual_function && !b.virtual_function
    }

    fn isolates(&self, index: usize) -> bool {
        let function = &self.0[index];
        if let Some(bits) = function.quirks.acs {
            return bits.bits() & 0b1_1101 == 0b1_1101;
        }
        let on = function.acs.is_some_and(|acs| {
            let (can, does) = (acs.capability.bits(), acs.control.bits());
            [0, 2, 3, 4].into_iter().all(|bit| can >> bit & 1 <= does >> bit & 1)
        });
        let alone = function.virtual_function
            || !(0..self.0.len()).any(|other| {
                let is_other = other != index || function.multifunction;
                is_other && (other == index || self.is_one_device(index, other))
            });
        match function.kind {
            Kind::RootPort | Kind::DownstreamPort => on,
            Kind::Endpoint | Kind::LegacyEndpoint => alone || on,
            Kind::RcIntegratedEndpoint | Kind::UpstreamPort => alone || on,
            _ => false,
        }
    }

    /// Names on its requests, and the functions that those names are made by.
    fn names(&self, index: usize) -> (BTreeSet<RequesterId>, Vec<usize>) {
        let start = self.0[index].quirks.dma_function.map_or(index, |id| self.find(id));
        let own = self.0[start].id;
        let mut names = BTreeSet::from([own]);
        let mut makers = std::vec![start];
        for devfn in 0..=255 {
            if self.0[start].quirks.alias_devfns.contains(devfn) {
                names.insert(RequesterId { devfn, ..own });
            }
        }
        let mut at = start;
        while let Some(bridge) = self.parent(at) {
            at = bridge;
            let function = &self.0[bridge];
            if function.quirks.translation_root {
                break;
            }
            let below = RequesterId { bus: function.secondary.unwrap(), devfn: 0, ..function.id };
            let name = match (function.kind, function.quirks.alias_is_secondary) {
                (Kind::PcieToPciBridge, _) | (Kind::ConventionalBridge, true) => below,
                (Kind::ConventionalBridge, false) | (Kind::PciToPcieBridge, _) => function.id,
                _ => continue,
            };
            names.insert(name);
            makers.push(bridge);
        }
        (names, makers)
    }

    /// Whether a request from `from` may arrive at `to` before an IOMMU has seen it. It climbs to
    /// the root bus, and may turn at each bridge that doesn't hold it.
    fn reaches(&self, from: usize, to: usize) -> bool {
        let mut sender = from;
        while let Some(bridge) = self.parent(sender) {
            let in_switch = self.0[bridge].kind == Kind::UpstreamPort;
            let redirects = self.0[sender].kind == Kind::DownstreamPort && self.isolates(sender);
            let turns = !self.isolates(bridge) || (in_switch && !redirects);
            if turns && (to == bridge || self.is_below(to, bridge)) {
                return true;
            }
            sender = bridge;
        }
        self.is_one_device(from, to) && !self.isolates(from) && !self.isolates(to)
    }

    fn is_alike(&self, a: usize, b: usize) -> bool {
        let (names, makers) = self.names(a);
        let sends_as = &self.0[a].quirks.alias_devfns;
        let [one, other] = [self.0[a].id, self.0[b].id];
        let quirk =
            one.segment == other.segment && one.bus == other.bus && sends_as.contains(other.devfn);
        quirk || makers.contains(&b) || !names.is_disjoint(&self.names(b).0)
    }

    /// For each function a label; equal labels share. Labels spread until nothing changes.
    fn labels(&self) -> Vec<usize> {
        let count = self.0.len();
        let mut labels: Vec<usize> = (0..count).collect();
        let mut related = Vec::new();
        for a in 0..count {
            for b in 0..count {
                if self.is_alike(a, b) || self.reaches(a, b) {
                    related.push((a, b));
                }
            }
        }
        loop {
            let before = labels.clone();
            for &(a, b) in &related {
                let lower = labels[a].min(labels[b]);
                (labels[a], labels[b]) = (lower, lower);
            }
            if labels == before {
                return labels;
            }
        }
    }
}

/// One function to be, as dice.
type Dice = (u8, u8, u8, (u8, u8), u8, u8);

/// Grows a tree: each function goes to a bus that is there already.
fn grow(dice: &[Dice]) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    for &(place, kind, devfn, (capability, control), quirk, flags) in dice {
        let bridges = functions.iter().filter(|f| f.kind.is_bridge());
        let parents: Vec<Option<Function>> =
            [None].into_iter().chain(bridges.map(|f| Some(*f))).collect();
        let parent = parents[usize::from(place) % parents.len()];
        let kind = KINDS[usize::from(kind) % KINDS.len()];
        // Switches as they are, most of the time; otherwise anything anywhere.
        let kind = match parent.map(|parent| parent.kind) {
            Some(Kind::UpstreamPort) if flags & 0x30 != 0 => Kind::DownstreamPort,
            _ => kind,
        };
        let virtual_function = !kind.is_bridge() && flags & 0x0c == 0x0c;
        let parent_bus = parent.map_or(0, |parent| parent.secondary.unwrap());
        // A quarter of the virtual functions overflow; no bridge gets a bus from 200 up.
        let bus = if virtual_function && parent.is_some() && flags & 3 == 3 {
            parent_bus.saturating_add(200)
        } else {
            parent_bus
        };
        let id = RequesterId { segment: 0, bus, devfn: devfn & 0x1b };
        if functions.iter().any(|function| function.id == id) {
            continue;
        }
        let mut quirks = Quirks::NONE;
        match quirk {
            0 => quirks.acs = Some(AcsBits::REQ),
            1 => quirks.acs = Some(NONE),
            2 => quirks.alias_devfns = DevfnSet::EMPTY.with(control & 0x1b),
            3 => quirks.alias_devfns = DevfnSet::EMPTY.with(1).with(0xf8),
            4 => quirks.alias_is_secondary = true,
            5 => quirks.translation_root = true,
            6 => {
                let count = functions.len().max(1);
                let other = functions.get(usize::from(control) % count);
                quirks.dma_function = other.map(|other| other.id);
            }
            _ => {}
        }
        let control = if flags & 0xc0 != 0 { !0 } else { control.into() };
        let capability = AcsBits::from_bits_truncate(capability.into());
        let acs = Some(Acs { capability, control: AcsBits::from_bits_truncate(control) });
        functions.push(Function {
            id,
            kind,
            parent: parent.map(|parent| parent.id),
            secondary: kind.is_bridge().then_some(functions.len() as u8 + 1),
            multifunction: flags & 0x13 == 0x13,
            virtual_function,
            acs: acs.filter(|_| flags & 0x0c != 0),
            untrusted: false,
            quirks,
        });
    }
    functions
}

fn tree() -> impl Strategy<Value = Vec<Function>> {
    let dice = (any::<u8>(), any::<u8>(), any::<u8>(), any::<(u8, u8)>(), 0..40u8, any::<u8>());
    proptest::collection::vec(dice, 1..24).prop_map(|dice| grow(&dice))
}

fn any_function() -> impl Strategy<Value = Function> {
    let id = || {
        (0..2u16, 0..4u8, 0..4u8).prop_map(|(segment, bus, devfn)| RequesterId {
            segment,
            bus,
            devfn,
        })
    };
    let parent = proptest::option::of(id());
    let secondary = proptest::option::of(0..5u8);
    let quirks = (proptest::option::of(id()), any::<[bool; 4]>());
    (id(), 0..KINDS.len(), parent, secondary, quirks).prop_map(
        |(id, kind, parent, secondary, (dma, [vf, multifunction, aliases, root]))| Function {
            parent,
            secondary,
            multifunction,
            virtual_function: vf,
            quirks: Quirks {
                dma_function: dma.filter(|_| aliases),
                alias_devfns: if aliases { DevfnSet::EMPTY.with(2) } else { DevfnSet::EMPTY },
                alias_is_secondary: root,
                translation_root: root,
                acs: None,
            },
            ..Function::new(id, KINDS[kind])
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 2000,
        ..ProptestConfig::default()
    })]

    /// Rules C-061 and C-065: as the reference says, no function apart that should share, and
    /// none sharing without a reason.
    #[test]
    fn groups_are_those_of_the_reference(functions in tree()) {
        let groups = groups(&functions);
        let labels = Reference(&functions).labels();
        for (a, one) in functions.iter().enumerate() {
            for (b, other) in functions.iter().enumerate() {
                let (found, needed) = (groups.is_shared(one.id, other.id), labels[a] == labels[b]);
                prop_assert!(found || !needed, "apart: {} {} {functions:#?}", one.id, other.id);
                prop_assert!(!found || needed, "shared: {} {} {functions:#?}", one.id, other.id);
            }
        }
    }

    /// Rule C-061.
    #[test]
    fn the_order_of_the_description_never_matters(
        (functions, shuffled) in tree().prop_flat_map(|functions| {
            (Just(functions.clone()), Just(functions).prop_shuffle())
        })
    ) {
        prop_assert_eq!(groups(&functions), groups(&shuffled));
    }

    /// Whatever is described: an error, or a partition.
    #[test]
    fn no_description_panics(functions in proptest::collection::vec(any_function(), 0..8)) {
        if let Ok(topology) = Tree::new(&functions) {
            let groups = Groups::compute(&topology);
            prop_assert_eq!(groups.iter().count(), functions.len());
            for (member, name) in groups.iter() {
                prop_assert!(name <= member && groups.group_of(name) == Some(name));
            }
        }
    }
}
