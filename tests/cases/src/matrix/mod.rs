//! The matrix of refused DMA: situations in which a device must reach nothing, or not there, times
//! kinds of devices.
//!
//! A situation is one function over a [`Stage`]; it knows nothing of the device, and says where an
//! access is refused and where the same access arrives, its control. A kind is what a bench makes
//! of one access ([`Matrix`]). The cases are all pairs that make sense: [`rows`].
//!
//! - `stage`: what situations are made of;
//! - `situations`: the situations.

mod situations;
mod stage;

use core::fmt;

use iommu::addr::PhysAddr;
use iommu::fault::Access;
use iommu::prot::Prot;

use crate::bench::{Bench, Outcome, Who};
pub use situations::SITUATIONS;
pub use stage::Stage;

/// What does the DMA, and which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An `edu` reads memory into its buffer.
    EduReads,
    /// An `edu` writes its buffer to memory.
    EduWrites,
    /// A device sends an interrupt message: four bytes, at once.
    Message,
    /// A virtio-rng writes.
    RngWrites,
    /// A virtio-blk reads what it puts on its disk.
    BlkReads,
    /// A virtio-blk writes what is on its disk.
    BlkWrites,
    /// An NVMe reads what it puts on its disk.
    NvmeReads,
    /// An NVMe writes what is on its disk.
    NvmeWrites,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::EduReads,
        Self::EduWrites,
        Self::Message,
        Self::RngWrites,
        Self::BlkReads,
        Self::BlkWrites,
        Self::NvmeReads,
        Self::NvmeWrites,
    ];

    /// Which device it is.
    #[must_use]
    pub fn who(self) -> Who {
        match self {
            Self::EduWrites | Self::Message => Who::One,
            Self::EduReads => Who::Two,
            Self::RngWrites => Who::Rng,
            Self::BlkReads | Self::BlkWrites => Who::Blk,
            Self::NvmeReads | Self::NvmeWrites => Who::Nvme,
        }
    }

    /// Which way.
    #[must_use]
    pub fn access(self) -> Access {
        match self {
            Self::EduReads | Self::BlkReads | Self::NvmeReads => Access::READ,
            _ => Access::WRITE,
        }
    }

    /// How many bytes. Never more than a page.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "every access has bytes")]
    pub fn len(self) -> u64 {
        match self {
            Self::Message => 4,
            Self::EduReads | Self::EduWrites | Self::RngWrites => 64,
            Self::BlkReads | Self::BlkWrites | Self::NvmeReads | Self::NvmeWrites => 512,
        }
    }
}

/// The word in the name of a case.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EduReads => "edu_reads",
            Self::EduWrites => "edu_writes",
            Self::Message => "message",
            Self::RngWrites => "rng_writes",
            Self::BlkReads => "blk_reads",
            Self::BlkWrites => "blk_writes",
            Self::NvmeReads => "nvme_reads",
            Self::NvmeWrites => "nvme_writes",
        })
    }
}

/// A piece of memory that a device needs beside its target: its queues, and where it shows what it
/// has read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need {
    /// Where the device looks for it.
    pub iova: u64,
    /// Where it is.
    pub phys: PhysAddr,
    /// How many pages.
    pub pages: u64,
    /// What the device does there.
    pub prot: Prot,
}

/// What an access is aimed at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// At no memory.
    Nothing,
    /// At this memory, all of it.
    Memory(PhysAddr),
    /// The first bytes at this memory, the others at none. What comes of the first is the device's
    /// affair: some do nothing if they can't do all.
    Part(PhysAddr, u64),
}

/// A bench whose devices do one access at a time, of a kind.
pub trait Matrix: Bench {
    /// Calls `each` with what the device needs.
    fn needs(&self, kind: Kind, each: &mut dyn FnMut(Need));

    /// Where a device to which nothing is mapped is refused when it is to access `iova`: there, or
    /// at its own queue before.
    fn first(&self, kind: Kind, iova: u64) -> u64;

    /// Lets the device access [`Kind::len`] bytes from `iova` on. Arrived means: all of them, at
    /// what it was aimed at, and nowhere else; of a read, that the device shows them, if
    /// [`Aim::Memory`]. Takes the fault records of the device's unit.
    fn access(&self, kind: Kind, iova: u64, aim: Aim) -> Outcome;

    /// Whether the device, all of whose needs are mapped, shows something that it was not to read.
    fn tells(&self, kind: Kind) -> bool;

    /// Lets the device try, when there is nobody to record a refusal. True if nothing came of it.
    fn tries_in_vain(&self, kind: Kind, iova: u64) -> bool;

    /// Makes the unit of a device stop answering, so that its driver gives it up.
    fn silence(&self, who: Who);

    /// Starts all units anew, with every device in its group. No handle of theirs is left.
    fn renew(&mut self);
}

const _: Option<&dyn Matrix> = None; // situations take any bench

/// A situation: a row of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// The word in the name of a case.
    pub name: &'static str,
    /// Which kinds it makes sense for.
    pub fits: fn(Kind) -> bool,
    /// Plays it. It panics with what it saw.
    pub run: fn(&mut Stage<'_>),
}

/// All cases: each situation with each kind that it makes sense for.
pub fn rows() -> impl Iterator<Item = (&'static Situation, Kind)> {
    SITUATIONS.iter().flat_map(|situation| {
        let kinds = Kind::ALL.into_iter().filter(|kind| (situation.fits)(*kind));
        kinds.map(move |kind| (situation, kind))
    })
}

/// Plays a case, from a clean bench to a clean bench.
///
/// # Panics
///
/// When the case fails, when it leaves memory behind, or when there is no such case.
pub fn run(bench: &mut dyn Matrix, situation: &str, kind: Kind) {
    let mut found = rows().filter(|row| row.0.name == situation && row.1 == kind);
    let (row, _) = found.next().expect("the matrix has the case");
    let before = crate::clean(bench);
    (row.run)(&mut Stage::new(bench, kind));
    crate::look_after(bench, before);
}
