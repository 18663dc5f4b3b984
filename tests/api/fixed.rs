//! A pool over a static buffer: what fits, and what happens when nothing does any more.

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::domain::PagingDomain;
use iommu::driver::EndpointId;
use iommu::drivers::virtio_iommu::{Options, VirtioIommu};
use iommu::error::{DomainError, MapError, OutOfMemory, ProbeError};
use iommu::group::{Group, OwnerId};
use iommu::pool::{Owned, Pool, Shared, StaticPool};
use iommu::prot::Prot;
use iommu::registry::{DeviceInfo, Registry};
use iommu::virtio::transport::fake::{FakeConfig, FakeMachine};

fn page(number: u64) -> IovaRange {
    IovaRange::from_len(Iova(number * 0x2000), 0x1000).unwrap()
}

/// The table in the documentation of `StaticPool`: what each thing takes, with the rounding.
#[test]
fn the_documented_sizes_are_enough() {
    static NODES: StaticPool<{ 1 << 20 }> = StaticPool::new();
    static POOL: Pool = NODES.pool();
    let mut before = 0;
    let mut took = |what: &str, count: usize, documented: usize| {
        let used = NODES.used();
        let each = (used - before).div_ceil(count);
        println!("{what}: {each} bytes");
        assert!(each <= documented, "{what}: {each} bytes, documented are {documented}");
        assert!(each * 3 > documented, "{what}: {each} bytes, the documentation says {documented}");
        before = used;
    };
    let machine = FakeMachine::new(FakeConfig::default());
    let registry = Registry::new(&POOL);
    let options = Options::default();
    let unit = VirtioIommu::new(machine.clone(), machine.transport(), &POOL, options).unwrap();
    let iommu = registry.add_instance(unit).unwrap();
    took("an IOMMU", 1, 8192);
    let ids = (1..=8).map(|number: u32| EndpointId(number * 8));
    let groups: Vec<_> = ids
        .filter_map(|id| {
            let info = DeviceInfo { id: DeviceId(id.0.into()), endpoints: &[id], with: None };
            registry.add_device(&iommu, &info).ok() // the fake unit has a few of them
        })
        .collect();
    assert!(groups.len() >= 2);
    took("a device", groups.len(), 2048);
    let domains: Vec<_> =
        groups.iter().map(|_| PagingDomain::new(&iommu, &POOL).unwrap()).collect();
    took("a domain", groups.len(), 2048);
    for number in 0..4000 {
        domains[0].map(page(number), PhysAddr(0x1000), Prot::RW).unwrap();
    }
    took("a mapping", 4000, 48);
    drop((domains, groups, iommu, registry));
    assert_eq!((NODES.used(), machine.pages()), (0, 0), "all of it is back");
}

#[test]
fn a_full_pool_is_an_ordinary_error_and_what_is_freed_is_used_again() {
    static NODES: StaticPool<{ 32 << 10 }> = StaticPool::new();
    static POOL: Pool = NODES.pool();
    let machine = FakeMachine::new(FakeConfig::default());
    let registry = Registry::new(&POOL);
    let options = Options::default();
    let unit = VirtioIommu::new(machine.clone(), machine.transport(), &POOL, options).unwrap();
    let iommu = registry.add_instance(unit).unwrap();
    let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
    let group = registry.add_device(&iommu, &info).unwrap();
    let domain = PagingDomain::new(&iommu, &POOL).unwrap();
    let attached = Group::claim(&group, OwnerId(1)).unwrap().attach(&domain).unwrap();

    for _ in 0..3 {
        let mapped = (0..).take_while(|number| {
            match domain.map(page(*number), PhysAddr(0x1000), Prot::RW) {
                Ok(()) => true,
                Err(error) => {
                    assert_eq!(error, MapError::OutOfMemory);
                    false
                }
            }
        });
        let mapped = mapped.count() as u64;
        assert!(mapped > 64, "{mapped} mappings fit");
        assert_eq!(domain.mapping_count() as u64, mapped, "the one that did not fit left nothing");
        let all = IovaRange::new(Iova(0), Iova(mapped * 0x2000 - 1)).unwrap();
        assert_eq!(domain.unmap(all), Ok(mapped * 0x1000), "an undo needs no memory");
    }
    let used = NODES.used();
    let mut domains = Vec::new();
    let full = loop {
        match PagingDomain::new(&iommu, &POOL) {
            Ok(domain) => domains.push(domain),
            Err(error) => break error,
        }
    };
    assert_eq!(full, DomainError::OutOfMemory);
    let other = DeviceInfo { id: DeviceId(2), endpoints: &[EndpointId(16)], with: None };
    assert_eq!(registry.add_device(&iommu, &other).err(), Some(ProbeError::OutOfMemory));
    drop(domains);
    assert!(NODES.used() <= used + 4096, "the table of free ids may have grown, nothing else");
    drop((attached, domain, group, iommu, registry));
    assert_eq!((NODES.used(), POOL.usage()), (0, Default::default()));
}

#[test]
fn sizes_that_no_buffer_has_are_refused() {
    static NODES: StaticPool<64> = StaticPool::new();
    static POOL: Pool = NODES.pool();
    #[repr(align(4096))]
    struct Page;
    #[repr(align(128))]
    struct Wide(#[expect(dead_code, reason = "it is the size that counts")] u8);
    assert_eq!(Owned::new(&POOL, [0_u8; 65]).err(), Some(OutOfMemory));
    assert_eq!(
        Owned::new(&POOL, Wide(1)).err(),
        Some(OutOfMemory),
        "aligned to more than the buffer"
    );
    assert!(Owned::new(&POOL, Page).is_ok(), "nothing needs no place");
    let one = Shared::new(&POOL, 7_u64).unwrap();
    let two = Shared::new(&POOL, 8_u64).unwrap();
    assert_eq!((*one, *two, Shared::new(&POOL, 9_u64).err()), (7, 8, Some(OutOfMemory)));
    drop(one);
    assert_eq!(Shared::new(&POOL, 9_u64).map(|nine| *nine), Ok(9));
    drop(two);
    assert_eq!(NODES.used(), 0);
    assert_eq!(format!("{NODES:?}"), "StaticPool(0 of 64 bytes)");
}
