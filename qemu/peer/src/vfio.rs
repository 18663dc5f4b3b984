//! A container and its groups, through the user interface of vfio.

use syscalls::Errno;

use crate::failure::Failure;
use crate::memory::Part;
use crate::sys::{File, FileRequest, GroupStatus, MapDma, READ_WRITE, Request, UnmapDma};

/// An open group whose devices may be used.
pub struct Group(File);

impl Group {
    /// Takes an open group.
    pub fn new(file: File) -> Result<Self, Failure> {
        const VIABLE: u32 = 1;
        let mut status = GroupStatus { argsz: size_of::<GroupStatus>() as u32, flags: 0 };
        file.ioctl_with(&mut status).map_err(Failure::of("ask the state of a group"))?;
        match status.flags & VIABLE {
            0 => Err(Failure::odd("use a group", "a device of it has another driver")),
            _ => Ok(Self(file)),
        }
    }

    /// Takes the group out of its container: VFIO_GROUP_UNSET_CONTAINER.
    pub fn detach(&self) -> Result<usize, Errno> {
        self.0.ioctl(Request::UNSET_CONTAINER, 0)
    }
}

/// An open container.
pub struct Container(File);

impl Container {
    /// Opens one.
    pub fn open() -> Result<Self, Failure> {
        let file = File::open(c"/dev/vfio/vfio", READ_WRITE);
        file.map(Self).map_err(Failure::of("open /dev/vfio/vfio"))
    }

    /// A request that does nothing: what any other costs at least.
    pub fn nothing(&self) -> Result<usize, Errno> {
        self.0.ioctl(Request::API_VERSION, 0)
    }

    /// Puts a group in: VFIO_GROUP_SET_CONTAINER.
    pub fn attach(&self, group: &Group) -> Result<usize, Errno> {
        group.0.ioctl_file(FileRequest::SET_CONTAINER, &self.0)
    }

    /// Makes it a type1 container of the second kind: VFIO_SET_IOMMU. Its first group is attached now.
    pub fn become_type1(&self) -> Result<usize, Errno> {
        const TYPE1_V2: usize = 3;
        self.0.ioctl(Request::SET_IOMMU, TYPE1_V2)
    }

    /// Maps memory of ours, for reading and writing.
    pub fn map(&self, iova: u64, part: Part) -> Result<usize, Errno> {
        let (vaddr, size) = (part.address, part.len as u64);
        let argsz = size_of::<MapDma>() as u32;
        self.0.ioctl_with(&mut MapDma { argsz, flags: 3, vaddr, iova, size })
    }

    /// Unmaps a range; returns the bytes.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<u64, Errno> {
        self.unmap_with(0, iova, size)
    }

    /// Unmaps all there is; returns the bytes.
    pub fn unmap_all(&self) -> Result<u64, Errno> {
        const ALL: u32 = 2;
        self.unmap_with(ALL, 0, 0)
    }

    fn unmap_with(&self, flags: u32, iova: u64, size: u64) -> Result<u64, Errno> {
        let mut request = UnmapDma { argsz: size_of::<UnmapDma>() as u32, flags, iova, size };
        self.0.ioctl_with(&mut request)?;
        Ok(request.size)
    }
}
