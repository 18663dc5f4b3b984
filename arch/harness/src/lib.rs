//! Stands in for the crate `defmt-test` on architectures without semihosting.
//!
//! The macro is defmt-test's own, so a test image and its reports are the same; only what the macro
//! calls is ours: the exit of the architecture.
#![no_std]

pub use defmt_test_macros::tests;

/// What a case may return.
pub trait TestOutcome: defmt::Format {
    /// Whether the case held.
    fn is_success(&self) -> bool;
}

impl TestOutcome for () {
    fn is_success(&self) -> bool {
        true
    }
}

impl<T: defmt::Format, E: defmt::Format> TestOutcome for Result<T, E> {
    fn is_success(&self) -> bool {
        self.is_ok()
    }
}

/// What the macro calls.
#[doc(hidden)]
pub mod export {
    #[cfg(target_arch = "riscv64")]
    use iommu_riscv64 as arch;
    #[cfg(target_arch = "x86_64")]
    use iommu_x86_64 as arch;

    use crate::TestOutcome;

    /// Ends the machine: every case held.
    pub fn exit() -> ! {
        arch::exit(0)
    }

    /// Panics unless the case came to what it is marked for.
    pub fn check_outcome<T: TestOutcome>(outcome: T, should_error: bool) {
        if outcome.is_success() == should_error {
            let note = if should_error { "`#[should_error]` " } else { "" };
            defmt::panic!("{=str}test failed with outcome: {}", note, outcome);
        }
    }
}
