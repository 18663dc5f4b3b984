//! PROBE answers to reserved regions. virtio 1.2 §5.13.6.7, §5.13.6.8; rules C-035, C-277, 11.6.
//!
//! A parser only: no lock, nothing is sent here. Each byte is copied once and then believed only
//! as far as it was checked.

use zerocopy::FromZeros;
use zerocopy::{FromBytes, IntoBytes};

use super::wire::{PROBE_T_RESV_MEM, ProbeProperty, RESV_MEM_T_MSI, RESV_MEM_T_RESERVED, ResvMem};
use crate::addr::{Iova, IovaRange};
use crate::error::ProbeError;
use crate::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use crate::trace::emit;

/// The bits of a property head that are its type.
const TYPE_MASK: u16 = 0xfff;

/// The most properties that we look at; an answer of the usual size has room for 128.
const MAX_PROPERTIES: usize = 1024;

/// The window for doorbells that an endpoint without a hardware window gets (rule C-035).
const SOFTWARE_MSI: IovaRange =
    IovaRange::from_len(Iova(0x0800_0000), 0x10_0000).expect("neither empty nor wrapping");

/// Parses the `len` bytes of properties that `read` copies from, and adds the software window if
/// there is no hardware one.
///
/// # Errors
///
/// `InvalidArg`: a property reaches over the end, a region property is too short, or there is no
/// end of properties. `NoSpace`: too many regions.
pub(super) fn parse(
    len: usize,
    read: impl Fn(usize, &mut [u8]),
) -> Result<ReservedRegions, ProbeError> {
    let mut regions = ReservedRegions::new();
    let mut at = 0;
    let mut left = MAX_PROPERTIES;
    while at + size_of::<ProbeProperty>() <= len {
        left = left.checked_sub(1).ok_or(ProbeError::InvalidArg)?;
        let head: ProbeProperty = copy(at, &read);
        let (kind, value_len) = (head.kind.get(), usize::from(head.len.get()));
        if kind & TYPE_MASK == 0 {
            break;
        }
        at += size_of::<ProbeProperty>();
        if value_len > len - at {
            return Err(ProbeError::InvalidArg);
        }
        // Reserved bits set: the whole property is to be ignored. Any other type: unknown.
        if kind == PROBE_T_RESV_MEM {
            if value_len < size_of::<ResvMem>() {
                return Err(ProbeError::InvalidArg);
            }
            if let Some(region) = region(&copy(at, &read)) {
                regions.add(region).map_err(|_| ProbeError::NoSpace)?;
            }
        }
        at += value_len;
    }
    if !regions.as_slice().iter().any(|region| region.kind == ReservedKind::Msi) {
        let window = ReservedRegion { range: SOFTWARE_MSI, kind: ReservedKind::SoftwareMsi };
        regions.add(window).map_err(|_| ProbeError::NoSpace)?;
    }
    Ok(regions)
}

/// The region of a property, or `None` if it ends before it starts.
fn region(property: &ResvMem) -> Option<ReservedRegion> {
    let (first, last) = (property.start.get(), property.end.get());
    let Some(range) = IovaRange::new(Iova(first), Iova(last)) else {
        emit!(warn, "iommu: reserved region {}..={} ignored", first, last);
        return None;
    };
    let kind = match property.subtype {
        RESV_MEM_T_RESERVED => ReservedKind::Reserved,
        RESV_MEM_T_MSI => ReservedKind::Msi,
        unknown => {
            // Rule C-277: nothing may be mapped there, whatever it is.
            emit!(warn, "iommu: region {}..={} is reserved as kind {}", first, last, unknown);
            ReservedKind::Reserved
        }
    };
    Some(ReservedRegion { range, kind })
}

fn copy<V: FromBytes + IntoBytes + FromZeros>(at: usize, read: &impl Fn(usize, &mut [u8])) -> V {
    let mut value = V::new_zeroed();
    read(at, value.as_mut_bytes());
    value
}
