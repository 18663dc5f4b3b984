//! From a request to the call that answers it. The checks that need a backend before the backend's
//! own are here: T1-062, T1-069, T1-354, T1-355, T1-357, T1-416.

use super::backend::{Backend, FrontEnd};
use super::bitmap::UserBitmap;
use super::command::{Command, Unmap, UnmapMode};
use super::errno::Errno;
use super::extension::check;
use super::request;
use super::user::{UserMemory, native};
use crate::container::{DirtyRange, Kind, UnmapDma};

/// Answers an ioctl of a container file: request number, argument, and the memory of the caller.
///
/// `Ok` is what the system call returns; it is 0 for all but CHECK_EXTENSION.
///
/// # Errors
///
/// `EINVAL`: SET_IOMMU without a group or with a backend set; any request but the first three
/// without a backend (rules T1-062, T1-069). `ENODEV`: no such backend. Else as
/// [`FrontEnd::open`] and [`backend_ioctl`].
pub fn ioctl<F: FrontEnd + ?Sized>(
    file: &F,
    user: &(impl UserMemory + ?Sized),
    request: u32,
    arg: u64,
) -> Result<i32, Errno> {
    match request {
        request::GET_API_VERSION => Ok(0),
        request::CHECK_EXTENSION => Ok(check(arg, file.backend().as_deref())),
        request::SET_IOMMU => {
            if !file.has_groups() || file.backend().is_some() {
                return Err(Errno::INVAL);
            }
            file.open(Kind::from_number(arg)?)?;
            Ok(0)
        }
        _ => {
            let backend = file.backend().ok_or(Errno::INVAL)?;
            backend_ioctl(&*backend, user, request, arg)
        }
    }
}

/// Answers an ioctl of a container whose backend is set: CHECK_EXTENSION, GET_INFO, MAP_DMA,
/// UNMAP_DMA, DIRTY_PAGES.
///
/// `Ok` is what the system call returns; it is 0 for all but CHECK_EXTENSION.
///
/// # Errors
///
/// `ENOTTY`: any other request. `EACCES`: DIRTY_PAGES of a v1 container, before anything is read
/// (rule T1-416). `EBUSY`: an unmap that makes addresses invalid, and an emulated group (rule
/// T1-354). Else as [`Command::decode`], the call of [`Backend`], and the writing of the answer.
pub fn backend_ioctl<B: Backend + ?Sized>(
    backend: &B,
    user: &(impl UserMemory + ?Sized),
    request: u32,
    arg: u64,
) -> Result<i32, Errno> {
    if request == request::IOMMU_DIRTY_PAGES && backend.kind() == Kind::V1 {
        return Err(Errno::ACCES);
    }
    match Command::decode(request, arg, user)? {
        Command::GetApiVersion | Command::SetIommu(_) => return Err(Errno::NOTTY),
        Command::CheckExtension(number) => return Ok(check(number, Some(backend))),
        Command::GetInfo(to) => backend.info()?.write(user, to)?,
        Command::Map(map) => backend.map(&map)?,
        Command::UpdateVaddr(update) => backend.update_vaddr(&update)?,
        Command::Unmap(request) => unmap(backend, user, &request)?,
        Command::DirtyStart => backend.dirty_start()?,
        Command::DirtyStop => backend.dirty_stop()?,
        Command::DirtyGet(range, bitmap) => {
            backend.dirty_get(&range, &mut UserBitmap::new(user, bitmap))?;
        }
    }
    Ok(0)
}

fn unmap<B: Backend + ?Sized>(
    backend: &B,
    user: &(impl UserMemory + ?Sized),
    request: &Unmap,
) -> Result<(), Errno> {
    let Unmap { iova, size, all, mode, .. } = *request;
    if mode == UnmapMode::Vaddr && backend.has_emulated_groups() {
        return Err(Errno::BUSY);
    }
    native(user, &[iova, size])?;
    // T1-356 would come first, and answers the same.
    if all && (iova, size) != (0, 0) {
        return Err(Errno::INVAL);
    }
    let which = if all { UnmapDma::All } else { UnmapDma::Range { iova, size } };
    let unmapped = match mode {
        UnmapMode::Remove => backend.unmap(&which)?,
        UnmapMode::Vaddr => backend.invalidate_vaddr(&which)?,
        UnmapMode::Dirty(bitmap) => {
            let range = DirtyRange { iova, size, page_size: bitmap.page_size };
            backend.unmap_dirty(&range, &mut UserBitmap::new(user, bitmap))?
        }
    };
    request.write_size(user, unmapped.bytes)
}
