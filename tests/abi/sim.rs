//! A container with groups on software units: what GET_INFO tells then.

use iommu::container::abi::{Errno, backend_ioctl, request};
use iommu::container::{Container, IdentityMemory, Options};
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::group::{Group, OwnerId, Ownership};
use iommu::pool::Pool;
use iommu::registry::{DeviceInfo, Registry};
use iommu::sim::Sim;

use crate::memory::{BASE, User};

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
