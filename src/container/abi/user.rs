//! `UserMemory`: how the host reaches the memory of the program that made the call.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::errno::Errno;

/// An access to user memory that failed: nothing is mapped there, not with this permission, or the
/// bytes are not the user's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UserFault;

/// The memory of the calling program. The host implements it (Linux: `copy_from_user`,
/// `copy_to_user`, `access_ok`).
///
/// Every address and length comes from the program and may be anything: no alignment, and ranges
/// that wrap. No lock of this crate is held while one of these works, so it may block.
pub trait UserMemory {
    /// Fills `into` with the bytes from `address` on.
    ///
    /// # Errors
    ///
    /// [`UserFault`] unless every byte was read; `into` may then hold anything.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), UserFault>;

    /// Puts `from` at `address`.
    ///
    /// # Errors
    ///
    /// [`UserFault`] unless every byte was written. Bytes before the one that faulted may have
    /// been; better none.
    fn write(&self, address: u64, from: &[u8]) -> Result<(), UserFault>;

    /// Whether `len` bytes from `address` on can be the user's at all: in the user's half, not
    /// wrapping. They need not be mapped. A `len` of 0 is the host's choice.
    fn is_user_range(&self, address: u64, len: u64) -> bool;

    /// The largest number that an address or size of the host holds. Larger ones in a structure are
    /// `EOVERFLOW` (rules T1-262, T1-355, T1-422); never met on a 64-bit host.
    fn native_max(&self) -> u64 {
        usize::MAX as u64
    }
}

impl<U: UserMemory + ?Sized> UserMemory for &U {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), UserFault> {
        (**self).read(address, into)
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), UserFault> {
        (**self).write(address, from)
    }

    fn is_user_range(&self, address: u64, len: u64) -> bool {
        (**self).is_user_range(address, len)
    }

    fn native_max(&self) -> u64 {
        (**self).native_max()
    }
}

/// The structure at `address + offset`. `EFAULT` if a byte of it can't be read.
pub(super) fn fetch<T: FromBytes + IntoBytes>(
    user: &(impl UserMemory + ?Sized),
    address: u64,
    offset: u64,
) -> Result<T, Errno> {
    let mut value = T::new_zeroed();
    user.read(place(address, offset)?, value.as_mut_bytes())?;
    Ok(value)
}

/// Puts a structure at `address + offset`. `EFAULT` if a byte of it can't be written.
pub(super) fn store<T: IntoBytes + Immutable>(
    user: &(impl UserMemory + ?Sized),
    address: u64,
    offset: u64,
    value: &T,
) -> Result<(), Errno> {
    Ok(user.write(place(address, offset)?, value.as_bytes())?)
}

/// `address + offset`; past the end of the address space nothing is mapped.
pub(super) fn place(address: u64, offset: u64) -> Result<u64, UserFault> {
    address.checked_add(offset).ok_or(UserFault)
}

/// Refuses numbers that the host's own types don't hold.
pub(super) fn native(user: &(impl UserMemory + ?Sized), numbers: &[u64]) -> Result<(), Errno> {
    let max = user.native_max();
    if numbers.iter().any(|&number| number > max) { Err(Errno::OVERFLOW) } else { Ok(()) }
}
