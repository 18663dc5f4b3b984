//! Reads an image's ELF file and turns the frames that the image writes into lines of text.

use std::path::{Path, PathBuf};

use defmt_decoder::{DecodeError, Locations, StreamDecoder, Table};
use object::read::elf::{ElfFile64, FileHeader};
use object::{Object, ObjectSection, ObjectSymbol};

use crate::error::Error;
use crate::rebase;

/// What the host knows about an image before it runs.
pub struct Image {
    /// The ELF file.
    pub path: PathBuf,
    /// ELF's number of the architecture.
    pub e_machine: u16,
    /// Names of its defmt-test cases; empty if it is not a test image.
    pub cases: Vec<String>,
    /// How many cases defmt-test counted (`DEFMT_TEST_COUNT`), if the symbol was kept.
    pub test_count: Option<u64>,
    table: Table,
    locations: Locations,
}

/// One message of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// `error`, `warn`, `info`, `debug`, `trace`; `None` for a plain print.
    pub level: Option<&'static str>,
    /// The message.
    pub text: String,
    /// `file:line` in the source, where the debug information tells.
    pub location: Option<String>,
}

impl Image {
    /// Reads the file. Source files under `root` are shown relative to it.
    pub fn load(path: &Path, root: &Path) -> Result<Self, Error> {
        let mut bytes =
            std::fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
        rebase::to_zero(&mut bytes);
        let wrong = |why: String| Error::Failed(format!("{} {why}", path.display()));
        let elf = ElfFile64::<object::Endianness>::parse(&*bytes)
            .map_err(|error| wrong(format!("is not a 64-bit ELF image: {error}")))?;
        let table = Table::parse(&bytes)
            .map_err(|error| wrong(format!("has a defmt table that can't be read: {error}")))?
            .ok_or_else(|| wrong("has no defmt table; is `-Tdefmt.x` missing?".into()))?;
        // Places are a help only: an image without debug information is as good.
        let mut locations = table.get_locations(&bytes).unwrap_or_default();
        for place in locations.values_mut() {
            if let Ok(relative) = place.file.strip_prefix(root) {
                place.file = relative.to_owned();
            }
        }
        Ok(Self {
            path: path.to_owned(),
            e_machine: elf.elf_header().e_machine(elf.endian()),
            cases: cases(&table),
            test_count: test_count(&elf),
            table,
            locations,
        })
    }

    /// Returns the file name without cargo's hash.
    pub fn name(&self) -> String {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match stem.rsplit_once('-') {
            Some((name, hash))
                if hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()) =>
            {
                name.to_owned()
            }
            _ => stem,
        }
    }

    /// Returns how many cases must run, or `None` if this is not a test image.
    ///
    /// Two witnesses: the symbol can be dropped by a linker that collects garbage, the format strings
    /// can't, because each is used by the code that announces its case.
    pub fn expected(&self) -> Option<u64> {
        let named = u64::try_from(self.cases.len()).unwrap_or(u64::MAX);
        match self.test_count {
            Some(count) => Some(count.max(named)),
            None if named > 0 => Some(named),
            None => None,
        }
    }

    /// Starts to decode what a run of this image writes.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder {
            image: self,
            stream: self.table.new_stream_decoder(),
            bad: 0,
            tail: Vec::new(),
            is_text: false,
        }
    }
}

/// Decodes one run of an image.
pub struct Decoder<'i> {
    image: &'i Image,
    stream: Box<dyn StreamDecoder + Send + Sync + 'i>,
    bad: u64,
    /// Bytes after the last frame separator: an unfinished frame, or text that is none.
    tail: Vec<u8>,
    /// Whether text of firmware comes, up to the first separator.
    is_text: bool,
}

impl Decoder<'_> {
    /// Drops what comes before the first frame separator: what firmware says. If there is no more, it
    /// is what is unfinished.
    pub fn skip_text(&mut self) {
        self.is_text = true;
    }

    /// Takes what arrived, returns the messages that are complete now.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let end = bytes.iter().position(|byte| *byte == 0);
        let bytes = match (self.is_text, end) {
            (true, Some(end)) => &bytes[end + 1..],
            _ => bytes,
        };
        self.is_text &= end.is_none();
        match bytes.iter().rposition(|byte| *byte == 0) {
            Some(at) => self.tail = bytes[at + 1..].to_vec(),
            None if self.tail.len() < MAX_TAIL => self.tail.extend_from_slice(bytes),
            None => {}
        }
        if self.is_text {
            return Vec::new();
        }
        self.stream.received(bytes);
        let mut lines = Vec::new();
        loop {
            match self.stream.decode() {
                Ok(frame) => lines.push(Line {
                    level: frame.level().map(|level| level.as_str()),
                    text: frame.display_message().to_string(),
                    location: self
                        .image
                        .locations
                        .get(&frame.index())
                        .map(|place| format!("{}:{}", place.file.display(), place.line)),
                }),
                Err(DecodeError::UnexpectedEof) => return lines,
                Err(DecodeError::Malformed) => self.bad += 1,
            }
        }
    }

    /// Returns how many frames could not be decoded.
    pub fn bad_frames(&self) -> u64 {
        self.bad
    }

    /// Returns the bytes after the last whole frame, as text.
    pub fn unfinished(&self) -> Option<String> {
        (!self.tail.is_empty())
            .then(|| String::from_utf8_lossy(&self.tail).escape_debug().collect())
    }
}

/// Splits the line with which defmt-test announces a case: number, total, name, and whether it is one
/// of those whose result is ignored.
pub fn announced_case(text: &str) -> Option<(u64, u64, &str, bool)> {
    let (numbers, rest) = text.strip_prefix('(')?.split_once(") ")?;
    let (number, total) = numbers.split_once('/')?;
    let (name, ignored) = case_name(rest)?;
    Some((number.parse().ok()?, total.parse().ok()?, name, ignored))
}

/// DMA that an image has judged, on real devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dma {
    /// Accesses that arrived where they should.
    pub arrived: u64,
    /// Accesses that were refused, and seen to be.
    pub refused: u64,
}

/// Reads the line with which a test image reports its DMA at the end.
pub fn reported_dma(text: &str) -> Option<Dma> {
    let (arrived, refused) = text.strip_prefix("dma: ")?.split_once(" arrived, ")?;
    let refused = refused.strip_suffix(" refused")?;
    Some(Dma { arrived: arrived.parse().ok()?, refused: refused.parse().ok()? })
}

fn case_name(rest: &str) -> Option<(&str, bool)> {
    let (rest, ignored) = match rest.strip_prefix("running `") {
        Some(rest) => (rest, false),
        None => (rest.strip_prefix("ignoring `")?, true),
    };
    Some((rest.strip_suffix("`...")?, ignored))
}

/// Finds the format strings with which defmt-test announces its cases.
fn cases(table: &Table) -> Vec<String> {
    let announcement = |symbol: &str| {
        let symbol: serde_json::Value = serde_json::from_str(symbol).ok()?;
        if symbol.get("tag")? != "defmt_println" {
            return None;
        }
        let rest = symbol.get("data")?.as_str()?.strip_prefix("({=usize}/{=usize}) ")?;
        case_name(rest).map(|(name, _)| name.to_owned())
    };
    table.raw_symbols().filter_map(announcement).collect()
}

fn test_count(elf: &ElfFile64<'_>) -> Option<u64> {
    let symbol = elf.symbols().find(|symbol| symbol.name() == Ok("DEFMT_TEST_COUNT"))?;
    let section = elf.section_by_index(symbol.section_index()?).ok()?;
    let bytes = section.data_range(symbol.address(), 8).ok()??;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// How much of an unfinished frame is kept to be shown.
const MAX_TAIL: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testelf::{Scratch, TestImage};

    fn load(test: &TestImage) -> Image {
        Image::load(&test.path, Path::new("/w")).expect("the made-up image is valid")
    }

    #[test]
    fn a_plain_print_has_no_level() {
        let test = TestImage::new(&[]);
        let lines = load(&test).decoder().feed(&test.print("skipped: x"));
        let expected = Line { text: "skipped: x".into(), ..Line::default() };
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn frames_become_lines_however_they_are_cut() {
        let test = TestImage::new(&["alpha", "beta"]);
        let image = load(&test);
        let bytes = [test.running(1), test.log("error", "out of luck"), test.all_passed()].concat();
        for size in [1, 3, bytes.len()] {
            let mut decoder = image.decoder();
            let lines: Vec<_> = bytes.chunks(size).flat_map(|part| decoder.feed(part)).collect();
            let texts: Vec<_> = lines.iter().map(|line| (line.level, &*line.text)).collect();
            let expected = [
                (None, "(1/2) running `alpha`..."),
                (Some("error"), "out of luck"),
                (None, "dma: 7 arrived, 5 refused"),
                (None, "all tests passed!"),
            ];
            assert_eq!(texts, expected);
            assert_eq!((decoder.bad_frames(), decoder.unfinished()), (0, None));
        }
    }

    #[test]
    fn an_image_tells_its_cases_before_it_runs() {
        let image = load(&TestImage::new(&["alpha", "beta"]));
        assert_eq!(image.cases, ["alpha", "beta"]);
        assert_eq!(image.test_count, Some(2));
        assert_eq!(image.expected(), Some(2));
        assert_eq!(image.e_machine, object::elf::EM_AARCH64);
        let plain = load(&TestImage::new(&[]));
        assert_eq!((plain.expected(), plain.test_count), (None, None));
    }

    #[test]
    fn the_names_count_when_the_linker_dropped_the_symbol() {
        let image = load(&TestImage::without_count(&["alpha", "beta"]));
        assert_eq!((image.test_count, image.expected()), (None, Some(2)));
    }

    #[test]
    fn bytes_that_are_no_frames_are_counted_and_shown() {
        let test = TestImage::new(&[]);
        let image = load(&test);
        let mut decoder = image.decoder();
        assert_eq!(decoder.feed(b"\x01\x02\x03\0"), []);
        assert_eq!(decoder.bad_frames(), 1);
        decoder.feed(b"Data Abort!");
        assert_eq!(decoder.unfinished().as_deref(), Some("Data Abort!"));
        assert_eq!(decoder.feed(&test.log("info", "after")).len(), 0, "still the bad frame");
        assert_eq!(decoder.feed(&test.log("info", "after")).len(), 1, "in step again");
    }

    #[test]
    fn text_of_firmware_is_dropped_up_to_the_first_separator() {
        let test = TestImage::new(&["alpha"]);
        let image = load(&test);
        let text = b"OpenSBI v1\n___\r\n\0";
        let bytes = [text, &*test.running(1), &*test.all_passed()].concat();
        for size in [1, 7, 19, bytes.len()] {
            let mut decoder = image.decoder();
            decoder.skip_text();
            let count = bytes.chunks(size).map(|part| decoder.feed(part).len()).sum::<usize>();
            assert_eq!((decoder.bad_frames(), decoder.unfinished()), (0, None));
            let mut plain = image.decoder();
            assert_eq!(count, plain.feed(&bytes[text.len()..]).len());
            assert!(count > 1);
        }
        let mut decoder = image.decoder();
        decoder.skip_text();
        assert_eq!(decoder.feed(b"OpenSBI v1"), []);
        assert_eq!(decoder.unfinished().as_deref(), Some("OpenSBI v1"));
    }

    #[test]
    fn only_defmt_tests_own_line_announces_a_case() {
        assert_eq!(announced_case("(3/25) running `a_b`..."), Some((3, 25, "a_b", false)));
        assert_eq!(announced_case("(3/25) ignoring `a_b`..."), Some((3, 25, "a_b", true)));
        for text in ["(3/25) done", "running `a`...", "(x/2) running `a`...", "(1/2) running `a`"] {
            assert_eq!(announced_case(text), None, "{text}");
        }
    }

    #[test]
    fn only_a_whole_report_of_dma_is_one() {
        let dma = Dma { arrived: 12, refused: 3 };
        assert_eq!(reported_dma("dma: 12 arrived, 3 refused"), Some(dma));
        for text in ["dma: x arrived, 3 refused", "dma: 12 arrived", "12 arrived, 3 refused"] {
            assert_eq!(reported_dma(text), None, "{text}");
        }
    }

    #[test]
    fn files_that_are_no_images_are_refused_by_name() {
        let dir = Scratch::new();
        let path = dir.path().join("plain.txt");
        std::fs::write(&path, "hello").expect("writes");
        let error = Image::load(&path, dir.path()).err().expect("refused").to_string();
        assert!(error.contains("plain.txt is not a 64-bit ELF image"), "{error}");
        let error =
            Image::load(&dir.path().join("absent"), dir.path()).err().expect("refused").to_string();
        assert!(error.contains("absent"), "{error}");
    }
}
