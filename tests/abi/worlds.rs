//! Containers on software units, in the states that requests meet. Two of the same are equal.

use iommu::addr::{Iova, IovaRange};
use iommu::container::*;
use iommu::prot::Prot;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::{Refusal, SimConfig};

use crate::fixture::{PAGE, World};
use crate::route::{AT, GROUP, RESERVED, Request};

/// What the container holds when a request comes.
pub type Setup = fn() -> &'static World;

/// A world for good, so that what is registered in it may call it.
pub fn world(units: usize, kind: Kind, mapping_limit: u32) -> &'static World {
    let mut reserved = ReservedRegions::new();
    let window = IovaRange::from_len(Iova(RESERVED), PAGE).unwrap();
    reserved.add(ReservedRegion { range: window, kind: ReservedKind::Msi }).unwrap();
    let config = SimConfig { reserved, ..SimConfig::default() };
    let options = Options { kind, allow_unsafe_interrupts: true, mapping_limit };
    Box::leak(Box::new(World::open(vec![config; units], options)))
}

/// Two mappings, and room for two more.
pub fn two_mappings(units: usize, kind: Kind) -> &'static World {
    let world = world(units, kind, 4);
    for unit in 0..units {
        world.attached(unit);
    }
    for page in [0, 8] {
        let vaddr = 0x400_0000 + page * PAGE;
        let map = MapDma { iova: AT + page * PAGE, vaddr, size: 4 * PAGE, prot: Prot::RW };
        world.container.map_dma(&map).unwrap();
    }
    world
}

/// Every refusal that a setup has planned ends.
pub fn settle(world: &World) {
    world.pool.refuse_none();
    world.memory.refuse_none();
    world.memory.limit(1 << 40);
    for (sim, _) in &world.units {
        sim.refuse_none();
    }
}

pub fn plain() -> &'static World {
    two_mappings(1, Kind::V2)
}

/// Without groups: what is mapped is on record only.
pub fn bare() -> &'static World {
    world(0, Kind::V2, 4)
}

pub fn first_kind() -> &'static World {
    two_mappings(1, Kind::V1)
}

/// The same, changed by `change`.
pub fn after(world: &'static World, change: impl FnOnce(&'static World)) -> &'static World {
    change(world);
    world
}

pub fn full() -> &'static World {
    after(plain(), |world| {
        for page in [100, 101] {
            Request::map(page, 1).call(world);
        }
        assert_eq!(world.container.free_mappings(), 0);
    })
}

pub fn tracked() -> &'static World {
    after(plain(), |world| world.container.start_dirty_tracking().unwrap())
}

/// The first mapping waits for a new address.
pub fn void() -> &'static World {
    after(plain(), |world| assert_eq!(Request::invalidate(0, 4).call(world), Some(0)))
}

pub fn emulated() -> &'static World {
    after(plain(), |world| world.container.attach_emulated(GROUP).unwrap())
}

struct Calls<F>(F);

impl<F: Fn(IovaRange) + Send + Sync> PinHolder for Calls<F> {
    fn dma_unmap(&self, range: IovaRange) {
        (self.0)(range);
    }
}

/// A page of the second mapping is held by a device that does not let go.
pub fn held() -> &'static World {
    held_by(|_, _| ())
}

pub fn held_by(told: fn(&'static World, IovaRange)) -> &'static World {
    after(emulated(), |world| {
        let pinned = Calls(move |range| told(world, range));
        world.container.register_device(pinned).unwrap();
        let page = AT + 9 * PAGE;
        world.container.pin_pages(GROUP, page, Prot::RW, &mut [None]).unwrap();
    })
}

/// Its holder is not registered any more.
pub fn held_by_nobody() -> &'static World {
    after(emulated(), |world| {
        let id = world.container.register_device(Calls(|_| ())).unwrap();
        let page = AT + 9 * PAGE;
        world.container.pin_pages(GROUP, page, Prot::RW, &mut [None]).unwrap();
        world.container.unregister_device(id);
    })
}

/// Its holder lets go, and maps something across the end of what is unmapped.
pub fn held_by_a_mapper() -> &'static World {
    held_by(|world, range| {
        world.container.unpin_pages(range.first().0, 4);
        Request::map(11, 2).but(|map| map.iova += 4 * PAGE).call(world);
    })
}

pub fn refusing_unit() -> &'static World {
    after(plain(), |world| world.units[0].0.refuse(0, Refusal::ONCE))
}

pub fn refusing(error: PinError) -> &'static World {
    after(plain(), |world| world.memory.refuse(0, error))
}

pub fn at_the_limit() -> &'static World {
    after(plain(), |world| world.memory.limit(8))
}

pub fn without_memory(world: &'static World) -> &'static World {
    after(world, |world| world.pool.refuse_nth(0, true))
}

/// A mapping that is too large to be tracked.
pub fn huge() -> &'static World {
    after(bare(), |world| assert_eq!(Request::map(0, 1 << 31).call(world), Some(0)))
}

/// Another owner asks, who may lock three pages.
pub fn another_owner() -> &'static World {
    after(void(), |world| {
        world.memory.call_as(9);
        world.memory.limit(3);
    })
}

pub fn tracked_bare() -> &'static World {
    after(bare(), |world| world.container.start_dirty_tracking().unwrap())
}
