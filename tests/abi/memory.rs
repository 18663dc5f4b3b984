//! User memory that ends where a test wants it to, and structures put into it byte by byte.

use std::cell::{Cell, RefCell};

use iommu::container::abi::{Command, Errno, UserFault, UserMemory};

/// Where the memory begins. The user's half ends at `TOP`; nothing else is mapped.
pub const BASE: u64 = 0x7f00_0000;
pub const TOP: u64 = 1 << 47;

/// Some memory of a user, all of it there, read-only from `read_only` on.
pub struct User {
    bytes: RefCell<Vec<u8>>,
    pub read_only: Cell<u64>,
    pub native_max: Cell<u64>,
}

impl User {
    /// `len` bytes from `BASE` on, each 0xA5.
    pub fn new(len: usize) -> Self {
        Self {
            bytes: RefCell::new(vec![0xA5; len]),
            read_only: Cell::new(u64::MAX),
            native_max: Cell::new(u64::MAX),
        }
    }

    /// Memory that has these bytes at `BASE`, and nothing behind them.
    pub fn with(bytes: &[u8]) -> Self {
        let user = Self::new(bytes.len());
        user.put(0, bytes);
        user
    }

    /// Puts bytes at an offset from `BASE`.
    pub fn put(&self, offset: usize, bytes: &[u8]) {
        self.bytes.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Everything, for comparing.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    fn range(&self, address: u64, len: usize) -> Result<(usize, usize), UserFault> {
        let first = address.checked_sub(BASE).ok_or(UserFault)?;
        let first = usize::try_from(first).map_err(|_| UserFault)?;
        let last = first.checked_add(len).ok_or(UserFault)?;
        if last > self.bytes.borrow().len() { Err(UserFault) } else { Ok((first, last)) }
    }
}

impl UserMemory for User {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), UserFault> {
        into.fill(0xEE); // a failed read may leave anything
        let (first, last) = self.range(address, into.len())?;
        into.copy_from_slice(&self.bytes.borrow()[first..last]);
        Ok(())
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), UserFault> {
        let (first, last) = self.range(address, from.len())?;
        if address + from.len() as u64 > self.read_only.get() {
            return Err(UserFault);
        }
        self.bytes.borrow_mut()[first..last].copy_from_slice(from);
        Ok(())
    }

    fn is_user_range(&self, address: u64, len: u64) -> bool {
        address.checked_add(len).is_some_and(|end| end <= TOP)
    }

    fn native_max(&self) -> u64 {
        self.native_max.get()
    }
}

/// Fields one after the other.
#[derive(Clone, Default)]
pub struct Fields(pub Vec<u8>);

impl Fields {
    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
}

/// Decodes a structure that is all there is of user memory; decoding never writes.
pub fn decode(request: u32, fields: &Fields) -> Result<Command, Errno> {
    decode_at(request, fields, 0, |_| {})
}

/// The same, `shift` bytes further on, and with memory that `prepare` changes.
pub fn decode_at(
    request: u32,
    fields: &Fields,
    shift: usize,
    prepare: impl FnOnce(&User),
) -> Result<Command, Errno> {
    let user = User::new(fields.0.len() + shift);
    user.put(shift, &fields.0);
    prepare(&user);
    let before = user.bytes();
    let command = Command::decode(request, BASE + shift as u64, &user);
    assert_eq!(user.bytes(), before, "decoding wrote");
    command
}

/// The first failing check of a list in the order of the rules.
pub fn first(checks: &[(bool, Errno)]) -> Option<Errno> {
    checks.iter().find(|(fails, _)| *fails).map(|(_, errno)| *errno)
}

/// Asserts that the first `needed` bytes of a structure have to be readable: with one byte less it
/// is `EFAULT`, at every length and wherever it lies.
pub fn faults_below(request: u32, fields: &Fields, needed: usize) {
    for len in 0..fields.0.len() {
        let cut = Fields(fields.0[..len].to_vec());
        let result = decode(request, &cut);
        assert_eq!(result == Err(Errno::FAULT), len < needed, "{len} bytes: {result:?}");
    }
    for address in [0, 1, BASE - 1, u64::MAX - 40, u64::MAX - 7, u64::MAX] {
        let user = User::with(&fields.0);
        assert_eq!(Command::decode(request, address, &user), Err(Errno::FAULT), "{address:#x}");
    }
}
