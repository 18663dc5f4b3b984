//! The modules of an unpacked kernel, and the order in which some of them must be loaded.
//!
//! A package has no list of dependencies: a machine makes that when it installs the kernel. So each
//! module is asked: its section `.modinfo` names the modules that it needs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use lzma_rust2::XzReader;
use object::{Object, ObjectSection};

use crate::error::Error;

/// Every module of a kernel by its name, with `_` for `-`.
pub struct Modules(BTreeMap<String, PathBuf>);

/// A module to load.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// The bytes of the ELF file.
    pub bytes: Vec<u8>,
}

impl Modules {
    /// Looks into a folder and all below it.
    pub fn find(root: &Path) -> Result<Self, Error> {
        let mut found = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let action = || Error::io(format!("read {}", folder.display()));
            for entry in fs::read_dir(&folder).map_err(action())? {
                let entry = entry.map_err(action())?;
                // Links lead out of the folder, or in circles.
                match entry.file_type().map_err(action())? {
                    kind if kind.is_dir() => folders.push(entry.path()),
                    kind if kind.is_file() => {
                        let name = entry.file_name().to_string_lossy().into_owned();
                        if let Some((name, _)) = name.split_once(".ko") {
                            found.insert(name.replace('-', "_"), entry.path());
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(Self(found))
    }

    /// Tells whether there is such a module.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Reads `wanted` and all that they need, each after what it needs. What is no module is taken for
    /// a part of the kernel.
    ///
    /// # Errors
    ///
    /// When a file can't be read, or is no module.
    pub fn in_order(&self, wanted: &[&str]) -> Result<Vec<Module>, Error> {
        let mut order = Vec::new();
        for name in wanted {
            self.add(name, &mut order, 0)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<Module>, depth: usize) -> Result<(), Error> {
        if order.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let Some(path) = self.0.get(name) else { return Ok(()) };
        if depth > self.0.len() {
            return Err(Error::Failed(format!("the module {name} needs itself")));
        }
        let bytes = read(path)?;
        let needs = needs(&bytes)
            .ok_or_else(|| Error::Failed(format!("{} is not a module of Linux", path.display())))?;
        for need in needs {
            self.add(&need, order, depth + 1)?;
        }
        order.push(Module { name: name.to_owned(), bytes });
        Ok(())
    }
}

/// Reads a module, and unpacks it if need be.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let action = || Error::io(format!("read {}", path.display()));
    let bytes = fs::read(path).map_err(action())?;
    match path.extension().and_then(|kind| kind.to_str()) {
        Some("ko") => Ok(bytes),
        Some("xz") => {
            let mut unpacked = Vec::new();
            XzReader::new(&*bytes, true).read_to_end(&mut unpacked).map_err(action())?;
            Ok(unpacked)
        }
        _ => Err(Error::Failed(format!(
            "{} is packed in a way that is not known here: .ko and .ko.xz are",
            path.display()
        ))),
    }
}

/// Returns the names of the modules that a module needs; `None` if it is none.
fn needs(elf: &[u8]) -> Option<Vec<String>> {
    let file = object::File::parse(elf).ok()?;
    let section = file.section_by_name(".modinfo")?;
    let info = section.data().ok()?;
    let texts = info.split(|byte| *byte == 0);
    let list = texts.filter_map(|text| text.strip_prefix(b"depends=")).next()?;
    let names = list.split(|byte| *byte == b',').filter(|name| !name.is_empty());
    Some(names.map(|name| String::from_utf8_lossy(name).replace('-', "_")).collect())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::testelf::Scratch;
    use object::write::Object;
    use object::{Architecture, BinaryFormat, Endianness, SectionKind};

    /// Returns a module that needs `list`.
    pub fn module(list: &str) -> Vec<u8> {
        let mut elf = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let info = elf.add_section(vec![], b".modinfo".to_vec(), SectionKind::ReadOnlyData);
        let text = format!("license=x\0depends={list}\0name=y\0");
        elf.append_section_data(info, text.as_bytes(), 1);
        elf.write().expect("a small ELF file")
    }

    fn put(dir: &Scratch, path: &str, bytes: &[u8]) {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("in a folder")).expect("makes folders");
        fs::write(path, bytes).expect("writes");
    }

    fn names(modules: &Modules, wanted: &[&str]) -> Vec<String> {
        let order = modules.in_order(wanted).expect("an order");
        order.into_iter().map(|module| module.name).collect()
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let dir = Scratch::new();
        put(&dir, "drivers/vfio/vfio.ko", &module(""));
        put(&dir, "drivers/vfio/vfio_iommu_type1.ko", &module("vfio"));
        put(&dir, "drivers/vfio/pci/vfio-pci-core.ko", &module("vfio,irqbypass"));
        put(&dir, "drivers/vfio/pci/vfio-pci.ko", &module("vfio-pci-core,vfio"));
        put(&dir, "virt/irqbypass.ko", &module(""));
        put(&dir, "modules.order", b"text");
        let modules = Modules::find(dir.path()).expect("a folder");
        assert!(modules.has("vfio_pci") && !modules.has("modules"));
        assert_eq!(
            names(&modules, &["built_in", "vfio_iommu_type1", "vfio_pci", "vfio"]),
            ["vfio", "vfio_iommu_type1", "irqbypass", "vfio_pci_core", "vfio_pci"]
        );
    }

    #[test]
    fn packed_modules_are_unpacked() {
        let dir = Scratch::new();
        put(&dir, "empty.ko.xz", PACKED);
        let modules = Modules::find(dir.path()).expect("a folder");
        let error = modules.in_order(&["empty"]).unwrap_err().to_string();
        assert!(error.contains("empty.ko.xz is not a module"), "{error}");
        assert_eq!(read(&dir.path().join("empty.ko.xz")).expect("unpacks"), b"not a module\n");
    }

    #[test]
    fn modules_that_need_each_other_and_odd_files_are_errors() {
        let dir = Scratch::new();
        put(&dir, "a.ko", &module("b"));
        put(&dir, "b.ko", &module("a"));
        put(&dir, "odd.ko.lz9", b"");
        put(&dir, "broken.ko.xz", b"no xz");
        let modules = Modules::find(dir.path()).expect("a folder");
        let text = |name: &str| modules.in_order(&[name]).unwrap_err().to_string();
        assert!(text("a").contains("needs itself"));
        assert!(text("odd").contains("not known here"));
        assert!(text("broken").contains("broken.ko.xz"));
    }

    /// `not a module` and a newline, by `xz --check=crc32`.
    #[rustfmt::skip]
    const PACKED: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x00, 0x21, 0x01,
        0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x0c, 0x6e, 0x6f, 0x74, 0x20, 0x61,
        0x20, 0x6d, 0x6f, 0x64, 0x75, 0x6c, 0x65, 0x0a, 0x00, 0x00, 0x00, 0x00, 0x34, 0xe3, 0x6d, 0x88,
        0x00, 0x01, 0x21, 0x0d, 0x75, 0xdc, 0xa8, 0xd2, 0x90, 0x42, 0x99, 0x0d, 0x01, 0x00, 0x00, 0x00,
        0x00, 0x01, 0x59, 0x5a,
    ];
}
