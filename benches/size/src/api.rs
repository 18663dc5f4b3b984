//! A driver of a virtio-iommu on PCI (or on MMIO as well), devices, groups, domains, faults.
#![expect(unsafe_code, reason = "registers and pages at some address")]

use core::hint::black_box;
use core::num::NonZeroUsize;
use core::ptr::NonNull;

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::domain::{DomainOptions, PagingDomain};
use iommu::driver::{Driver, EndpointId, Run};
use iommu::drivers::virtio_iommu::{Options, VirtioIommu};
use iommu::fault::{Fault, FaultHandler, Handled};
use iommu::group::{Group, OwnerId};
use iommu::instance::Instance;
use iommu::pci::PciConfig;
use iommu::platform::IdentityPlatform;
use iommu::pool::{Pool, Shared};
use iommu::prot::Prot;
use iommu::registry::{DeviceInfo, Registry};
use iommu::virtio::transport::MmioRegion;
#[cfg(feature = "mmio")]
use iommu::virtio::transport::mmio::MmioTransport;
use iommu::virtio::transport::pci::PciTransport;

use crate::host::tell;

#[cfg(feature = "alloc")]
pub static POOL: Pool = Pool::heap();
#[cfg(not(feature = "alloc"))]
static NODES: iommu::pool::StaticPool<{ 64 << 10 }> = iommu::pool::StaticPool::new();
#[cfg(not(feature = "alloc"))]
pub static POOL: Pool = NODES.pool();

// SAFETY: this program never runs.
pub static PLATFORM: IdentityPlatform = unsafe { IdentityPlatform::new(pages, free, now_ns) };

fn pages(count: NonZeroUsize) -> Option<NonNull<u8>> {
    NonNull::new(black_box(count.get() as *mut u8))
}

fn free(start: NonNull<u8>, count: NonZeroUsize) {
    black_box((start, count));
}

fn now_ns() -> u64 {
    black_box(1)
}

struct Config;

impl PciConfig for Config {
    fn read_u8(&self, offset: u16) -> u8 {
        black_box(offset) as u8
    }

    fn read_u16(&self, offset: u16) -> u16 {
        black_box(offset)
    }

    fn read_u32(&self, offset: u16) -> u32 {
        black_box(offset).into()
    }

    fn write_u16(&self, offset: u16, value: u16) {
        black_box((offset, value));
    }
}

struct Handler;

impl FaultHandler for Handler {
    fn fault(&self, fault: &Fault) -> Handled {
        tell(fault);
        Handled::Yes
    }
}

/// The value, or a person is told why not.
pub fn get<T>(result: Result<T, impl core::fmt::Display>) -> Option<T> {
    result.inspect_err(|error| tell(error)).ok()
}

/// The unit on PCI, and with `mmio` another one.
pub fn all() {
    let registry = Registry::new(&POOL);
    let registers = NonNull::new(black_box(0x2000 as *mut u8));
    // SAFETY: this program never runs.
    let region = registers.map(|base| unsafe { MmioRegion::new(base, black_box(0x1000)) });
    let driver = get(PciTransport::new(&Config, &[region; 6])).and_then(|transport| {
        get(VirtioIommu::new(&PLATFORM, transport, &POOL, Options::default()))
    });
    start(&registry, driver);
    #[cfg(feature = "mmio")]
    {
        let transport = region.and_then(|region| get(MmioTransport::new(region)));
        let driver = transport.and_then(|transport| {
            get(VirtioIommu::new(&PLATFORM, transport, &POOL, Options::default()))
        });
        start(&registry, driver);
    }
}

fn start(registry: &Registry, driver: Option<impl Driver + 'static>) {
    if let Some(unit) = driver.and_then(|driver| get(registry.add_instance(driver))) {
        work(registry, &unit);
        get(registry.remove_instance(&unit));
    }
}

/// What a kernel does with one unit.
#[inline(never)]
fn work(registry: &Registry, unit: &Shared<Instance>) -> Option<()> {
    let id = DeviceId(black_box(8));
    let endpoints = [EndpointId(black_box(8))];
    let info = DeviceInfo { id, endpoints: black_box(&endpoints), with: None };
    let group = get(registry.add_device(unit, &info))?;
    let owner = || get(Group::claim(&group, OwnerId(black_box(1))));
    let options = DomainOptions { fault_handler: Some(&Handler), ..DomainOptions::default() };
    let domain = get(PagingDomain::with_options(unit, &POOL, &options))?;
    let other = get(PagingDomain::new(unit, &POOL))?;
    let range = IovaRange::from_len(Iova(black_box(0x1000)), black_box(0x1000))?;
    let phys = PhysAddr(black_box(0x1000));
    get(domain.map(range, phys, Prot::RW));
    get(domain.map_runs(black_box(&[Run { range, phys, prot: Prot::RW }; 2])));
    black_box(domain.iova_to_phys(range.first()));
    let attached = owner()?.attach(&domain).map_err(|refused| tell(&refused.error));
    if let Ok(mut attached) = attached {
        get(attached.replace(&other));
        get(attached.map_doorbell(phys));
        drop(attached.detach());
    }
    let identity = owner()?.attach_identity().map_err(|refused| tell(&refused.error));
    drop(identity);
    get(domain.unmap(range));
    get(domain.unmap_ranges(black_box(&[range; 2])));
    registry.deliver_faults(unit, |fault| tell(fault));

    #[cfg(feature = "container")]
    crate::user::work(&group);
    #[cfg(feature = "dma")]
    crate::drivers::work(&group);
    get(registry.remove_device(id));
    Some(())
}
