//! What PVH hands over: a structure with the memory map, the arguments and the ACPI root pointer.
#![expect(unsafe_code, reason = "reads memory that the firmware wrote")]

use iommu_runtime::acpi::Tables;
use iommu_runtime::firmware::{Description, Missing, PciHost, Span, Topology, root_buses};
use spin::Once;

use crate::board;

/// The start info, and the memory map that it leads to.
#[derive(Clone, Copy)]
struct Handed {
    info: &'static [u8],
    map: &'static [u8],
}

static HANDED: Once<Handed> = Once::new();

const MAGIC: u32 = 0x336e_c578;
/// Version 1 begins to have a memory map.
const INFO_LEN: usize = 56;
const VERSION: usize = 4;
const ARGUMENTS: usize = 24;
const RSDP: usize = 32;
const MAP: usize = 40;
const ENTRIES: usize = 48;
const ENTRY_LEN: usize = 24;
const MAX_ENTRIES: usize = 128;
const MAX_ARGUMENTS: usize = 1024;
const RAM: u32 = 1;
/// The firmware keeps the memory below for itself, whatever the map says; so do we.
const FIRMWARE_END: u64 = 0x10_0000;

/// Keeps the start info at `info`, whose memory map is needed to read anything else.
pub fn keep(info: u64) {
    let Some(info) = low(info, INFO_LEN) else { return };
    if word(info, 0) != Some(MAGIC) || word(info, VERSION).is_none_or(|version| version < 1) {
        return;
    }
    let count = word(info, ENTRIES).map_or(0, |count| (count as usize).min(MAX_ENTRIES));
    let Some(map) = long(info, MAP).and_then(|at| low(at, count * ENTRY_LEN)) else { return };
    HANDED.call_once(|| Handed { info, map });
}

/// Reads what the firmware tells.
///
/// # Errors
///
/// [`Missing`] names what it does not tell.
pub fn describe() -> Result<Description<'static>, Missing> {
    let handed = HANDED.get().ok_or(Missing::Description)?;
    let image = board::IMAGE_START as u64;
    let memory = handed.ram().find(|span| span.contains(image)).ok_or(Missing::Memory)?;
    let rsdp = long(handed.info, RSDP).unwrap_or_default();
    let tables = Tables::new(rsdp, firmware).ok_or(Missing::Description)?;
    let arguments = handed.arguments();
    let ecam = tables.ecam().or_else(|| ecam_of(arguments)).ok_or(Missing::PciHost)?;
    let viot = tables.viot();
    let roots = viot.as_ref().map_or_else(Default::default, root_buses);
    let host = PciHost { ecam, window: window(ecam), roots };
    let topology = viot.map_or(Topology::Untold, Topology::Viot);
    Ok(Description { memory, host, arguments, topology, tree: None })
}

/// `pci.ecam=ADDRESS`, in hexadecimal with 0x: where configuration space is on a board whose tables
/// tell it in code for an interpreter only (`microvm`).
fn ecam_of(arguments: &str) -> Option<Span> {
    const ALL_BUSES: u64 = 256 << 20;
    let mut words = arguments.split_ascii_whitespace();
    let address = words.find_map(|word| word.strip_prefix("pci.ecam=0x"))?;
    Some(Span { base: u64::from_str_radix(address, 16).ok()?, len: ALL_BUSES })
}

/// Where BARs can be: what tells it is code for an interpreter (ACPI's `_CRS`), so we know the
/// boards. Configuration space lies before or inside the hole below the interrupt controllers.
fn window(ecam: Span) -> Span {
    let (base, end) = (board::PCI_WINDOW, board::PCI_WINDOW_END);
    let end = if ecam.base > base { end.min(ecam.base) } else { end };
    Span { base, len: end - base }
}

impl Handed {
    fn ram(&self) -> impl Iterator<Item = Span> {
        self.map.chunks_exact(ENTRY_LEN).filter_map(|entry| {
            let span = Span { base: long(entry, 0)?, len: long(entry, 8)? };
            (word(entry, 16)? == RAM).then_some(span)
        })
    }

    fn arguments(&self) -> &'static str {
        let at = long(self.info, ARGUMENTS).unwrap_or_default();
        let bytes = low(at, MAX_ARGUMENTS).unwrap_or_default();
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }
}

/// Memory that belongs to the firmware: below 1 MiB, or not in the map as RAM.
fn firmware(at: u64, len: usize) -> Option<&'static [u8]> {
    if let Some(found) = low(at, len) {
        return Some(found);
    }
    let wanted = Span { base: at, len: len as u64 };
    let handed = HANDED.get()?;
    let is_ours = at < board::IMAGE_END as u64 || handed.ram().any(|ram| ram.overlaps(wanted));
    if is_ours || wanted.end()? > board::DEVICES as u64 {
        return None;
    }
    // SAFETY: mapped one to one, and outside of what the image uses; nobody writes it any more.
    Some(unsafe { core::slice::from_raw_parts(pointer(at), len) })
}

fn low(at: u64, len: usize) -> Option<&'static [u8]> {
    let wanted = Span { base: at, len: len as u64 };
    if at == 0 || wanted.end()? > FIRMWARE_END {
        return None;
    }
    // SAFETY: mapped one to one, not null, below the image; nobody writes it any more.
    Some(unsafe { core::slice::from_raw_parts(pointer(at), len) })
}

fn pointer(at: u64) -> *const u8 {
    core::ptr::with_exposed_provenance(at as usize)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
