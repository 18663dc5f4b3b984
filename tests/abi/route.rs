//! One request, by the typed call and as a program makes it.

use iommu::container::abi::{Errno, backend_ioctl, request};
use iommu::container::*;
use iommu::prot::Prot;

use crate::fixture::{PAGE, World};
use crate::memory::{BASE, Fields, User};

/// Where things are mapped: pages 0 to 3 and 8 to 11 from here on.
pub const AT: u64 = 0x10_0000;
/// One page that no device may use.
pub const RESERVED: u64 = 0x20_0000;
/// An emulated group.
pub const GROUP: EmulatedId = EmulatedId(7);
/// Where the bitmap lies, from `BASE`.
const BITMAP: u64 = 64;

pub const INFO: u32 = request::IOMMU_GET_INFO;
pub const MAP: u32 = request::IOMMU_MAP_DMA;
pub const UNMAP: u32 = request::IOMMU_UNMAP_DMA;
pub const DIRTY: u32 = request::IOMMU_DIRTY_PAGES;

/// Everything that a program can get wrong.
#[derive(Clone, Debug)]
pub struct Request {
    pub number: u32,
    pub argsz: u32,
    pub flags: u32,
    pub vaddr: u64,
    pub iova: u64,
    pub size: u64,
    pub pgsize: u64,
    /// What the program says that its bitmap has.
    pub bytes: u64,
    /// Where it says that it lies.
    pub data: u64,
    /// How many bytes of the bitmap are there.
    pub bitmap_there: u64,
    /// How many bytes of the structure are there.
    pub there: usize,
    /// What the host's addresses hold.
    pub native_max: u64,
}

impl Request {
    /// A good request; `iova` and `size` in pages from `AT`.
    fn new(number: u32, argsz: u32, flags: u32, page: u64, pages: u64) -> Self {
        Self {
            number,
            argsz,
            flags,
            vaddr: 0x800_0000,
            iova: AT + page * PAGE,
            size: pages * PAGE,
            pgsize: PAGE,
            bytes: pages.div_ceil(64) * 8,
            data: BASE + BITMAP,
            bitmap_there: 64,
            there: 48,
            native_max: u64::MAX,
        }
    }

    pub fn info() -> Self {
        Self::new(INFO, 24, 0, 0, 0)
    }

    pub fn map(page: u64, pages: u64) -> Self {
        Self::new(MAP, 32, 3, page, pages)
    }

    pub fn update(page: u64, pages: u64) -> Self {
        Self::new(MAP, 32, 4, page, pages)
    }

    pub fn unmap(page: u64, pages: u64) -> Self {
        Self::new(UNMAP, 24, 0, page, pages)
    }

    pub fn unmap_dirty(page: u64, pages: u64) -> Self {
        Self::new(UNMAP, 48, 1, page, pages)
    }

    pub fn invalidate(page: u64, pages: u64) -> Self {
        Self::new(UNMAP, 24, 4, page, pages)
    }

    pub fn start() -> Self {
        Self::new(DIRTY, 8, 1, 0, 0)
    }

    pub fn get(page: u64, pages: u64) -> Self {
        Self::new(DIRTY, 48, 4, page, pages)
    }

    /// The same with other values.
    pub fn but(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The structure, byte by byte as section 14 has it.
    fn fields(&self) -> Fields {
        let head = Fields::default().u32(self.argsz).u32(self.flags);
        match self.number {
            MAP => head.u64(self.vaddr).u64(self.iova).u64(self.size),
            INFO => head.u64(0).u64(0),
            _ => {
                let range = head.u64(self.iova).u64(self.size);
                range.u64(self.pgsize).u64(self.bytes).u64(self.data)
            }
        }
    }

    /// As a program asks; a request that is refused has written nothing.
    pub fn ask(&self, world: &World) -> i32 {
        let fields = self.fields();
        let whole = self.there >= fields.0.len();
        let len = if whole { (BITMAP + self.bitmap_there) as usize } else { self.there };
        let user = User::new(len);
        user.put(0, &fields.0[..self.there.min(fields.0.len())]);
        user.native_max.set(self.native_max);
        let before = user.bytes();
        let answer = backend_ioctl(&world.container, &user, self.number, BASE);
        if answer.is_err() {
            assert_eq!(user.bytes(), before, "{self:x?}");
        }
        answer.map_or_else(Errno::errno, |_| 0)
    }

    /// By the typed call; `None` if its types can't say this.
    pub fn call(&self, world: &World) -> Option<i32> {
        let Self { flags, vaddr, iova, size, pgsize, bytes, .. } = *self;
        let needed = match (self.number, flags) {
            (MAP, _) => (32, 32),
            (INFO, _) => (16, 16),
            (UNMAP, 1) | (DIRTY, 4) => (48, 48),
            (UNMAP, _) => (24, 24),
            _ => (8, 8),
        };
        let of_program = self.argsz < needed.0
            || self.there < needed.1
            || self.native_max != u64::MAX
            || self.data != BASE + BITMAP;
        if of_program {
            return None;
        }
        let container = &world.container;
        let range = DirtyRange { iova, size, page_size: pgsize };
        let mut bitmap = Words { bytes, there: self.bitmap_there };
        let which = match flags & 2 == 0 {
            true => UnmapDma::Range { iova, size },
            false if (iova, size) == (0, 0) => UnmapDma::All,
            false if self.number == UNMAP => return None,
            false => UnmapDma::All,
        };
        let unmap = |failed: UnmapFailed| failed.errno();
        Some(
            match (self.number, flags) {
                (INFO, _) => container.info().map(drop).map_err(|error| error.errno()),
                (MAP, 0..4) => {
                    let prot = [Prot::empty(), Prot::READ, Prot::WRITE, Prot::RW][flags as usize];
                    let map = MapDma { iova, vaddr, size, prot };
                    container.map_dma(&map).map_err(MapDmaError::errno)
                }
                (MAP, 4) => {
                    let update = UpdateVaddr { iova, vaddr, size };
                    container.update_vaddr(&update).map_err(UpdateVaddrError::errno)
                }
                (UNMAP, 0 | 2) => container.unmap_dma(&which).map(drop).map_err(unmap),
                (UNMAP, 4 | 6) => container.invalidate_vaddr(&which).map(drop).map_err(unmap),
                (UNMAP, 1) => {
                    container.unmap_dma_dirty(&range, &mut bitmap).map(drop).map_err(unmap)
                }
                (DIRTY, 1) => container.start_dirty_tracking().map_err(DirtyError::errno),
                (DIRTY, 2) => container.stop_dirty_tracking().map_err(DirtyError::errno),
                (DIRTY, 4) => container.read_dirty(&range, &mut bitmap).map_err(DirtyError::errno),
                _ => return None,
            }
            .err()
            .unwrap_or(0),
        )
    }
}

/// A bitmap that is there in part; what is in it doesn't matter.
struct Words {
    bytes: u64,
    there: u64,
}

impl DirtyBitmap for Words {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn load(&mut self, index: u64) -> Result<u64, BitmapFault> {
        self.store(index, &[0]).map(|()| 0)
    }

    fn store(&mut self, index: u64, words: &[u64]) -> Result<(), BitmapFault> {
        if (index + words.len() as u64) * 8 > self.there { Err(BitmapFault) } else { Ok(()) }
    }
}
