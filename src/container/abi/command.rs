//! `Command`: a request decoded and checked, as far as that needs no container.
//!
//! The checks stand in the order of the rules, and end where the next one needs the container:
//! MAP after T1-265, UNMAP after T1-353, DIRTY_PAGES after T1-426.

use super::bitmap::Bitmap;
use super::errno::Errno;
use super::layout::{
    BitmapStruct, DIRTY_DATA, DIRTY_GET, DIRTY_START, DIRTY_STOP, DirtyGetStruct, DirtyStruct,
    InfoHead, MAP_READ, MAP_VADDR, MAP_WRITE, MapStruct, UNMAP_ALL, UNMAP_DATA, UNMAP_GET_DIRTY,
    UNMAP_SIZE_AT, UNMAP_VADDR, UnmapStruct, size,
};
use super::request;
use super::user::{UserMemory, fetch, native, store};
use crate::container::{DirtyRange, MapDma, UpdateVaddr};
use crate::prot::Prot;

/// A request to a container file. All numbers are in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// The version of the API (rule T1-061).
    GetApiVersion,
    /// Whether the extension of this number is there (rules T1-080 to T1-084).
    CheckExtension(u64),
    /// Chooses the backend of this number (rule T1-062).
    SetIommu(u64),
    /// What the backend offers (rules T1-520 to T1-529).
    GetInfo(GetInfo),
    /// Maps memory (rules T1-260 to T1-275). Not empty, not wrapping, with a direction.
    Map(MapDma),
    /// Gives a mapping whose address is invalid a new one (rule T1-404).
    UpdateVaddr(UpdateVaddr),
    /// Unmaps memory, or makes addresses invalid (rules T1-350 to T1-375).
    Unmap(Unmap),
    /// Dirty tracking on (rule T1-433).
    DirtyStart,
    /// Dirty tracking off (rule T1-434).
    DirtyStop,
    /// Reads the dirty bits of a range (rules T1-416 to T1-430). Not empty, not wrapping.
    DirtyGet(DirtyRange, Bitmap),
}

/// Where the answer to GET_INFO goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GetInfo {
    /// The user address of the structure.
    pub address: u64,
    /// How many bytes there are at `address`; at least 16.
    pub argsz: u32,
}

/// A request to unmap. `iova` and `size` are as the user gave them: whether they are in order is
/// checked after the first check that needs the container (rules T1-354 to T1-359).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unmap {
    /// The user address of the structure, for [`write_size`](Self::write_size).
    pub address: u64,
    /// The first byte.
    pub iova: u64,
    /// How many bytes.
    pub size: u64,
    /// Every mapping there is; `iova` and `size` should then be 0.
    pub all: bool,
    /// What happens to the mappings.
    pub mode: UnmapMode,
}

/// What an unmap does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnmapMode {
    /// Removes mappings.
    Remove,
    /// The same, and writes their dirty bits before they go (rule T1-374). Never with `all`.
    Dirty(Bitmap),
    /// Removes nothing: makes their addresses invalid (rule T1-400).
    Vaddr,
}

impl Command {
    /// Decodes request number `request` with argument `arg`, reading structures from `user`.
    ///
    /// Writes nothing.
    ///
    /// # Errors
    ///
    /// `ENOTTY`: no request of this number, ENABLE and DISABLE included (rule T1-069). `EFAULT`: a
    /// structure can't be read. `EINVAL`: `argsz` too small, an unknown flag, flags that exclude
    /// each other, an empty range, a bitmap that is too small, too large or not the user's.
    /// `EOVERFLOW`: a range wraps, or a number doesn't fit the host. The first that applies in the
    /// order of rules T1-260 to T1-265, T1-350 to T1-353, T1-417 to T1-426, T1-520.
    pub fn decode(
        request: u32,
        arg: u64,
        user: &(impl UserMemory + ?Sized),
    ) -> Result<Self, Errno> {
        match request {
            request::GET_API_VERSION => Ok(Self::GetApiVersion),
            request::CHECK_EXTENSION => Ok(Self::CheckExtension(arg)),
            request::SET_IOMMU => Ok(Self::SetIommu(arg)),
            request::IOMMU_GET_INFO => get_info(arg, user),
            request::IOMMU_MAP_DMA => map(arg, user),
            request::IOMMU_UNMAP_DMA => unmap(arg, user),
            request::IOMMU_DIRTY_PAGES => dirty_pages(arg, user),
            _ => Err(Errno::NOTTY),
        }
    }
}

impl Unmap {
    /// Writes the number of bytes that were unmapped into the `size` of the request's structure
    /// (rule T1-369): these 8 bytes and no other.
    ///
    /// # Errors
    ///
    /// `EFAULT`: the structure can't be written. The mappings are gone all the same, as in Linux.
    pub fn write_size(&self, user: &(impl UserMemory + ?Sized), bytes: u64) -> Result<(), Errno> {
        store(user, self.address, UNMAP_SIZE_AT, &bytes)
    }
}

fn get_info(address: u64, user: &(impl UserMemory + ?Sized)) -> Result<Command, Errno> {
    let InfoHead { argsz, .. } = fetch(user, address, 0)?;
    if argsz < size::<InfoHead>() {
        return Err(Errno::INVAL);
    }
    Ok(Command::GetInfo(GetInfo { address, argsz }))
}

fn map(address: u64, user: &(impl UserMemory + ?Sized)) -> Result<Command, Errno> {
    let MapStruct { argsz, flags, vaddr, iova, size: bytes } = fetch(user, address, 0)?;
    check(argsz, size::<MapStruct>(), flags, MAP_READ | MAP_WRITE | MAP_VADDR)?;
    native(user, &[vaddr, iova, bytes])?;
    let span = bytes.checked_sub(1).ok_or(Errno::INVAL)?;
    ends_in(user, iova, span)?;
    ends_in(user, vaddr, span)?;
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags & MAP_READ != 0);
    prot.set(Prot::WRITE, flags & MAP_WRITE != 0);
    match (flags & MAP_VADDR != 0, prot.is_empty()) {
        (false, false) => Ok(Command::Map(MapDma { iova, vaddr, size: bytes, prot })),
        (true, true) => Ok(Command::UpdateVaddr(UpdateVaddr { iova, vaddr, size: bytes })),
        _ => Err(Errno::INVAL),
    }
}

fn unmap(address: u64, user: &(impl UserMemory + ?Sized)) -> Result<Command, Errno> {
    let UnmapStruct { argsz, flags, iova, size: bytes } = fetch(user, address, 0)?;
    check(argsz, size::<UnmapStruct>(), flags, UNMAP_GET_DIRTY | UNMAP_ALL | UNMAP_VADDR)?;
    let (all, vaddr) = (flags & UNMAP_ALL != 0, flags & UNMAP_VADDR != 0);
    let mode = if flags & UNMAP_GET_DIRTY != 0 {
        if all || vaddr {
            return Err(Errno::INVAL);
        }
        if argsz - size::<UnmapStruct>() < size::<BitmapStruct>() {
            return Err(Errno::INVAL);
        }
        let bitmap = fetch(user, address, UNMAP_DATA)?;
        UnmapMode::Dirty(Bitmap::check(user, &bitmap, bytes)?)
    } else if vaddr {
        UnmapMode::Vaddr
    } else {
        UnmapMode::Remove
    };
    Ok(Command::Unmap(Unmap { address, iova, size: bytes, all, mode }))
}

fn dirty_pages(address: u64, user: &(impl UserMemory + ?Sized)) -> Result<Command, Errno> {
    let DirtyStruct { argsz, flags } = fetch(user, address, 0)?;
    check(argsz, size::<DirtyStruct>(), flags, DIRTY_START | DIRTY_STOP | DIRTY_GET)?;
    match flags {
        DIRTY_START => return Ok(Command::DirtyStart),
        DIRTY_STOP => return Ok(Command::DirtyStop),
        DIRTY_GET => {}
        _ => return Err(Errno::INVAL),
    }
    if argsz - size::<DirtyStruct>() < size::<DirtyGetStruct>() {
        return Err(Errno::INVAL);
    }
    let DirtyGetStruct { iova, size: bytes, bitmap } = fetch(user, address, DIRTY_DATA)?;
    native(user, &[iova, bytes])?;
    let span = bytes.checked_sub(1).ok_or(Errno::INVAL)?;
    ends_in(user, iova, span)?;
    let bitmap = Bitmap::check(user, &bitmap, bytes)?;
    let range = DirtyRange { iova, size: bytes, page_size: bitmap.page_size };
    Ok(Command::DirtyGet(range, bitmap))
}

/// Rules T1-261, T1-351, T1-418.
fn check(argsz: u32, least: u32, flags: u32, known: u32) -> Result<(), Errno> {
    if argsz < least || flags & !known != 0 { Err(Errno::INVAL) } else { Ok(()) }
}

/// Rules T1-264, T1-424: the last byte has an address of the host's.
fn ends_in(user: &(impl UserMemory + ?Sized), first: u64, span: u64) -> Result<(), Errno> {
    let last = first.checked_add(span).ok_or(Errno::OVERFLOW)?;
    native(user, &[last])
}
