//! Failure sweeps: each allocation of a node, each allocation of pages and each request of a call
//! fails once, in turn. After each failure nothing has changed, and the retry succeeds.

use iommu::addr::PhysAddr;
use iommu::dma::{Direction, DmaDevice, DmaOptions};
use iommu::driver::Health;
use iommu::error::DmaError;
use iommu::fault::Access;
use iommu::sim::Refusal;

use crate::fixture::{Dma, ME, PAGE, World, aligned};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Fail {
    Nodes,
    Pages,
    Requests,
}

/// Runs `call` in fresh worlds, failing at each point in turn; how many points there were of each
/// kind.
fn sweep<T, E: std::fmt::Debug>(call: impl Fn(&Dma) -> Result<T, E>) -> [u64; 3] {
    [Fail::Nodes, Fail::Pages, Fail::Requests].map(|kind| {
        for nth in 0.. {
            let world = World::new();
            let dma = world.fresh(&DmaOptions::default());
            let before = (world.usage(), dma.mapping_count());
            match kind {
                // The undo must not allocate: everything after the first failure is refused too.
                Fail::Nodes => world.pool.refuse_nth(nth, true),
                Fail::Pages => world.machine.refuse_nth(nth),
                Fail::Requests => world.sim.refuse(nth, Refusal::ONCE),
            }
            let result = call(&dma);
            let met =
                world.pool.refuse_none() + world.machine.refuse_none() + world.sim.refuse_none();
            if met == 0 {
                drop(result.expect("no failure was met"));
                return nth;
            }
            result.map(drop).expect_err("a failure was met");
            let (usage, count) = (world.usage(), dma.mapping_count());
            // Pages of one granule may be kept for the next map.
            assert_eq!(
                (usage.0, usage.2, count),
                (before.0.0, before.0.2, before.1),
                "{kind:?} {nth}"
            );
            assert_eq!(world.instance.health(), Health::Good);
            let again = call(&dma).expect("the retry succeeds");
            drop(again);
            drop(dma);
            assert_eq!(world.machine.pages(), 0, "{kind:?} {nth}");
        }
        unreachable!()
    })
}

fn scattered() -> &'static mut [u8] {
    &mut aligned(6 * PAGE)[0x10..5 * PAGE + 0x20]
}

#[test]
fn mapping_a_buffer() {
    let points = sweep(|dma| dma.map(aligned(2 * PAGE), Direction::ToDevice));
    assert_eq!(points, [2, 0, 1], "an address, and an entry in the record");
    let points = sweep(|dma| dma.map(scattered(), Direction::Bidirectional));
    assert_eq!(points, [2, 2, 3]);
    let points = sweep(|dma| dma.map(&mut aligned(PAGE)[1..9], Direction::FromDevice));
    assert_eq!(points, [2, 1, 1]);
}

#[test]
fn mapping_a_list() {
    let points = sweep(|dma| {
        let buffers = [aligned(PAGE), scattered(), &mut aligned(PAGE)[1..9]];
        dma.map_list(buffers, Direction::Bidirectional)
    });
    assert!(points[0] >= 3 && points[1] == 3 && points[2] >= 3, "{points:?}");
    let points = sweep(|dma| {
        let buffers: [_; 40] = core::array::from_fn(|_| &mut aligned(2 * PAGE)[..PAGE]);
        dma.map_list(buffers, Direction::ToDevice).map_err(|refused| refused.error)
    });
    assert!(points[0] > 4 && points[2] == 40, "{points:?}");
}

#[test]
fn taking_coherent_memory_and_resources() {
    assert_eq!(sweep(|dma| dma.alloc_coherent(3 * PAGE)), [2, 1, 1]);
    let phys = PhysAddr(0xfe00_0000);
    assert_eq!(sweep(|dma| dma.map_resource(phys, 0x1000, Direction::ToDevice)), [2, 0, 1]);
}

#[test]
fn lending_a_buffer_for_a_call() {
    let world = World::new();
    let dma = world.plain();
    let mut buffer = [7_u8; 100];
    for nth in 0..2 {
        world.sim.refuse(nth, Refusal::ONCE);
        let mut ran = false;
        let lent = dma.with_mapped(&mut buffer, Direction::ToDevice, |_| ran = true);
        assert_eq!((lent, world.sim.refuse_none()), (Err(DmaError::Io), 1));
        assert_eq!(ran, nth == 1, "the map was refused, or the unmap");
        let health = if ran { Health::Poisoned } else { Health::Good };
        assert_eq!((world.instance.health(), dma.mapping_count()), (health, usize::from(ran)));
    }
}

#[test]
fn making_a_handle() {
    for kind in [Fail::Nodes, Fail::Requests] {
        let mut met = 0;
        for nth in 0.. {
            let world = World::new();
            let group = world.join(ME, None);
            let before = world.usage();
            match kind {
                Fail::Nodes => world.pool.refuse_nth(nth, true),
                _ => world.sim.refuse(nth, Refusal::ONCE),
            }
            let made = DmaDevice::new(&group, world.machine, &DmaOptions::default());
            if world.pool.refuse_none() + world.sim.refuse_none() == 0 {
                let dma = made.expect("no failure was met");
                drop(dma);
                assert_eq!(world.usage(), before, "nothing is left");
                break;
            }
            met += 1;
            made.map(drop).expect_err("a failure was met");
            assert_eq!((group.kernel_users(), world.usage()), (0, before), "{kind:?} {nth}");
            DmaDevice::new(&group, world.machine, &DmaOptions::default()).expect("the retry");
        }
        assert!(met > 0, "{kind:?}");
    }
}

#[test]
fn reserving_addresses() {
    let points = sweep(|dma| {
        dma.reserve(crate::fixture::range(0x10_0000, 0x1f_ffff))?;
        // What is reserved stays, so the usage is compared by the caller only on failure.
        Ok::<_, DmaError>(())
    });
    assert_eq!(points[1..], [0, 0]);
    assert_eq!(points[0], 1);
}

#[test]
fn unmapping_asks_for_no_node_and_no_page() {
    let world = World::new();
    let dma = world.plain();
    let mapped = dma.map(scattered(), Direction::Bidirectional).unwrap();
    let iova = mapped.iova();
    world.pool.refuse_nth(0, true);
    world.machine.refuse_nth(0);
    mapped.unmap().unwrap();
    assert_eq!((world.pool.refuse_none(), world.machine.refuse_none()), (0, 0));
    assert!(!world.reaches(iova.0, Access::READ));
}
