//! The Linux ABI of type1: what a kernel needs to offer `/dev/vfio/vfio` to unmodified programs.
//!
//! Two halves, each usable alone:
//!
//! 1. the **codec**: [`Command::decode`] turns a request number and its argument into a typed,
//!    checked command, and [`Info::write`], [`Unmap::write_size`], [`UserBitmap`] write the answers. It
//!    needs no container;
//! 2. the **dispatch**: [`ioctl`] answers every request of a container file, [`backend_ioctl`]
//!    those of a backend that is there. What is behind them is a trait each: [`FrontEnd`] and
//!    [`Backend`], implemented for [`Container`](super::Container).
//!
//! User memory is reached through [`UserMemory`] only, four methods that the host implements. What a
//! request means is said in the types of the container: [`MapDma`](super::MapDma),
//! [`UnmapDma`](super::UnmapDma), [`UpdateVaddr`](super::UpdateVaddr), [`DirtyRange`](super::DirtyRange),
//! [`Info`], [`Kind`](super::Kind), [`Extension`](super::Extension).
//!
//! ```
//! use core::cell::RefCell;
//! use iommu::container::abi::{Errno, UserFault, UserMemory, backend_ioctl, request};
//! use iommu::{container::{Container, IdentityMemory, Options}, pool::Pool};
//!
//! /// A program whose memory is 32 bytes at address 0: the structure of MAP_DMA.
//! struct Program(RefCell<[u8; 32]>);
//!
//! impl UserMemory for Program {
//!     fn read(&self, address: u64, into: &mut [u8]) -> Result<(), UserFault> {
//!         let first = usize::try_from(address).map_err(|_| UserFault)?;
//!         let memory = self.0.borrow();
//!         let rest = memory.get(first..).ok_or(UserFault)?;
//!         into.copy_from_slice(rest.get(..into.len()).ok_or(UserFault)?);
//!         Ok(())
//!     }
//!     # fn write(&self, _: u64, _: &[u8]) -> Result<(), UserFault> { Err(UserFault) }
//!     # fn is_user_range(&self, _: u64, _: u64) -> bool { true }
//!     // ...
//! }
//!
//! static POOL: Pool = Pool::heap();
//! let container: Container<_> = Container::new(&POOL, IdentityMemory, Options::default());
//! // argsz and flags, vaddr, IOVA, size:
//! let words = [[32, 3].map(u32::to_ne_bytes).concat(), 0x8000_u64.to_ne_bytes().to_vec(),
//!     0x10_0000_u64.to_ne_bytes().to_vec(), 0x1000_u64.to_ne_bytes().to_vec()].concat();
//! let program = Program(RefCell::new(words.try_into().unwrap()));
//! assert_eq!(backend_ioctl(&container, &program, request::IOMMU_MAP_DMA, 0), Ok(0));
//! let again = backend_ioctl(&container, &program, request::IOMMU_MAP_DMA, 0);
//! assert_eq!(again, Err(Errno::EXIST), "it is mapped already");
//! ```
//!
//! | file | what |
//! |---|---|
//! | `layout.rs` | structures and flags (rules T1-540 to T1-549) |
//! | `request.rs` | request numbers (rules T1-555 to T1-557) |
//! | `user.rs` | [`UserMemory`] |
//! | `command.rs` | decoding, with the order of checks |
//! | `info.rs` | the answer to GET_INFO |
//! | `bitmap.rs` | dirty bitmaps in user memory |
//! | `extension.rs` | numbers of kinds, answers of CHECK_EXTENSION |
//! | `backend.rs`, `dispatch.rs` | the traits, and the way from a request to them |
//! | `container.rs` | [`Backend`] for the container |
//!
//! # What holds everywhere
//!
//! - Of a request that is wrong in two ways the error is that of the check that the rules put first.
//! - A request that is refused has changed nothing, neither user memory nor the backend. Exceptions are
//!   answers that can't be delivered, as in Linux: see [`Unmap::write_size`], [`UserBitmap`], and, for
//!   memory with a hole, [`Info::write`]; and an unmap that ends early, after `EBUSY`, `EIO`, or `EINVAL`
//!   because a mapping came in between: some mappings are gone then, and the program is not told how
//!   many bytes (rule T1-369). The typed call tells it: [`UnmapFailed`](super::UnmapFailed).
//! - Structures may lie at any address: nothing has to be aligned.
//! - Numbers are in the byte order of the host, bitmaps are little-endian (rule T1-435).
//! - No lock is taken here, nothing is allocated, and user memory is reached while none is held.

mod backend;
mod bitmap;
mod command;
mod container;
mod dispatch;
mod errno;
mod extension;
mod info;
mod layout;
pub mod request;
mod user;

pub use backend::{Backend, FrontEnd};
pub use bitmap::{Bitmap, UserBitmap};
pub use command::{Command, GetInfo, Unmap, UnmapMode};
pub use dispatch::{backend_ioctl, ioctl};
pub use errno::Errno;
pub use user::{UserFault, UserMemory};

#[cfg(doc)]
use super::Info;
