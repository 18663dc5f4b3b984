//! System calls, as functions that can't be called wrongly.
//!
//! Numbers and structures are those of the Linux user interface; they never change.
#![expect(unsafe_code, reason = "a system call is an instruction, and takes addresses")]

use core::ffi::CStr;
use core::ptr::from_mut;

use syscalls::{Errno, Sysno, syscall};

/// An open file; closed when it goes.
pub struct File(usize);

impl File {
    /// Opens a file.
    pub fn open(path: &CStr, flags: usize) -> Result<Self, Errno> {
        // SAFETY: the path ends with a zero and lives over the call.
        let fd = unsafe { syscall!(Sysno::openat, AT_FDCWD, path.as_ptr(), flags, 0) }?;
        Ok(Self(fd))
    }

    /// Reads until the buffer is full or the file ends; returns what was read.
    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
        let mut len = 0;
        while len < buffer.len() {
            let rest = &mut buffer[len..];
            // SAFETY: the kernel writes at most `rest.len()` bytes to `rest`, which is ours alone.
            let read = unsafe { syscall!(Sysno::read, self.0, rest.as_mut_ptr(), rest.len()) }?;
            if read == 0 {
                break;
            }
            len += read;
        }
        Ok(&buffer[..len])
    }

    /// Writes all of `bytes`.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Errno> {
        write(self.0, bytes)
    }

    /// Writes `byte` at a place of the file.
    pub fn put(&self, byte: u8, at: usize) -> Result<(), Errno> {
        let from = &raw const byte;
        // SAFETY: the kernel reads one byte, of a variable that lives over the call.
        unsafe { syscall!(Sysno::pwrite64, self.0, from, 1, at) }.map(drop)
    }

    /// Makes a request that takes a number.
    pub fn ioctl(&self, request: Request, number: usize) -> Result<usize, Errno> {
        // SAFETY: a `Request` takes no address, so the number can't be taken for one.
        unsafe { syscall!(Sysno::ioctl, self.0, request.0, number) }
    }

    /// Makes a request that takes a file.
    pub fn ioctl_file(&self, request: FileRequest, other: &Self) -> Result<usize, Errno> {
        let other = i32::try_from(other.0).map_err(|_| Errno::EBADF)?;
        let from = &raw const other;
        // SAFETY: a `FileRequest` makes the kernel read an `int`, which lives over the call.
        unsafe { syscall!(Sysno::ioctl, self.0, request.0, from) }
    }

    /// Makes a request that takes a structure.
    pub fn ioctl_with<T: Argument>(&self, argument: &mut T) -> Result<usize, Errno> {
        let at = from_mut(argument);
        // SAFETY: `Argument` promises that the kernel touches no more than the structure.
        unsafe { syscall!(Sysno::ioctl, self.0, T::REQUEST, at) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the file is ours, and nobody uses the number any more.
        let _ = unsafe { syscall!(Sysno::close, self.0) };
    }
}

/// A request of [`File::ioctl`] that takes a number or nothing.
pub struct Request(usize);

impl Request {
    /// VFIO_GET_API_VERSION: does nothing but answer.
    pub const API_VERSION: Self = Self(0x3b64);
    /// VFIO_SET_IOMMU.
    pub const SET_IOMMU: Self = Self(0x3b66);
    /// VFIO_GROUP_UNSET_CONTAINER.
    pub const UNSET_CONTAINER: Self = Self(0x3b69);
}

/// A request that takes a file.
pub struct FileRequest(usize);

impl FileRequest {
    /// VFIO_GROUP_SET_CONTAINER.
    pub const SET_CONTAINER: Self = Self(0x3b68);
}

/// A structure that a request takes.
///
/// # Safety
///
/// The request must read and write inside the structure only, and whatever bytes it writes must be a
/// value of it.
pub unsafe trait Argument {
    /// The request.
    const REQUEST: usize;
}

/// VFIO_GROUP_GET_STATUS.
#[repr(C)]
pub struct GroupStatus {
    /// Size of this structure.
    pub argsz: u32,
    /// Bit 0: every device has a driver that may be used; bit 1: it is in a container.
    pub flags: u32,
}

// SAFETY: `argsz` is the size for every value that this program makes; two integers.
unsafe impl Argument for GroupStatus {
    const REQUEST: usize = 0x3b67;
}

/// VFIO_IOMMU_MAP_DMA.
#[repr(C)]
pub struct MapDma {
    /// Size of this structure.
    pub argsz: u32,
    /// 1: the device may read; 2: it may write.
    pub flags: u32,
    /// Where the memory is, for this program.
    pub vaddr: u64,
    /// Where it shall be, for the device.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
}

// SAFETY: the kernel reads it and writes nothing. What it pins stays memory of this program: a device
// could write there, but none is told to.
unsafe impl Argument for MapDma {
    const REQUEST: usize = 0x3b71;
}

/// VFIO_IOMMU_UNMAP_DMA.
#[repr(C)]
pub struct UnmapDma {
    /// Size of this structure.
    pub argsz: u32,
    /// 2: all mappings.
    pub flags: u32,
    /// From where.
    pub iova: u64,
    /// Bytes; the kernel answers with what it unmapped.
    pub size: u64,
}

// SAFETY: without the flag for a bitmap, which this program never sets, the kernel reads the structure
// and writes its size.
unsafe impl Argument for UnmapDma {
    const REQUEST: usize = 0x3b72;
}

/// Writes all of `bytes` to a file by its number.
pub fn write(fd: usize, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: the kernel reads at most `bytes.len()` bytes from `bytes`.
        let written = unsafe { syscall!(Sysno::write, fd, bytes.as_ptr(), bytes.len()) }?;
        bytes = bytes.get(written..).ok_or(Errno::EIO)?;
    }
    Ok(())
}

/// Waits until a terminal has sent what was written to it.
pub fn drain(fd: usize) {
    const TCSBRK: usize = 0x5409;
    // SAFETY: the request takes a number.
    let _ = unsafe { syscall!(Sysno::ioctl, fd, TCSBRK, 1) };
}

/// Makes a folder and mounts a file system of the kernel's there.
pub fn mount(kind: &CStr, at: &CStr) -> Result<(), Errno> {
    // SAFETY: the path ends with a zero.
    match unsafe { syscall!(Sysno::mkdirat, AT_FDCWD, at.as_ptr(), 0o755) } {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error),
    }
    let (kind, at) = (kind.as_ptr(), at.as_ptr());
    // SAFETY: source, target and kind end with zeros; there is no data.
    unsafe { syscall!(Sysno::mount, kind, at, kind, 0, 0) }.map(drop)
}

/// Reads what a symbolic link says.
pub fn read_link<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let (to, room) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the path ends with a zero; the kernel writes at most `room` bytes.
    let len = unsafe { syscall!(Sysno::readlinkat, AT_FDCWD, path.as_ptr(), to, room) }?;
    buffer.get(..len).ok_or(Errno::EIO)
}

/// Loads a module of the kernel.
pub fn load_module(file: &File, parameters: &CStr) -> Result<(), Errno> {
    // SAFETY: the parameters end with a zero.
    unsafe { syscall!(Sysno::finit_module, file.0, parameters.as_ptr(), 0) }.map(drop)
}

/// The cheapest system call.
pub fn parent() -> Result<usize, Errno> {
    // SAFETY: it takes nothing and always succeeds.
    unsafe { syscall!(Sysno::getppid) }
}

/// Fills the buffer with the kernel's names and numbers: six texts of 65 bytes, each ended by a zero.
pub fn names(buffer: &mut [u8; 6 * 65]) -> Result<(), Errno> {
    // SAFETY: the structure has exactly this size.
    unsafe { syscall!(Sysno::uname, buffer.as_mut_ptr()) }.map(drop)
}

/// Ends the machine: with `-no-reboot` QEMU exits.
pub fn restart() -> ! {
    const MAGIC: [usize; 2] = [0xfee1_dead, 0x2812_1969];
    const RESTART: usize = 0x0123_4567;
    loop {
        // SAFETY: no address is passed. It does not return to the first program.
        let _ = unsafe { syscall!(Sysno::reboot, MAGIC[0], MAGIC[1], RESTART, 0) };
    }
}

/// Memory of this program, from the kernel. Kept to the end.
#[derive(Clone, Copy)]
pub struct Memory {
    start: usize,
    len: usize,
}

impl Memory {
    /// Takes `len` bytes; `flags` are added to "private, anonymous". A part of it is aligned to
    /// `align`, a power of two: `len` bytes from there are what is returned.
    pub fn take(len: usize, align: usize, flags: usize) -> Result<Self, Errno> {
        const PRIVATE_ANONYMOUS: usize = 0x22;
        const READ_WRITE: usize = 3;
        let whole = if align > PAGE { len + align } else { len };
        let flags = flags | PRIVATE_ANONYMOUS;
        // SAFETY: without MAP_FIXED the kernel chooses a place where nothing is.
        let start = unsafe { syscall!(Sysno::mmap, 0, whole, READ_WRITE, flags, usize::MAX, 0) }?;
        Ok(Self { start: start.next_multiple_of(align), len })
    }

    /// Asks for huge pages, or for none.
    pub fn want_huge(&self, is_wanted: bool) -> Result<(), Errno> {
        let advice = if is_wanted { 14 } else { 15 };
        // SAFETY: neither advice changes what is in the memory.
        unsafe { syscall!(Sysno::madvise, self.start, self.len, advice) }.map(drop)
    }

    /// Makes the kernel put a page at `offset`.
    pub fn touch(&self, offset: usize) {
        assert!(offset < self.len, "outside");
        let at = (self.start + offset) as *mut u8;
        // SAFETY: inside the memory, which is this program's for ever; nothing refers to it.
        unsafe { at.write_volatile(1) };
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.start as u64
    }
}

/// The size of a page, on both architectures with the kernels that this program is for.
pub const PAGE: usize = 4096;
/// Open for reading and writing.
pub const READ_WRITE: usize = 2;
/// Open for writing.
pub const WRITE: usize = 1;
/// Open for reading.
pub const READ: usize = 0;

const AT_FDCWD: isize = -100;
