//! What the test images share: the state of a run, and what holds before and after each case.

use iommu::pool::Usage;
use iommu_cases::{CASES, Needs};

use crate::machine::{Machine, PLATFORM, POOL};
use crate::world::World;

/// The state that a harness hands from case to case.
pub struct State {
    /// The machine.
    pub machine: Machine,
    /// Its IOMMUs, with every device blocked.
    pub world: World,
    left: (Usage, usize),
}

impl State {
    /// Brings the machine up and starts its IOMMUs.
    ///
    /// # Panics
    ///
    /// When that fails.
    #[must_use]
    pub fn start() -> Self {
        let machine = Machine::bring_up().expect("the machine can be brought up");
        let world = World::start(&machine).expect("the IOMMUs start");
        assert_eq!(world.units.len(), machine.iommus.len(), "every IOMMU of the machine starts");
        world.reach_peak();
        let left = (POOL.usage(), PLATFORM.pages_in_use());
        Self { machine, world, left }
    }

    /// A case begins without fault records.
    pub fn before_each(&self) {
        self.world.drop_faults();
    }

    /// A case leaves no memory behind.
    ///
    /// # Panics
    ///
    /// When one did.
    pub fn after_each(&self) {
        let left = (POOL.usage(), PLATFORM.pages_in_use());
        assert_eq!(left, self.left, "the case left memory behind");
    }

    /// Whether a case that needs two IOMMUs can run. If not, it is told, and the host shows the case
    /// as skipped; on a machine that has two, the host takes that for a failure.
    #[must_use]
    pub fn has_two_units(&self) -> bool {
        let has = self.world.has_two_units();
        if !has {
            defmt::println!("skipped: it needs two IOMMUs, and this machine has one");
        }
        has
    }

    /// `skip=NAME,NAME`: cases of the table that are not to run.
    fn is_left_out(&self, name: &str) -> bool {
        self.machine.argument("skip").is_some_and(|names| names.split(',').any(|one| one == name))
    }

    /// Runs a case of the table, or tells why it is skipped.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn run(&self, name: &str) {
        if self.is_left_out(name) {
            defmt::println!("skipped: the arguments leave it out");
            return;
        }
        let needs_two = CASES.iter().any(|case| case.name == name && case.needs == Needs::TwoUnits);
        if !needs_two || self.has_two_units() {
            iommu_cases::run(&self.world, name);
        }
    }
}

/// The entry of a test image: calls what `defmt_test::tests` exports.
#[macro_export]
macro_rules! test_entry {
    () => {
        use $crate::arch::entry;
        entry!(start);

        fn start(_: u64, _: u64, _: u64, _: u64) -> ! {
            // SAFETY: `defmt_test::tests` defines this function, and nothing else calls it.
            unsafe { run_all() }
        }

        unsafe extern "C" {
            #[link_name = "main"]
            fn run_all() -> !;
        }
    };
}
