//! The test device `edu`, which the library drives: it is a probe of its self-test.

pub use iommu::selftest::edu::{Direction, EduError, EduProbe, IDS, MAX_TRANSFER};

use crate::pci::Config;

/// One device on this machine's PCI.
pub type Edu = iommu::selftest::edu::Edu<Config>;
