//! How much DMA this image has judged: accesses of real devices that arrived, and refusals that were
//! checked. Whoever judges an access counts it here; the host sums the report of every image, and
//! fails one that reports none.

use core::sync::atomic::{AtomicU64, Ordering};

use iommu_cases::Outcome;

static ARRIVED: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Counts an access of a device that was seen to arrive where it should.
pub fn arrived() {
    ARRIVED.fetch_add(1, Ordering::Relaxed);
}

/// Counts an access that was seen to be refused: memory untouched, and the right fault record where
/// there is somebody to report one.
pub fn refused() {
    REFUSED.fetch_add(1, Ordering::Relaxed);
}

/// Counts what an access came to, and hands it on. What went wrong counts as neither.
#[must_use]
pub fn judged(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Arrived => arrived(),
        Outcome::Refused { .. } => refused(),
        Outcome::Wrong(_) => {}
    }
    outcome
}

/// Tells the host, in the `#[teardown]` of every test image.
pub fn report() {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    defmt::println!("dma: {=u64} arrived, {=u64} refused", count(&ARRIVED), count(&REFUSED));
}
