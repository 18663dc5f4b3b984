//! A type1 container for a user's memory: every call, and the ioctls.

use core::hint::black_box;

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::container::abi::{Errno, UserFault, UserMemory, backend_ioctl};
use iommu::container::{
    Container, DirtyRange, EmulatedId, MapDma, Member, Memory, MemoryOwner, Options, PinError,
    PinHolder, Pinned, UnmapDma, UpdateVaddr,
};
use iommu::group::{Group, OwnerId};
use iommu::pool::Shared;
use iommu::prot::Prot;

use crate::api::{POOL, get};
use crate::host::tell;

struct Provider;

impl Memory for Provider {
    fn page_size(&self) -> u64 {
        0x1000
    }

    fn pin(&self, _: MemoryOwner, vaddr: u64, pages: u64, _: Prot) -> Result<Pinned, PinError> {
        black_box(Ok(Pinned { phys: PhysAddr(vaddr), pages }))
    }

    fn unpin(&self, run: Pinned, _: Prot) {
        black_box(run);
    }
}

struct Holder;

impl PinHolder for Holder {
    fn dma_unmap(&self, range: IovaRange) {
        black_box(range);
    }
}

struct Program;

impl UserMemory for Program {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), UserFault> {
        black_box((address, into));
        black_box(Err(UserFault))
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), UserFault> {
        black_box((address, from));
        black_box(Err(UserFault))
    }

    fn is_user_range(&self, address: u64, len: u64) -> bool {
        black_box(address < len)
    }
}

/// What a kernel does that hands devices to users.
pub fn work(group: &Shared<Group>) -> Option<()> {
    let container = Container::new(&POOL, Provider, Options::default());
    let owned = get(Group::claim(group, OwnerId(black_box(2))))?;
    let _ = container.attach_group(owned).map_err(|refused| tell(&refused.error));
    let [iova, vaddr, size] = black_box([0x10_0000, 0x20_0000, 0x1000]);
    get(container.map_dma(&MapDma { iova, vaddr, size, prot: Prot::RW }));
    black_box(container.iova_to_phys(Iova(iova)));

    let emulated = EmulatedId(black_box(1));
    get(container.attach_emulated(emulated));
    let holder = get(container.register_device(Holder));
    get(container.pin_pages(Member::Emulated(emulated), iova, Prot::RW, &mut [None; 2]));
    black_box(container.unpin_pages(iova, 2));
    let mut bytes = [0; 16];
    get(container.dma_read(iova, &mut bytes));
    get(container.dma_write(iova, &bytes));
    get(container.start_dirty_tracking());
    let range = DirtyRange { iova, size, page_size: 0x1000 };
    let mut bitmap = [0_u64; 4];
    get(container.read_dirty(&range, &mut bitmap[..]));
    get(container.stop_dirty_tracking());
    get(container.update_vaddr(&UpdateVaddr { iova, vaddr, size }));
    let call = |request, argument| backend_ioctl(&container, &Program, request, argument);
    let told = black_box(call(black_box(1), black_box(2)).map_err(|Errno(number)| number));
    tell(&told.is_ok());
    if let Some(holder) = holder {
        container.unregister_device(holder);
    }
    container.detach_emulated(emulated);
    let _ = container.unmap_dma(&UnmapDma::Range { iova, size }).map_err(|f| tell(&f.error));
    let _ = container.unmap_dma(&UnmapDma::All).map_err(|failed| tell(&failed.error));
    drop(container.detach_group(group.id()));
    Some(())
}
