//! Gives the devices to the vfio driver and opens their groups.

use core::fmt::Write;

use crate::failure::Failure;
use crate::modules::with_zero;
use crate::sys::{self, File, READ_WRITE, WRITE};
use crate::vfio::Group;

/// How many devices there are, each alone in its group.
pub const COUNT: usize = 8;
/// The slot of the first one; the others follow.
const FIRST_SLOT: usize = 4;

/// Binds each device to vfio-pci and opens its group.
///
/// # Errors
///
/// When a device is not there, belongs to no group (the IOMMU's driver did not start), or its group
/// can't be used.
pub fn give_to_vfio() -> Result<[Group; COUNT], Failure> {
    let mut groups = [const { None }; COUNT];
    for (at, group) in groups.iter_mut().enumerate() {
        *group = Some(give(FIRST_SLOT + at)?);
    }
    Ok(groups.map(|group| group.expect("each was set")))
}

fn give(slot: usize) -> Result<Group, Failure> {
    let mut name = Text::default();
    let _ = write!(name, "0000:00:{slot:02x}.0");
    let device = |file: &str| {
        let mut path = Text::default();
        let _ = write!(path, "/sys/bus/pci/devices/{}/{file}", name.as_str());
        path
    };
    put(&device("driver_override"), b"vfio-pci", "set driver_override of a device")?;
    let mut probe = Text::default();
    let _ = write!(probe, "/sys/bus/pci/drivers_probe");
    put(&probe, name.as_str().as_bytes(), "bind a device to vfio-pci")?;

    let (mut room, mut link) = ([0; 128], [0; 256]);
    let path = with_zero(device("iommu_group").as_str().as_bytes(), &mut room)?;
    let no_group = "find the group of a device; does the kernel have the IOMMU's driver";
    let link = sys::read_link(path, &mut link).map_err(Failure::of(no_group))?;
    let number = link.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut path = Text::default();
    let _ = write!(path, "/dev/vfio/{}", str::from_utf8(number).unwrap_or_default());
    let path = with_zero(path.as_str().as_bytes(), &mut room)?;
    let file = File::open(path, READ_WRITE).map_err(Failure::of("open a group in /dev/vfio"))?;
    Group::new(file)
}

fn put(path: &Text, bytes: &[u8], step: &'static str) -> Result<(), Failure> {
    let mut room = [0; 128];
    let path = with_zero(path.as_str().as_bytes(), &mut room)?;
    let file = File::open(path, WRITE).map_err(Failure::of(step))?;
    file.write(bytes).map_err(Failure::of(step))
}

/// A short text. What does not fit is an error of `write!`, and the path is then not there.
struct Text {
    bytes: [u8; 100],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 100], len: 0 }
    }
}

impl Text {
    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(core::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}
