//! Why a VIOT is refused.

use core::fmt;

use crate::error::errno;

/// What is wrong with a table. Nothing of it is used then: which devices are behind an IOMMU is not
/// a thing to guess. All are `EINVAL`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ViotError {
    /// The bytes don't begin with `VIOT`.
    Signature,
    /// The table's length is below that of its header, or there are fewer bytes.
    Length {
        /// What the table says.
        told: u32,
        /// How many bytes there are.
        have: usize,
    },
    /// The bytes don't add up to 0.
    Checksum,
    /// A node would begin inside the header, or outside the table.
    NodeOffset {
        /// Where, in bytes from the table's start.
        offset: usize,
    },
    /// A node is shorter than its kind needs, or ends outside the table.
    NodeLength {
        /// Where it begins, in bytes from the table's start.
        offset: usize,
        /// What it says of its length.
        length: u16,
    },
}

impl ViotError {
    /// The stable errno of every variant, `EINVAL`.
    #[must_use]
    pub const fn errno(self) -> i32 {
        errno::EINVAL
    }
}

impl fmt::Display for ViotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature => f.write_str("no VIOT: pass the whole table, header included"),
            Self::Length { told, have } => {
                write!(f, "VIOT says it has {told} bytes, {have} are there, and 48 are the least")
            }
            Self::Checksum => f.write_str(
                "the bytes of VIOT don't add up to 0: was it read whole, and unchanged?",
            ),
            Self::NodeOffset { offset } => {
                write!(f, "broken firmware: no node of VIOT can begin at offset {offset}")
            }
            Self::NodeLength { offset, length } => write!(
                f,
                "broken firmware: the node of VIOT at offset {offset} can't have {length} bytes"
            ),
        }
    }
}

impl core::error::Error for ViotError {}
