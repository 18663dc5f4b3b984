//! The `edu`: its transfers, and its interrupt message.

use iommu::fault::Access;
use iommu::platform::Platform;
use iommu::prot::Prot;
use iommu_cases::matrix::Need;
use iommu_runtime::edu::{Direction, Edu};

use super::{Engine, LIMIT_NS, Wait, Yard};
use crate::machine::PLATFORM;

/// Transfers, which take 100 ms each.
pub struct EduEngine {
    edu: Edu,
    yard: Yard<1>,
}

/// Seed of what the device has in its buffer to write.
const SEED: u8 = 77;

impl EduEngine {
    /// Takes the device.
    #[must_use]
    pub fn new(edu: Edu, number: u64) -> Self {
        Self { edu, yard: Yard::new(number, [Prot::RW]) }
    }

    fn transfer(&self, direction: Direction, iova: u64, len: usize) -> bool {
        let started = self.edu.start(direction, iova, len);
        let deadline = PLATFORM.now_ns() + LIMIT_NS;
        started.and_then(|()| self.edu.finish(|| PLATFORM.now_ns(), deadline)).is_ok()
    }
}

impl Engine for EduEngine {
    fn needs(&self) -> &[Need] {
        &self.yard.needs
    }

    fn first(&self, iova: u64) -> u64 {
        iova
    }

    fn run(&mut self, access: Access, iova: u64, len: usize, _: &mut Wait<'_>) -> bool {
        let reads = access == Access::READ;
        let direction = if reads { Direction::FromMemory } else { Direction::ToMemory };
        self.transfer(direction, iova, len)
    }

    fn written(&self, at: usize) -> Option<u8> {
        Some(SEED + at as u8)
    }

    fn show(&mut self, len: usize) -> bool {
        self.transfer(Direction::ToMemory, self.yard.iova(0), len)
    }

    fn shown(&self, at: usize) -> u8 {
        self.yard.byte(0, at)
    }

    fn prepare(&mut self) {
        let bytes: [u8; 64] = core::array::from_fn(|at| SEED + at as u8);
        self.yard.put(0, 0, &bytes);
        assert!(self.transfer(Direction::FromMemory, self.yard.iova(0), bytes.len()));
    }
}

/// Interrupt messages, which are there at once.
pub struct MessageEngine {
    edu: Edu,
}

/// What a message consists of; its upper half is always 0.
const VALUE: u16 = 0x5aa5;

impl MessageEngine {
    /// Takes the device.
    #[must_use]
    pub fn new(edu: Edu) -> Self {
        Self { edu }
    }
}

impl Engine for MessageEngine {
    fn needs(&self) -> &[Need] {
        &[]
    }

    fn first(&self, iova: u64) -> u64 {
        iova
    }

    fn run(&mut self, _: Access, iova: u64, _: usize, _: &mut Wait<'_>) -> bool {
        self.edu.poke(iova, VALUE).is_ok()
    }

    fn written(&self, at: usize) -> Option<u8> {
        u32::from(VALUE).to_le_bytes().get(at).copied()
    }

    fn show(&mut self, _: usize) -> bool {
        false // a message reads nothing
    }

    fn shown(&self, _: usize) -> u8 {
        0
    }
}
