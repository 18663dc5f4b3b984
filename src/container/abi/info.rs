//! The answer to GET_INFO: an [`Info`] as fixed part and capability chain (rules T1-520 to T1-529).
//!
//! ```text
//! 0      16 20 24              56        72
//! | head |co|  | MIGRATION     | DMA_AVAIL | IOVA_RANGE, 16 bytes per range ...
//! ```

use super::command::GetInfo;
use super::errno::Errno;
use super::layout::{
    CAP_DMA_AVAIL, CAP_IOVA_RANGE, CAP_MIGRATION, CAP_VERSION, CapDmaAvail, CapHead, CapIovaRange,
    CapMigration, INFO_CAPS, INFO_PGSIZES, InfoHead, InfoStruct, RangeStruct, size,
};
use super::user::{UserMemory, place, store};
use crate::container::Info;

use zerocopy::IntoBytes;

const MIGRATION_AT: u32 = size::<InfoStruct>();
const DMA_AVAIL_AT: u32 = MIGRATION_AT + size::<CapMigration>();
const IOVA_RANGE_AT: u32 = DMA_AVAIL_AT + size::<CapDmaAvail>();
const RANGES_AT: u32 = IOVA_RANGE_AT + size::<CapIovaRange>();

/// How many ranges go to user memory at a time.
const RANGES: usize = 16;

impl Info {
    /// The `argsz` that the whole answer to GET_INFO needs (Linux ABI), in bytes: 72, or 88 and 16 per
    /// range.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: with so many ranges that the number doesn't fit (rule T1-529).
    pub fn needed(&self) -> Result<u32, Errno> {
        if self.windows.is_empty() {
            return Ok(IOVA_RANGE_AT);
        }
        let count = u32::try_from(self.windows.len()).map_err(|_| Errno::NOMEM)?;
        let ranges = count.checked_mul(size::<RangeStruct>()).ok_or(Errno::NOMEM)?;
        RANGES_AT.checked_add(ranges).ok_or(Errno::NOMEM)
    }

    /// Writes the answer to GET_INFO where the request wants it (Linux ABI), and nothing beyond its
    /// `argsz`.
    ///
    /// If that is less than needed, `argsz` of the user's structure becomes what is needed and no
    /// capability is written (rule T1-525). The answer is written from its end to its start.
    ///
    /// # Errors
    ///
    /// `ENOMEM` as [`needed`](Self::needed): nothing was written. `EFAULT`: there is less memory than
    /// `argsz` says, and nothing was written; if it has a hole in the middle, capabilities behind
    /// the hole may have been.
    pub fn write(&self, user: &(impl UserMemory + ?Sized), to: GetInfo) -> Result<(), Errno> {
        let needed = self.needed()?;
        let (argsz, cap_offset) =
            if to.argsz < needed { (needed, 0) } else { (to.argsz, MIGRATION_AT) };
        if cap_offset != 0 {
            self.write_chain(user, to.address)?;
        }
        let head =
            InfoHead { argsz, flags: INFO_PGSIZES | INFO_CAPS, iova_pgsizes: self.page_sizes };
        let fixed = InfoStruct { head, cap_offset, pad: 0 };
        let len = size::<InfoStruct>().min(to.argsz) as usize;
        let bytes = fixed.as_bytes().get(..len).ok_or(Errno::INVAL)?;
        Ok(user.write(to.address, bytes)?)
    }

    /// From the end to the start: memory that ends too early is noticed before a byte is written.
    fn write_chain(&self, user: &(impl UserMemory + ?Sized), address: u64) -> Result<(), Errno> {
        let mut next = 0;
        if !self.windows.is_empty() {
            next = IOVA_RANGE_AT;
            for (index, windows) in self.windows.chunks(RANGES).enumerate().rev() {
                let mut piece = [RangeStruct { start: 0, end: 0 }; RANGES];
                for (to, window) in piece.iter_mut().zip(windows) {
                    *to = RangeStruct { start: window.first().0, end: window.last().0 };
                }
                let offset = u64::from(RANGES_AT) + (index * size_of_val(&piece)) as u64;
                let bytes = piece.as_bytes().get(..size_of::<RangeStruct>() * windows.len());
                user.write(place(address, offset)?, bytes.ok_or(Errno::INVAL)?)?;
            }
            let nr_iovas = u32::try_from(self.windows.len()).map_err(|_| Errno::NOMEM)?;
            let ranges = CapIovaRange { head: head(CAP_IOVA_RANGE, 0), nr_iovas, reserved: 0 };
            store(user, address, IOVA_RANGE_AT.into(), &ranges)?;
        }
        let avail =
            CapDmaAvail { head: head(CAP_DMA_AVAIL, next), avail: self.free_mappings, pad: 0 };
        store(user, address, DMA_AVAIL_AT.into(), &avail)?;
        let migration = CapMigration {
            head: head(CAP_MIGRATION, DMA_AVAIL_AT),
            flags: 0,
            pad: 0,
            pgsize_bitmap: self.migration.page_size,
            max_dirty_bitmap_size: self.migration.max_bitmap,
        };
        store(user, address, MIGRATION_AT.into(), &migration)
    }
}

fn head(id: u16, next: u32) -> CapHead {
    CapHead { id, version: CAP_VERSION, next }
}
