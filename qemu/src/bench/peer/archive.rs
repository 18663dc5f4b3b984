//! The first file system of a Linux kernel: a cpio archive of the kind `newc`.
//!
//! The format is a header of fields in hexadecimal, a name and the bytes, each padded to 4; the kernel's
//! document about its buffer format for an initial RAM file system lists the fields.

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    /// Adds a folder. A file in it comes later.
    pub fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    /// Adds a file that can be run.
    pub fn program(&mut self, name: &str, bytes: &[u8]) {
        self.entry(name, 0o100_755, bytes);
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, bytes: &[u8]) {
        self.entry(name, 0o100_644, bytes);
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.count += 1;
        let len = u32::try_from(bytes.len()).expect("a file of less than 4 GiB");
        let name_len = name.len() as u32 + 1;
        // Inode, mode, owner, group, links, time, length, two devices of two numbers, name, checksum.
        let fields = [self.count, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: names, modes and bytes, by the numbers in the headers alone.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |number: usize| {
                let at = 6 + 8 * number;
                let text = str::from_utf8(&bytes[at..at + 8]).expect("hexadecimal");
                usize::from_str_radix(text, 16).expect("hexadecimal")
            };
            let (mode, len, name_len) = (field(1) as u32, field(6), field(11));
            let name = &bytes[110..110 + name_len];
            assert_eq!(name[name_len - 1], 0);
            let name = String::from_utf8_lossy(&name[..name_len - 1]).into_owned();
            let start = (110 + name_len).next_multiple_of(4);
            let content = bytes[start..start + len].to_vec();
            bytes = &bytes[(start + len).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return entries;
            }
            entries.push((name, mode, content));
        }
    }

    #[test]
    fn what_goes_in_comes_out_with_every_padding() {
        let mut archive = Archive::default();
        archive.folder("a");
        for len in 0..6 {
            archive.file(&format!("a/{}", "x".repeat(len)), &vec![7; len]);
        }
        archive.program("init", b"\x7fELF");
        let entries = read(&archive.finish());
        assert_eq!(entries.len(), 8);
        assert_eq!(entries[0], ("a".into(), 0o040_755, vec![]));
        for len in 0..6 {
            assert_eq!(
                entries[len + 1],
                (format!("a/{}", "x".repeat(len)), 0o100_644, vec![7; len])
            );
        }
        assert_eq!(entries[7], ("init".into(), 0o100_755, b"\x7fELF".to_vec()));
    }
}
