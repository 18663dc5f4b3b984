//! A backend that records its calls and answers what it is told, and a container file around it.

use std::cell::{Cell, RefCell};
use std::ops::Deref;

use iommu::addr::{Iova, IovaRange};
use iommu::container::abi::{Backend, Errno, FrontEnd};
use iommu::container::{
    BitmapFault, DirtyBitmap, DirtyRange, Extension, Info, Kind, MAX_DIRTY_BITMAP, MapDma,
    Migration, UnmapDma, Unmapped, UpdateVaddr,
};
use iommu::pool::{Pool, PoolVec};

/// One call that changes something, or could.
#[derive(Clone, PartialEq, Debug)]
pub enum Call {
    Info,
    Map(MapDma),
    Update(UpdateVaddr),
    Unmap(UnmapDma),
    UnmapDirty(DirtyRange),
    Invalidate(UnmapDma),
    Start,
    Stop,
    Get(DirtyRange),
}

/// What a container says about itself.
pub fn info(page_sizes: u64, free_mappings: u32, list: &[IovaRange]) -> Info {
    static POOL: Pool = Pool::heap();
    let mut windows = PoolVec::new(&POOL);
    list.iter().for_each(|window| windows.push(*window).unwrap());
    let migration = Migration { page_size: 0x1000, max_bitmap: MAX_DIRTY_BITMAP };
    Info { page_sizes, migration, free_mappings, windows }
}

pub struct Fake {
    pub kind: Cell<Kind>,
    pub coherent: Cell<bool>,
    pub emulated: Cell<bool>,
    /// What every call answers.
    pub refuse: Cell<Option<Errno>>,
    /// Words that dirty calls put into the bitmap: where, and which.
    pub bits: RefCell<Vec<(u64, Vec<u64>)>>,
    pub unmapped: Cell<u64>,
    pub calls: RefCell<Vec<Call>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            kind: Cell::new(Kind::V2),
            coherent: Cell::new(false),
            emulated: Cell::new(false),
            refuse: Cell::new(None),
            bits: RefCell::default(),
            unmapped: Cell::new(0x3000),
            calls: RefCell::default(),
        }
    }
}

impl Fake {
    fn note(&self, call: Call) -> Result<(), Errno> {
        self.calls.borrow_mut().push(call);
        self.refuse.get().map_or(Ok(()), Err)
    }

    fn unmapped(&self) -> Unmapped {
        Unmapped { bytes: self.unmapped.get() }
    }

    fn hand_out(&self, bitmap: &mut dyn DirtyBitmap) -> Result<(), Errno> {
        for (index, words) in &*self.bits.borrow() {
            bitmap.store(*index, words).map_err(|BitmapFault| Errno::FAULT)?;
        }
        Ok(())
    }

    /// The calls since the last time.
    pub fn taken(&self) -> Vec<Call> {
        self.calls.take()
    }
}

impl Backend for Fake {
    fn kind(&self) -> Kind {
        self.kind.get()
    }

    fn check_extension(&self, extension: Extension) -> bool {
        match extension {
            Extension::DmaCoherent => self.coherent.get(),
            Extension::UpdateVaddr => !self.emulated.get(),
            _ => extension.without_container(),
        }
    }

    fn has_emulated_groups(&self) -> bool {
        self.emulated.get()
    }

    fn info(&self) -> Result<Info, Errno> {
        self.note(Call::Info)?;
        Ok(info(0x1000, 7, &[IovaRange::from_len(Iova(0x1000), 0x1000).unwrap()]))
    }

    fn map(&self, request: &MapDma) -> Result<(), Errno> {
        self.note(Call::Map(*request))
    }

    fn update_vaddr(&self, request: &UpdateVaddr) -> Result<(), Errno> {
        self.note(Call::Update(*request))
    }

    fn unmap(&self, request: &UnmapDma) -> Result<Unmapped, Errno> {
        self.note(Call::Unmap(*request)).map(|()| self.unmapped())
    }

    fn unmap_dirty(
        &self,
        range: &DirtyRange,
        bitmap: &mut dyn DirtyBitmap,
    ) -> Result<Unmapped, Errno> {
        self.note(Call::UnmapDirty(*range))?;
        self.hand_out(bitmap)?;
        Ok(self.unmapped())
    }

    fn invalidate_vaddr(&self, request: &UnmapDma) -> Result<Unmapped, Errno> {
        self.note(Call::Invalidate(*request)).map(|()| self.unmapped())
    }

    fn dirty_start(&self) -> Result<(), Errno> {
        self.note(Call::Start)
    }

    fn dirty_stop(&self) -> Result<(), Errno> {
        self.note(Call::Stop)
    }

    fn dirty_get(&self, range: &DirtyRange, bitmap: &mut dyn DirtyBitmap) -> Result<(), Errno> {
        self.note(Call::Get(*range))?;
        self.hand_out(bitmap)
    }
}

/// A container file; groups are a number.
#[derive(Default)]
pub struct File {
    pub groups: Cell<u32>,
    pub open: Cell<bool>,
    pub backend: Fake,
}

impl FrontEnd for File {
    type Backend = Fake;

    fn backend(&self) -> Option<impl Deref<Target = Fake>> {
        self.open.get().then_some(&self.backend)
    }

    fn has_groups(&self) -> bool {
        self.groups.get() > 0
    }

    fn open(&self, kind: Kind) -> Result<(), Errno> {
        if let Some(errno) = self.backend.refuse.get() {
            return Err(errno);
        }
        self.backend.kind.set(kind);
        self.open.set(true);
        Ok(())
    }
}
