//! A container with groups on software units, by ioctl: what GET_INFO tells, and a whole session.

use iommu::container::abi::{Errno, backend_ioctl, request};
use iommu::container::{Container, IdentityMemory, Kind, Options};
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::group::{Group, GroupId, OwnerId, Ownership};
use iommu::pool::Pool;
use iommu::registry::{DeviceInfo, Registry};
use iommu::sim::Sim;

use crate::fixture::PAGE;
use crate::memory::{BASE, Fields, User};
use crate::route::{AT, GROUP, Request};
use crate::worlds::{first_kind, two_mappings, void};

const INFO: u32 = request::IOMMU_GET_INFO;

/// A pool, and a claimed group of one device behind a unit of its own.
fn world() -> (&'static Pool, Registry, Ownership) {
    let pool: &'static Pool = Box::leak(Box::new(Pool::heap()));
    let registry = Registry::new(pool);
    let instance = registry.add_instance(Sim::new().driver()).unwrap();
    let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(1)], with: None };
    let group = registry.add_device(&instance, &info).unwrap();
    let ownership = Group::claim(&group, OwnerId(1)).unwrap();
    (pool, registry, ownership)
}

/// T1-528: the windows as the container has them; T1-529: no memory to collect them is an error
/// that writes nothing.
#[test]
fn info_of_a_container_with_a_group() {
    let (pool, _registry, ownership) = world();
    let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
    let container: Container<_> = Container::new(pool, IdentityMemory, options);
    container.attach_group(ownership).unwrap();
    let mut windows = vec![];
    container.for_each_window(|window| windows.push(window));
    assert!(!windows.is_empty());

    let user = User::new(512);
    user.put(0, &512_u32.to_ne_bytes());
    let before = user.bytes();
    pool.refuse_nth(0, false);
    assert_eq!(backend_ioctl(&container, &user, INFO, BASE), Err(Errno::NOMEM));
    assert_eq!(pool.refuse_none(), 1);
    assert_eq!(user.bytes(), before);

    let usage = pool.usage();
    assert_eq!(backend_ioctl(&container, &user, INFO, BASE), Ok(0));
    assert_eq!(pool.usage(), usage, "the copy is gone");
    let bytes = user.bytes();
    assert_eq!(bytes[8..16], container.page_sizes().to_ne_bytes());
    assert_eq!(bytes[80..84], (windows.len() as u32).to_ne_bytes());
    for (at, window) in (88..).step_by(16).zip(&windows) {
        assert_eq!(bytes[at..at + 8], window.first().0.to_ne_bytes());
        assert_eq!(bytes[at + 8..at + 16], window.last().0.to_ne_bytes());
    }
}

/// A hypervisor migrates: extensions, dirty pages, bits with an unmap, new addresses, the first kind.
/// T1-080 to T1-084, T1-367, T1-368, T1-400, T1-404, T1-433 to T1-439, T1-446, T1-527.
#[test]
fn a_session_by_ioctl() {
    let world = two_mappings(1, Kind::V2);
    let container = &world.container;
    let ask =
        |number| backend_ioctl(container, &User::new(0), request::CHECK_EXTENSION, number).unwrap();
    assert_eq!([1, 3, 4, 6, 9, 10, 2].map(ask), [1, 1, 0, 0, 1, 1, 0]);
    assert_eq!(Request::start().ask(world), 0);
    // Bits of pages 0 to 11 from page 2 before them: the device may have written to all of them.
    let call = |number: u32, flags: u32, size: u64| {
        let user = User::new(80);
        let head = Fields::default().u32(48).u32(flags).u64(AT - 2 * PAGE).u64(size);
        user.put(0, &head.u64(PAGE).u64(16).u64(BASE + 64).0);
        user.put(64, &[0; 16]);
        assert_eq!(backend_ioctl(container, &user, number, BASE), Ok(0));
        let bytes = user.bytes();
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        (word(16), u64::from_le(word(64)), word(72))
    };
    let get = |size| call(request::IOMMU_DIRTY_PAGES, 4, size);
    assert_eq!(get(32 * PAGE), (32 * PAGE, 0b11_1100_0011_1100, 0));
    container.attach_emulated(GROUP).unwrap();
    assert_eq!(ask(10), 0, "T1-082");
    let group = (0..9).find_map(|id| container.detach_group(GroupId(id)));
    assert!(group.is_some());
    assert_eq!(ask(4), 1, "T1-083: no domain");
    assert_eq!(get(32 * PAGE).1, 0b11_1100_0011_1100, "T1-236");
    container.dma_write(AT + 9 * PAGE, &[1]).unwrap();
    assert_eq!(get(32 * PAGE), (32 * PAGE, 1 << 11, 0));
    container.dma_write(AT + PAGE, &[1]).unwrap();
    let gone = call(request::IOMMU_UNMAP_DMA, 1, 7 * PAGE);
    assert_eq!(gone, (4 * PAGE, 1 << 3, 0), "T1-369, T1-446");
    assert_eq!(Request::start().but(|r| r.flags = 2).ask(world), 0);

    let world = void();
    assert_eq!(world.container.invalid_vaddrs(), 1);
    assert_eq!(Request::update(0, 4).ask(world), 0);
    assert_eq!(world.container.invalid_vaddrs(), 0);

    let world = first_kind();
    let unmap = |page: u64, pages: u64| {
        let user =
            User::with(&Fields::default().u32(24).u32(0).u64(AT + page * PAGE).u64(pages * PAGE).0);
        assert_eq!(backend_ioctl(&world.container, &user, request::IOMMU_UNMAP_DMA, BASE), Ok(0));
        u64::from_ne_bytes(user.bytes()[16..24].try_into().unwrap()) / PAGE
    };
    assert_eq!(unmap(1, 20), 0, "T1-367: begins inside");
    assert_eq!(unmap(0, 9), 8, "T1-368: more than was asked for");
}
