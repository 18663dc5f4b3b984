//! The memory that is mapped: scattered, contiguous, huge.

use crate::failure::Failure;
use crate::sys::{Memory, PAGE};

/// A part of the memory.
#[derive(Clone, Copy)]
pub struct Part {
    /// Where this program sees it.
    pub address: u64,
    /// Bytes.
    pub len: usize,
}

/// 64 MiB of 4 KiB pages none of which follows its neighbour in physical memory.
pub struct Scattered(Memory);

impl Scattered {
    /// How many pages.
    pub const PAGES: usize = 16_384;

    /// Takes it. The kernel hands out frames in ascending runs, so pages are touched far from each
    /// other one after the other. The tool sees in the number of requests whether it worked.
    pub fn take() -> Result<Self, Failure> {
        /// Odd, so that every page is met; its inverse is far from 1, so that neighbours are not met
        /// in a row.
        const STRIDE: usize = 6151;
        let step = "take 64 MiB of small pages";
        let memory = Memory::take(Self::PAGES * PAGE, PAGE, 0).map_err(Failure::of(step))?;
        memory.want_huge(false).map_err(Failure::of(step))?;
        (0..Self::PAGES).for_each(|at| memory.touch(at * STRIDE % Self::PAGES * PAGE));
        Ok(Self(memory))
    }

    /// All of it.
    pub fn whole(&self) -> Part {
        Part { address: self.0.address(), len: Self::PAGES * PAGE }
    }

    /// One page, by any number.
    pub fn page(&self, number: usize) -> Part {
        let at = number % Self::PAGES * PAGE;
        Part { address: self.0.address() + at as u64, len: PAGE }
    }
}

/// Memory in transparent huge pages of 2 MiB.
pub fn transparent(len: usize) -> Result<Part, Failure> {
    const HUGE: usize = 2 << 20;
    let step = "take memory in pages of 2 MiB";
    let memory = Memory::take(len, HUGE, 0).map_err(Failure::of(step))?;
    memory.want_huge(true).map_err(Failure::of(step))?;
    (0..len / PAGE).for_each(|page| memory.touch(page * PAGE));
    Ok(Part { address: memory.address(), len })
}

/// One page of 1 GiB, set aside when the kernel booted.
pub fn gigantic() -> Result<Part, Failure> {
    const HUGETLB_1G: usize = 0x40000 | 30 << 26;
    const LEN: usize = 1 << 30;
    let memory = Memory::take(LEN, PAGE, HUGETLB_1G);
    let memory = memory.map_err(Failure::of("take a page of 1 GiB"))?;
    memory.touch(0);
    Ok(Part { address: memory.address(), len: LEN })
}
