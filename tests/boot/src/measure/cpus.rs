//! Two CPUs at once, on one container and on two; and which locks the maps of two containers share.
//!
//! The second CPU is there on aarch64. Elsewhere one CPU does the work alone, and which locks are
//! shared is told all the same.

use alloc::sync::Arc;

use iommu::container::{Container, IdentityMemory, Options};
use iommu::dma::{DmaDevice, DmaOptions};
use iommu::drivers::virtio_iommu::{self, VirtioIommu};
use iommu::group::Group;
use iommu::instance::Instance;
use iommu::pool::Shared;
use iommu::registry::{DeviceInfo, Registry};
use iommu::virtio::transport::Transport;

use super::drivers::{map as map_pages, unmap as unmap_pages};
use super::meter::{self, Name};
use super::rig::{BASE, PAGE, claim, map, unmap};
use super::slab::POOL;
use super::turns;
use super::watched::{self, Counts, Watched};
use crate::machine::{Machine, PLATFORM, TestDevice};
use crate::world::{AnyTransport, NoWorld, transport};

/// How many pages each CPU maps and unmaps, one after the other.
const PAIRS: u64 = 256;

type User = Container<IdentityMemory, Watched>;

/// What both CPUs have.
struct Common {
    /// The containers, and which of them each CPU uses.
    containers: [User; 2],
    /// How many CPUs are there.
    #[cfg(target_arch = "aarch64")]
    ready: core::sync::atomic::AtomicU64,
}

/// Measures it with a unit of its own, which is stopped again.
///
/// # Errors
///
/// [`NoWorld`] says what is missing or failed.
pub fn measure(machine: &Machine) -> Result<(), NoWorld> {
    match transport(machine, machine.iommus.first().ok_or(NoWorld::NoIommu)?)? {
        AnyTransport::Pci(transport) => with_unit(machine, transport),
        AnyTransport::Mmio(transport) => with_unit(machine, transport),
    }
}

fn with_unit<T: Transport + 'static>(machine: &Machine, transport: T) -> Result<(), NoWorld> {
    let options = virtio_iommu::Options::default();
    let driver = VirtioIommu::<_, _, Watched>::with_lock(&PLATFORM, transport, &POOL, options);
    let registry = Registry::<Watched>::with_lock(&POOL);
    let refused = |error: iommu::error::ProbeError| NoWorld::Probe(error.errno());
    let unit = registry.add_instance(driver.map_err(NoWorld::Init)?).map_err(refused)?;
    let mut devices = machine.devices.iter().filter(|device| device.unit == 0);
    let mut group = || {
        let device: &TestDevice = devices.next().ok_or(NoWorld::NoDevice)?;
        let info = DeviceInfo { id: device.id(), endpoints: &[device.endpoint], with: None };
        registry.add_device(&unit, &info).map_err(refused)
    };
    let groups = [group()?, group()?];
    shared_locks(&groups);
    locks_of_a_driver(&groups[0]);
    alone(&unit, &groups);
    #[cfg(target_arch = "aarch64")]
    both(&unit, &groups);
    Ok(())
}

fn container() -> User {
    let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
    Container::new(&POOL, IdentityMemory, options)
}

fn attach(container: &User, group: &Shared<Group<Watched>>) {
    assert!(container.attach_group(claim(group)).is_ok(), "the attach is refused");
}

/// What the counter costs between a lock and its unlock.
fn empty() -> u32 {
    let lock = iommu::sync::Mutex::<Watched, ()>::new(());
    watched::note(|| drop(lock.lock())).first().map_or(0, |note| note.held)
}

/// How often a map and an unmap for a driver take the lock of the addresses, which all drivers of the
/// group share, and for how long; and the same of the lock that they hold longest, the domain's.
fn locks_of_a_driver(group: &Shared<Group<Watched>>) {
    let empty = empty();
    let dma = DmaDevice::new(group, &PLATFORM, &DmaOptions::default());
    let dma = dma.expect("nobody owns the group");
    let pair = || unmap_pages(&dma, map_pages(&dma, PAGE));
    pair(); // what is set up by the first call is there
    let addresses = watched::note(|| assert_eq!(dma.mapping_count(), 0));
    let addresses = addresses.first().expect("a count takes the lock").place;
    let mut notes = watched::note(pair);
    notes.iter_mut().for_each(|note| note.held -= note.count * empty);
    let ours = notes.iter().find(|note| note.place == addresses).expect("a map takes the lock");
    let longest = notes.iter().max_by_key(|note| note.held).expect("there are locks");
    for (op, note) in [("dma_pair_addresses_lock", ours), ("dma_pair_longest_lock", longest)] {
        meter::tell_locks(op, note.count, Some(note.held));
    }
}

/// The locks that a call on each of two containers takes both, and how long they are held.
fn shared_locks(groups: &[Shared<Group<Watched>>; 2]) {
    let containers = [container(), container()];
    containers.iter().zip(groups).for_each(|(container, group)| attach(container, group));
    let empty = empty();
    let tell = |op: &'static str, shared: &'static str, call: fn(&User)| {
        // Once before: what is set up by the first call is there.
        let [one, other] = containers.each_ref().map(|container| watched::note(|| call(container)));
        let common = one.iter().filter(|note| other.iter().any(|them| them.place == note.place));
        let (count, held) = common.fold((0, 0), |(count, held), note| {
            (count + 1, held + (note.held - note.count * empty))
        });
        meter::tell_locks(op, one.iter().map(|note| note.count).sum(), None);
        meter::tell_locks(shared, count, Some(held));
    };
    containers.iter().for_each(|container| {
        map(container, BASE, PAGE);
        unmap(container, BASE, PAGE);
    });
    tell("map_4k_locks", "map_4k_shared_locks", |container| map(container, BASE, PAGE));
    tell("unmap_4k_locks", "unmap_4k_shared_locks", |container| unmap(container, BASE, PAGE));
}

impl Common {
    fn new(containers: [User; 2]) -> Arc<Self> {
        Arc::new(Self {
            containers,
            #[cfg(target_arch = "aarch64")]
            ready: 0.into(),
        })
    }

    /// Waits until both CPUs are there, and begins.
    #[cfg(target_arch = "aarch64")]
    fn begin(&self) {
        use core::sync::atomic::Ordering;

        self.ready.fetch_add(1, Ordering::AcqRel);
        while self.ready.load(Ordering::Acquire) < 2 {
            turns::give_way();
        }
        turns::enter();
    }

    /// Maps and unmaps pages of this CPU's own, in container `index`.
    fn work(&self, cpu: u64, index: usize) {
        for pair in 0..PAIRS {
            let iova = BASE + (pair * 2 + cpu) * PAGE;
            map(&self.containers[index], iova, PAGE);
            unmap(&self.containers[index], iova, PAGE);
        }
    }
}

/// What `call` came to: when all of it was done, requests, locks.
fn tell(unit: &Instance<Watched>, op: &'static str, call: impl FnOnce() -> u64) {
    let (before, counts) = (unit.counters(), Counts::now());
    let time = call();
    let (sent, counts) = (unit.counters().since(&before), Counts::now().since(counts));
    meter::tell_work(Name::of(op).with("runs"), time, &sent, counts);
}

/// Both halves of the work by one CPU: what two are compared with.
fn alone(unit: &Instance<Watched>, groups: &[Shared<Group<Watched>>; 2]) {
    let common = Common::new([container(), container()]);
    attach(&common.containers[0], &groups[0]);
    common.work(0, 0);
    tell(unit, "one_cpu", || {
        turns::on(1);
        turns::enter();
        common.work(0, 0);
        common.work(1, 0);
        turns::leave();
        turns::off()
    });
}

#[cfg(target_arch = "aarch64")]
fn both(unit: &Instance<Watched>, groups: &[Shared<Group<Watched>>; 2]) {
    use crate::arch::second;

    let run = |op, index: usize| {
        let common = Common::new([container(), container()]);
        attach(&common.containers[0], &groups[0]);
        attach(&common.containers[1], &groups[1]);
        common.work(0, 0);
        common.work(1, index);
        tell(unit, op, || {
            turns::on(2);
            let theirs = common.clone();
            let working = second::start(move || {
                theirs.begin();
                theirs.work(1, index);
                turns::leave();
            });
            let working = working.expect("the machine has a second CPU");
            common.begin();
            common.work(0, 0);
            turns::leave();
            working.join();
            turns::off()
        });
    };
    run("two_cpus_on_one", 0);
    run("two_cpus_on_two", 1);
}
