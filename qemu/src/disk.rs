//! The devices and disks of an image that drives more than the `edu`: made with a known pattern
//! before a boot, and compared with what the image was to leave afterwards.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

#[path = "../../tests/cases/src/disk.rs"]
mod layout;

use layout::{Content, KEPT, REPLACED, SECTOR, SECTORS};

/// Two files beside an image, one for each disk.
#[derive(Debug)]
pub struct Disks {
    files: [(PathBuf, Content, Content); 2],
    /// Whether the image was to replace a part.
    replaces: bool,
}

impl Disks {
    /// The disks of an image, by its name; none for one that has no use for them.
    pub fn of(image: &str, path: &Path) -> Option<Self> {
        let replaces = match image {
            "matrix" => false,
            "devices" => true,
            _ => return None,
        };
        let beside = |what: &str| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(what);
            path.with_file_name(name)
        };
        let files = [
            (beside(".blk.img"), Content::Blk, Content::NewBlk),
            (beside(".nvme.img"), Content::Nvme, Content::NewNvme),
        ];
        Some(Self { files, replaces })
    }

    /// What QEMU has to be told: the disks and their devices, and those that need no disk. All of
    /// them are behind the IOMMU of the first root bus.
    pub fn options(&self) -> Vec<OsString> {
        let drives = self.files.iter().zip(["blk", "nvm"]).flat_map(|((path, ..), id)| {
            let mut drive = OsString::from("file=");
            drive.push(path);
            drive.push(format!(",format=raw,if=none,id={id}"));
            [OsString::from("-drive"), drive]
        });
        let devices = DEVICES.iter().map(OsString::from);
        drives.chain(devices).collect()
    }

    /// Makes the files.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn create(&self) -> Result<(), Error> {
        for (path, content, _) in &self.files {
            let bytes: Vec<u8> = (0..SECTORS).flat_map(|sector| bytes(*content, sector)).collect();
            fs::write(path, bytes).map_err(Error::io(format!("write {}", path.display())))?;
        }
        Ok(())
    }

    /// What is wrong with the files after a run in which every case passed; nothing, if they hold
    /// what they should.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn fault(&self) -> Result<Option<String>, Error> {
        for (path, old, new) in &self.files {
            let read = fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
            let replaced = if self.replaces { new } else { old };
            let have = |sector: u64| read.chunks(SECTOR).nth(sector as usize).unwrap_or_default();
            let checked = KEPT.map(|at| (at, old)).chain(REPLACED.map(|at| (at, replaced)));
            for (sector, content) in checked {
                if !have(sector).iter().copied().eq(bytes(*content, sector)) {
                    let path = path.display();
                    return Ok(Some(format!("sector {sector} of {path} is not {content:?}")));
                }
            }
        }
        Ok(None)
    }
}

fn bytes(content: Content, sector: u64) -> impl Iterator<Item = u8> {
    (0..SECTOR).map(move |at| content.byte(sector, at))
}

/// `iommu_platform`: the device puts its accesses through the IOMMU, and says so. `ioeventfd=off`: it
/// looks at its queue when it is told to, not when the host finds the time. A source of random numbers
/// also looks when a `period` is over, by itself, in the middle of somebody else's case: so none ever is,
/// as a minute of the machine's clock can be seconds of ours. The two networks
/// are plugged into one hub, so that the one hears what the other says.
#[rustfmt::skip]
const DEVICES: &[&str] = &[
    "-device", "virtio-rng-pci,bus=pcie.0,addr=8,iommu_platform=on,disable-legacy=on,ioeventfd=off,\
        period=2000000000",
    "-device", "virtio-blk-pci,drive=blk,bus=pcie.0,addr=9,iommu_platform=on,disable-legacy=on,\
        ioeventfd=off",
    "-device", "nvme,drive=nvm,serial=1,bus=pcie.0,addr=10",
    "-netdev", "hubport,id=net0,hubid=0",
    "-netdev", "hubport,id=net1,hubid=0",
    "-device", "virtio-net-pci,netdev=net0,bus=pcie.0,addr=11,mac=52:54:00:00:00:01,romfile=,\
        iommu_platform=on,disable-legacy=on,ioeventfd=off",
    "-device", "virtio-net-pci,netdev=net1,bus=pcie.0,addr=12,mac=52:54:00:00:00:02,romfile=,\
        iommu_platform=on,disable-legacy=on,ioeventfd=off",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    use layout::SCRATCH;

    fn disks(image: &str, test: u8) -> (PathBuf, Disks) {
        let dir = std::env::temp_dir().join(format!("iommu-disk-{test}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let disks = Disks::of(image, &dir.join("image-0123456789abcdef")).unwrap();
        disks.create().unwrap();
        (dir, disks)
    }

    fn put(path: &Path, sectors: Range<u64>, content: Content) {
        let mut all = fs::read(path).unwrap();
        let place = sectors.start as usize * SECTOR..sectors.end as usize * SECTOR;
        all.splice(place, sectors.flat_map(|sector| bytes(content, sector)));
        fs::write(path, all).unwrap();
    }

    fn one(sector: u64) -> Range<u64> {
        sector..sector + 1
    }

    #[test]
    fn an_image_without_disks_has_no_options() {
        assert!(Disks::of("boot", Path::new("/t/boot")).is_none());
    }

    #[test]
    fn every_device_is_behind_the_iommu() {
        let (dir, disks) = disks("matrix", 0);
        let line = disks.options().join(&OsString::from(" ")).into_string().unwrap();
        assert_eq!(line.matches("virtio-").count(), line.matches("iommu_platform=on").count());
        assert_eq!(line.matches("-drive").count(), 2, "{line}");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_kept_must_be_whole() {
        let (dir, disks) = disks("matrix", 1);
        assert_eq!(disks.fault().unwrap(), None);
        let path = &disks.files[0].0;
        put(path, SCRATCH, Content::NewBlk);
        assert_eq!(disks.fault().unwrap(), None, "the scratch is the image's");
        put(path, one(KEPT.end - 1), Content::NewBlk);
        assert!(disks.fault().unwrap().is_some_and(|why| why.contains("sector 511 of")));
        put(path, one(KEPT.end - 1), Content::Blk);
        put(path, one(REPLACED.start), Content::NewBlk);
        assert!(disks.fault().unwrap().is_some(), "nobody was to replace it");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_replaced_must_be_replaced_everywhere() {
        let (dir, disks) = disks("devices", 2);
        assert!(disks.fault().unwrap().is_some_and(|why| why.contains("sector 512 of")));
        for (path, _, new) in &disks.files {
            put(path, REPLACED, *new);
        }
        assert_eq!(disks.fault().unwrap(), None);
        put(&disks.files[1].0, one(REPLACED.end - 1), Content::Nvme);
        assert!(disks.fault().unwrap().is_some_and(|why| why.contains("sector 1023 of")));
        fs::write(&disks.files[1].0, [0; 100]).unwrap();
        assert!(disks.fault().unwrap().is_some(), "a file that is too short");
        fs::remove_dir_all(dir).unwrap();
    }
}
