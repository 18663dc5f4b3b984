//! DMA for the kernel's own drivers: rings, buffers, lists, deferred unmaps.

use core::hint::black_box;

use iommu::addr::PhysAddr;
use iommu::dma::{Direction, DmaDevice, DmaOptions};
use iommu::group::Group;
use iommu::pool::Shared;

use crate::api::{PLATFORM, get};
use crate::host::tell;

/// What a driver does.
pub fn work(group: &Shared<Group>) -> Option<()> {
    let dma = get(DmaDevice::new(group, &PLATFORM, black_box(&DmaOptions::default())))?;
    if let Some(mut ring) = get(dma.alloc_coherent(black_box(0x1000))) {
        get(ring.write(0, black_box(&[1; 16])));
        get(ring.read(0, &mut [0; 16]));
    }
    static BUFFER: [u8; 64] = [0; 64];
    let buffer: &'static [u8] = black_box(&BUFFER);
    if let Ok(mut mapping) = dma.map(buffer, Direction::ToDevice) {
        get(mapping.read(0, &mut [0; 16]));
        get(mapping.sync_for_device());
        let _ = mapping.unmap().map_err(|error| tell(&error));
    }
    let waiting = dma.map(buffer, Direction::ToDevice).ok().and_then(|one| get(one.defer()));
    let _ = waiting.map(|one| get(one.flush()));
    if let Ok(list) = dma.map_list([buffer; 2], Direction::ToDevice) {
        list.segments().for_each(|segment| tell(&segment.len));
        let _ = list.unmap().map_err(|error| tell(&error));
    }
    let mut lent = [0; 64];
    get(dma.with_mapped(&mut lent, Direction::FromDevice, |iova| tell(&iova.0)));
    let _ = get(dma.map_resource(PhysAddr(black_box(0x1000)), 0x1000, Direction::Bidirectional));
    Some(())
}
