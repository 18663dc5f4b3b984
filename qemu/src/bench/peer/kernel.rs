//! A kernel of Linux to boot: from Debian's packages, or given by hand.

use std::fs;
use std::path::{Path, PathBuf};

use super::modules::Modules;
use super::packages::{self, Source};
use super::row::Row;
use crate::error::Error;
use crate::setup::host::Host;

/// An unpacked kernel.
pub struct Kernel {
    /// What it calls itself.
    pub release: String,
    /// What QEMU loads.
    pub image: PathBuf,
    /// Its modules.
    pub modules: Modules,
}

/// What was asked.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// Packages or folders of a kernel that is there; empty: fetch one.
    pub given: &'a [PathBuf],
    /// Fetch from this suite.
    pub suite: Option<&'a str>,
    /// Fetch nothing.
    pub no_setup: bool,
    /// A folder for what is fetched and unpacked.
    pub folder: &'a Path,
}

/// Finds or fetches the kernel.
///
/// # Errors
///
/// [`Error::Missing`] if there is none, or none that has the IOMMU's driver.
pub fn obtain(host: &dyn Host, row: &Row, wish: Wish<'_>) -> Result<Kernel, Error> {
    if !wish.given.is_empty() {
        let kernel = given(host, row, wish)?;
        return kernel.ok_or_else(|| {
            missing(
                row,
                "the kernel that was given has no driver for a \
            virtio-iommu"
                    .into(),
            )
        });
    }
    // Some releases of Debian have kernels without the driver.
    let suites: &[Option<&str>] = match wish.suite {
        Some(_) => &[wish.suite],
        None => &[None, Some(NEWEST)],
    };
    let mut why_not = String::new();
    for suite in suites {
        let folder = wish.folder.join(suite.unwrap_or("configured"));
        let source = Source { architecture: row.debian, suite: *suite, folder };
        let root = match source.kept(host) {
            Some(root) => root,
            None if wish.no_setup => {
                why_not = "no kernel was fetched before, and --no-setup fetches none".into();
                continue;
            }
            None => {
                host.say(&format!(
                    "fetching a kernel for {} into {}",
                    row.debian,
                    source.folder.display()
                ));
                match source.fetch(host)? {
                    Ok(root) => root,
                    Err(why) => {
                        why_not = why;
                        continue;
                    }
                }
            }
        };
        let kernel = in_folder(&root)?;
        if kernel.modules.has(DRIVER) {
            return Ok(kernel);
        }
        why_not = format!("Linux {} has no driver for a virtio-iommu", kernel.release);
        host.say(&why_not);
    }
    Err(missing(row, format!("there is no kernel to measure: {why_not}")))
}

fn missing(row: &Row, what: String) -> Error {
    Error::Missing { what, command: command(row) }
}

/// What a person can do without us, and the run that takes the result.
fn command(row: &Row) -> String {
    let (name, debian) = (row.name, row.debian);
    format!(
        "fetch Debian's kernel for {debian} by hand (from 6.12 on; up to Debian 13 linux-image-VERSION-\
         {debian}, later linux-binary-VERSION-{debian} and linux-modules-VERSION-{debian}), then \
         cargo qemu bench --peer linux --arch {name} --kernel FILE.deb [--kernel FILE.deb]"
    )
}

/// Takes a kernel that the user gave; `None` if it has no driver.
fn given(host: &dyn Host, row: &Row, wish: Wish<'_>) -> Result<Option<Kernel>, Error> {
    let root = wish.folder.join("given");
    let action = || Error::io(format!("make {}", root.display()));
    if root.exists() {
        fs::remove_dir_all(&root).map_err(action())?;
    }
    fs::create_dir_all(&root).map_err(action())?;
    let mut folder = None;
    for path in wish.given {
        if !path.exists() {
            return Err(missing(row, format!("there is no {}", path.display())));
        }
        if path.is_dir() {
            folder = Some(path);
        } else if let Err(why) = packages::unpack(host, path, &root)? {
            return Err(missing(row, why));
        }
    }
    let kernel = match (folder, wish.given) {
        (None, _) => in_folder(&root)?,
        (Some(folder), [_]) => in_folder(folder)?,
        _ => return Err(Error::Usage("--kernel takes packages, or one folder".into())),
    };
    Ok(kernel.modules.has(DRIVER).then_some(kernel))
}

/// Looks into a folder that is like the root of a system with one kernel.
fn in_folder(root: &Path) -> Result<Kernel, Error> {
    let mut found = Vec::new();
    for place in ["lib/modules", "usr/lib/modules"] {
        let Ok(entries) = fs::read_dir(root.join(place)) else { continue };
        found.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    // `lib` may be a link to `usr/lib`.
    found.sort();
    found.dedup_by_key(|path| path.file_name().map(ToOwned::to_owned));
    let [folder] = &found[..] else {
        return Err(Error::Failed(format!(
            "{} has modules of {} kernels; one is needed",
            root.display(),
            found.len()
        )));
    };
    let release = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let places = [root.join(format!("boot/vmlinuz-{release}")), folder.join("vmlinuz")];
    let image = places.into_iter().find(|place| place.is_file()).ok_or_else(|| {
        Error::Failed(format!("{} has modules of Linux {release}, but no vmlinuz", root.display()))
    })?;
    Ok(Kernel { modules: Modules::find(folder)?, release, image })
}

/// The module that drives a virtio-iommu.
const DRIVER: &str = "virtio_iommu";
/// The suite whose kernel is the newest.
const NEWEST: &str = "unstable";

#[cfg(test)]
mod tests {
    use super::super::row;
    use super::*;
    use crate::setup::fake::FakeHost;
    use crate::testelf::Scratch;

    fn put(root: &Path, file: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("in a folder")).expect("makes folders");
        fs::write(path, b"x").expect("writes");
    }

    fn wish<'a>(folder: &'a Path, given: &'a [PathBuf]) -> Wish<'a> {
        Wish { given, suite: None, no_setup: false, folder }
    }

    fn refusal(host: &dyn Host, wish: Wish<'_>) -> String {
        let error = obtain(host, row::ALL[0], wish).map(|_| ()).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
        let text = error.to_string();
        assert!(text.contains("--peer linux") && text.contains("--kernel FILE"), "{text}");
        text
    }

    #[test]
    fn a_folder_with_a_kernel_is_taken_without_running_anything() {
        for (image, modules) in [
            ("boot/vmlinuz-9.1", "lib/modules/9.1/kernel/virtio-iommu.ko"),
            ("usr/lib/modules/9.1/vmlinuz", "usr/lib/modules/9.1/kernel/virtio-iommu.ko.xz"),
        ] {
            let dir = Scratch::new();
            let root = dir.path().join("kernel");
            put(&root, image);
            put(&root, modules);
            let host = FakeHost::user();
            let given = [root.clone()];
            let kernel = obtain(&host, row::ALL[0], wish(dir.path(), &given)).expect("a kernel");
            assert_eq!((&*kernel.release, kernel.image), ("9.1", root.join(image)));
            assert!(host.commands().is_empty());
        }
    }

    #[test]
    fn packages_that_are_given_are_unpacked_and_nothing_is_fetched() {
        let dir = Scratch::new();
        let host = FakeHost::user().program("dpkg-deb");
        let given = ["a.deb", "b.deb"].map(|name| dir.path().join(name));
        given.iter().for_each(|path| fs::write(path, b"").expect("writes"));
        // The made-up dpkg-deb unpacks nothing.
        let error = obtain(&host, row::ALL[0], wish(dir.path(), &given)).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("modules of 0 kernels"), "{error}");
        let unpacked = |name| format!("dpkg-deb -x {0}/{name} {0}/given", dir.path().display());
        assert_eq!(host.commands(), [unpacked("a.deb"), unpacked("b.deb")]);
    }

    #[test]
    fn what_is_missing_is_exit_3_with_the_command() {
        let dir = Scratch::new();
        let nothing = [dir.path().join("no-such.deb")];
        let host = FakeHost::root();
        assert!(refusal(&host, wish(dir.path(), &nothing)).contains("no-such.deb"));
        assert!(refusal(&host, wish(dir.path(), &[])).contains("this system has no apt-get"));
        let no_setup = Wish { no_setup: true, ..wish(dir.path(), &[]) };
        assert!(refusal(&host, no_setup).contains("--no-setup fetches none"));

        put(&dir.path().join("old"), "boot/vmlinuz-6.1");
        put(&dir.path().join("old"), "lib/modules/6.1/kernel/vfio.ko");
        let old = [dir.path().join("old")];
        assert!(refusal(&host, wish(dir.path(), &old)).contains("no driver for a virtio-iommu"));
        assert!(host.commands().is_empty());
    }

    #[test]
    fn a_release_whose_kernel_lacks_the_driver_gives_way_to_the_newest() {
        let dir = Scratch::new();
        let old = dir.path().join("configured/root");
        put(&old, "boot/vmlinuz-6.1");
        put(&old, "lib/modules/6.1/kernel/vfio.ko");
        let new = dir.path().join("unstable/root");
        put(&new, "usr/lib/modules/9.1/vmlinuz");
        put(&new, "usr/lib/modules/9.1/kernel/virtio-iommu.ko.xz");
        let marks = ["configured", "unstable"].map(|suite| dir.path().join(suite).join("complete"));
        let [first, second] = marks;
        let host = FakeHost::user().file(first).file(second);
        let kernel = obtain(&host, row::ALL[0], wish(dir.path(), &[])).expect("a kernel");
        assert_eq!(kernel.release, "9.1");
        assert!(host.said().contains("Linux 6.1 has no driver"));
        let configured = Wish { suite: Some("unstable"), ..wish(dir.path(), &[]) };
        assert_eq!(obtain(&host, row::ALL[0], configured).expect("a kernel").release, "9.1");
    }

    #[test]
    fn a_folder_without_an_image_or_with_two_kernels_is_named() {
        let dir = Scratch::new();
        put(dir.path(), "lib/modules/9.1/kernel/virtio-iommu.ko");
        let text = |root: &Path| in_folder(root).map(|_| ()).unwrap_err().to_string();
        assert!(text(dir.path()).contains("no vmlinuz"));
        put(dir.path(), "usr/lib/modules/9.2/kernel/virtio-iommu.ko");
        assert!(text(dir.path()).contains("modules of 2 kernels"));
    }
}
