//! What things take from the pool by themselves.

use iommu::container::IdentityMemory;
use iommu::domain::PagingDomain;

use super::meter::{Name, tell_bytes};
use super::rig::Rig;
use super::slab::POOL;

/// Tells it.
pub fn measure(rig: &Rig) {
    let bytes = || POOL.usage().bytes;
    // A unit's table of free ids grows to the peak and stays.
    drop(PagingDomain::new(&rig.unit, &POOL));
    let before = bytes();
    let domain = PagingDomain::new(&rig.unit, &POOL);
    tell_bytes(Name::of("heap_domain"), bytes() - before);
    drop(domain);
    let container = rig.container(IdentityMemory);
    tell_bytes(Name::of("heap_container"), bytes() - before);
    rig.attach(&container, 0);
    let first = bytes();
    tell_bytes(Name::of("heap_container_attached"), first - before);
    rig.attach(&container, 1);
    tell_bytes(Name::of("heap_group_more"), bytes() - first);
    drop(container);
    assert_eq!(bytes(), before, "memory was left behind");
}
