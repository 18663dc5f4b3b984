//! Where the library's nodes come from while it is measured, or has much to carry: a free list per size, as a kernel's slab
//! has, so that a node costs the same whatever was allocated before.
//!
//! Sizes are rounded up to 16 bytes, above 1 KiB to a power of two. Memory that was handed out once
//! stays with its size.
#![expect(unsafe_code, reason = "hands out raw memory and links what came back")]

use core::alloc::Layout;
use core::ptr::NonNull;

use iommu::pool::{Pool, PoolSource};
use spin::Mutex;

use crate::machine::Machine;
use crate::world::NoWorld;

/// The library's nodes.
pub static POOL: Pool = Pool::new(&SLAB);

static SLAB: Slab = Slab(Mutex::new(Lists { free: [0; CLASSES], next: 0, end: 0 }));

/// What every block is aligned to.
const ALIGN: usize = 16;
/// The largest size that has a class of its own.
const SMALL: usize = 1024;
const SMALL_CLASSES: usize = SMALL / ALIGN + 1;
/// One more per power of two.
const CLASSES: usize = SMALL_CLASSES + usize::BITS as usize;

struct Slab(Mutex<Lists>);

struct Lists {
    /// The first free block of each class, which begins with the address of the next; 0 ends it.
    free: [usize; CLASSES],
    /// What was never handed out.
    next: usize,
    end: usize,
}

/// How much memory the slab wants: a million mappings with room to spare.
const WANTED: usize = 512 << 20;

/// Gives the slab the memory of the machine that nothing else uses.
///
/// # Errors
///
/// [`NoWorld::Memory`] when there is too little, or when it was given away before.
pub fn give(machine: &Machine) -> Result<(), NoWorld> {
    let start = machine.take_free(WANTED).ok_or(NoWorld::Memory)?;
    let mut lists = SLAB.0.lock();
    lists.next = start.next_multiple_of(ALIGN);
    lists.end = start + WANTED;
    Ok(())
}

/// The class of a size, and how many bytes its blocks have.
fn class(size: usize) -> (usize, usize) {
    if size <= SMALL {
        let units = size.div_ceil(ALIGN);
        return (units, units * ALIGN);
    }
    let size = size.next_power_of_two();
    (SMALL_CLASSES + size.trailing_zeros() as usize, size)
}

// SAFETY: a block comes from the memory of `give`, which is mapped and nobody else's, and is taken from its list or from the end, so
// nothing else has it; it has the size of its class, which the same layout leads to at `release`.
unsafe impl PoolSource for Slab {
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        if layout.align() > ALIGN {
            return None;
        }
        let (class, size) = class(layout.size());
        let mut lists = self.0.lock();
        let head = lists.free.get(class).copied()?;
        if head != 0 {
            let block = core::ptr::with_exposed_provenance::<usize>(head);
            // SAFETY: a block on a list is free memory, aligned, and begins with this number.
            *lists.free.get_mut(class)? = unsafe { block.read() };
            return NonNull::new(core::ptr::with_exposed_provenance_mut(head));
        }
        let block = lists.next;
        let next = block.checked_add(size)?;
        if next > lists.end {
            return None;
        }
        lists.next = next;
        NonNull::new(core::ptr::with_exposed_provenance_mut(block))
    }

    unsafe fn release(&self, memory: NonNull<u8>, layout: Layout) {
        let (class, _) = class(layout.size());
        let mut lists = self.0.lock();
        let Some(head) = lists.free.get_mut(class) else { return };
        // SAFETY: the block is unused now, large enough for a number, and aligned for it.
        unsafe { memory.cast::<usize>().write(*head) };
        *head = memory.as_ptr().expose_provenance();
    }
}
