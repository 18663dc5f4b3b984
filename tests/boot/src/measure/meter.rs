//! Counts what a piece of code costs: instructions of the CPU, requests and notifies of the unit.
//!
//! Each result is one line for the host tool, which knows the words: `bench OP PROVIDER` and numbers.

use heapless::Vec;
use iommu::driver::Counters;
use iommu::instance::Instance;
use iommu::pool::Shared;

use super::watched::Counts;
use crate::arch::{counter, now_ns};

/// The most repetitions of one operation.
pub const MOST: usize = 64;

/// How an operation is named to the host.
#[derive(Clone, Copy)]
pub struct Name {
    /// What is done.
    pub op: &'static str,
    /// `@` and with how much of what is there already, or nothing.
    pub at: &'static str,
    /// How memory is known: `runs`, `pages`, or `-`.
    pub provider: &'static str,
}

impl Name {
    /// An operation that no provider has a part in.
    #[must_use]
    pub const fn of(op: &'static str) -> Self {
        Self { op, at: "", provider: "-" }
    }

    /// The same with how much is there already.
    #[must_use]
    pub const fn at(self, at: &'static str) -> Self {
        Self { at, ..self }
    }

    /// The same with a provider.
    #[must_use]
    pub const fn with(self, provider: &'static str) -> Self {
        Self { provider, ..self }
    }
}

/// What one call cost.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost {
    /// Instructions of this CPU.
    pub instructions: u32,
    /// Requests to the unit.
    pub requests: u32,
    /// Notifies of the unit.
    pub notifies: u32,
    /// Nanoseconds of the machine's clock, which means something without `-icount` only.
    pub ns: u64,
}

/// Costs of one operation, repeated.
#[derive(Default)]
pub struct Costs(Vec<Cost, MOST>);

/// The counters of the CPU and of a unit.
pub struct Meter {
    unit: Shared<Instance>,
    /// What counting costs itself.
    empty: u32,
}

impl Meter {
    /// Starts the counter of the CPU.
    #[must_use]
    pub fn new(unit: &Shared<Instance>) -> Self {
        Self { unit: unit.clone(), empty: overhead() }
    }

    /// Runs `call` once and counts.
    pub fn count<T>(&self, call: impl FnOnce() -> T) -> (T, Cost) {
        let before = self.unit.counters();
        let clock = now_ns();
        let (result, instructions) = instructions(self.empty, call);
        let ns = now_ns().saturating_sub(clock);
        let sent = self.unit.counters().since(&before);
        let notifies = sent.notifies as u32;
        (result, Cost { instructions, requests: requests(&sent), notifies, ns })
    }

    /// Runs `call` and adds what it cost to `costs`.
    pub fn add<T>(&self, costs: &mut Costs, call: impl FnOnce() -> T) -> T {
        let (result, cost) = self.count(call);
        costs.push(cost);
        result
    }
}

/// Runs `call` and counts its instructions, less `empty`.
pub fn instructions<T>(empty: u32, call: impl FnOnce() -> T) -> (T, u32) {
    let start = counter::instructions();
    let result = call();
    let end = counter::instructions();
    (result, end.wrapping_sub(start).saturating_sub(empty))
}

/// What counting costs itself; starts the counter.
#[must_use]
pub fn overhead() -> u32 {
    counter::start();
    let _ = instructions(0, || ());
    instructions(0, || ()).1
}

fn requests(sent: &Counters) -> u32 {
    (sent.attach + sent.detach + sent.map + sent.unmap + sent.probe) as u32
}

impl Costs {
    /// Adds one.
    ///
    /// # Panics
    ///
    /// When there are [`MOST`] already.
    pub fn push(&mut self, cost: Cost) {
        assert!(self.0.push(cost).is_ok(), "more repetitions than there is room for");
    }

    /// Tells the host: the medians, and the least and the most instructions.
    ///
    /// # Panics
    ///
    /// When there is nothing to tell, or the repetitions differ in what they sent.
    pub fn tell(mut self, name: Name) {
        self.0.sort_unstable();
        let median = *self.0.get(self.0.len() / 2).expect("something was measured");
        let same =
            |cost: &Cost| (cost.requests, cost.notifies) == (median.requests, median.notifies);
        let Name { op, at, provider } = name;
        assert!(self.0.iter().all(same), "{op}{at}: the repetitions sent different requests");
        let least = self.0.first().map_or(0, |cost| cost.instructions);
        let most = self.0.last().map_or(0, |cost| cost.instructions);
        self.0.sort_unstable_by_key(|cost| cost.ns);
        let ns = self.0.get(self.0.len() / 2).map_or(0, |cost| cost.ns);
        defmt::println!(
            "bench {=str}{=str} {=str} instructions={=u32} least={=u32} most={=u32} requests={=u32} notifies={=u32} ns={=u64}",
            op,
            at,
            provider,
            median.instructions,
            least,
            most,
            median.requests,
            median.notifies,
            ns
        );
    }
}

/// Tells the host of a cost that is there once.
pub fn tell(name: Name, cost: Cost) {
    let mut costs = Costs::default();
    costs.push(cost);
    costs.tell(name);
}

/// Tells the host how many bytes something takes.
pub fn tell_bytes(name: Name, bytes: usize) {
    let Name { op, at, provider } = name;
    defmt::println!("bench {=str}{=str} {=str} bytes={=usize}", op, at, provider, bytes);
}

/// Tells the host how often a call takes locks, and for how many instructions they are held.
pub fn tell_locks(op: &'static str, locks: u32, held: Option<u32>) {
    match held {
        Some(held) => {
            defmt::println!("bench {=str} runs locks={=u32} instructions={=u32}", op, locks, held);
        }
        None => defmt::println!("bench {=str} runs locks={=u32}", op, locks),
    }
}

/// Tells the host what a whole piece of work came to, with the locks that it took.
pub fn tell_work(name: Name, instructions: u64, sent: &Counters, counts: Counts) {
    let Name { op, at, provider } = name;
    let Counts { taken, waits } = counts;
    defmt::println!(
        "bench {=str}{=str} {=str} instructions={=u64} requests={=u32} notifies={=u64} locks={=u64} waits={=u64}",
        op,
        at,
        provider,
        instructions,
        requests(sent),
        sent.notifies,
        taken,
        waits
    );
}
