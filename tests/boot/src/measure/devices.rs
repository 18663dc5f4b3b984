//! What is done for devices beside mapping: pins, dirty pages, faults.

use core::sync::atomic::{AtomicUsize, Ordering};

use iommu::addr::IovaRange;
use iommu::container::{DirtyRange, EmulatedId, IdentityMemory, Member, PinHolder};
use iommu::domain::{DomainOptions, PagingDomain};
use iommu::fault::{Fault, FaultHandler, Handled};
use iommu::prot::Prot;
use spin::Mutex;

use super::meter::{Costs, Name};
use super::rig::{BASE, PAGE, Rig, claim, map};
use super::slab::POOL;

/// The most pages of one call.
const PINS: usize = 512;
/// What the bitmap stands for: 64 GiB.
const TRACKED: u64 = 64 << 30;
const WORDS: usize = (TRACKED / PAGE / 64) as usize;

static BITMAP: Mutex<[u64; WORDS]> = Mutex::new([0; WORDS]);
static FAULTS: Count = Count(AtomicUsize::new(0));

struct Count(AtomicUsize);

/// A device that pins and holds nothing when it is told: what it pins it drops by itself.
struct Holder;

impl PinHolder for Holder {
    fn dma_unmap(&self, _: IovaRange) {}
}

impl FaultHandler for Count {
    fn fault(&self, _: &Fault) -> Handled {
        self.0.fetch_add(1, Ordering::Relaxed);
        Handled::Yes
    }
}

/// Measures it.
pub fn measure(rig: &Rig) {
    pins(rig, 1, "pin_1", "unpin_1");
    pins(rig, PINS, "pin_512", "unpin_512");
    dirty(rig);
    faults(rig, 1, "fault_1");
    faults(rig, 16, "fault_16");
}

/// Pages pinned for an emulated device, not pinned before.
fn pins(rig: &Rig, count: usize, pin: &'static str, unpin: &'static str) {
    const REPETITIONS: usize = 16;
    let container = rig.attached(IdentityMemory);
    let id = EmulatedId(1);
    assert!(container.attach_emulated(id).is_ok(), "the emulated group is refused");
    assert!(container.register_device(Holder).is_ok(), "the device is refused");
    map(&container, BASE, PINS as u64 * PAGE);
    let mut places = [None; PINS];
    let (mut pinned, mut unpinned) = (Costs::default(), Costs::default());
    for repetition in 0..=REPETITIONS {
        let places = places.get_mut(..count).expect("there is a place for each page");
        let (done, cost) =
            rig.meter.count(|| container.pin_pages(Member::Emulated(id), BASE, Prot::RW, places));
        assert!(done.is_ok(), "the pin is refused");
        let (dropped, less) = rig.meter.count(|| container.unpin_pages(BASE, count as u64));
        assert_eq!(dropped, count as u64, "all pins go");
        if repetition > 0 {
            pinned.push(cost);
            unpinned.push(less);
        }
    }
    pinned.tell(Name::of(pin).with("runs"));
    unpinned.tell(Name::of(unpin).with("runs"));
}

/// The bitmap of one mapping of 64 GiB: first with a group that may write everywhere, then with one
/// that only writes to the page that it pinned.
fn dirty(rig: &Rig) {
    const REPETITIONS: usize = 3;
    let container = rig.attached(IdentityMemory);
    map(&container, BASE, TRACKED);
    assert!(container.start_dirty_tracking().is_ok(), "tracking is refused");
    let range = DirtyRange { iova: BASE, size: TRACKED, page_size: PAGE };
    let mut bitmap = BITMAP.lock();
    let read = |bitmap: &mut [u64; WORDS], name: Name, expected: u64| {
        let mut costs = Costs::default();
        for repetition in 0..=REPETITIONS {
            bitmap.fill(0);
            let (done, cost) = rig.meter.count(|| container.read_dirty(&range, &mut bitmap[..]));
            assert!(done.is_ok(), "the read is refused");
            if repetition > 0 {
                costs.push(cost);
            }
        }
        let dirty: u64 = bitmap.iter().map(|word| u64::from(word.count_ones())).sum();
        assert_eq!(dirty, expected, "pages are dirty");
        costs.tell(name);
    };
    read(&mut bitmap, Name::of("dirty_get_64g"), TRACKED / PAGE);
    assert!(container.register_device(Holder).is_ok(), "the device is refused");
    let member = Member::Group(rig.group(0).id());
    let pinned = container.pin_pages(member, BASE, Prot::RW, &mut [None]);
    assert!(pinned.is_ok(), "the pin is refused");
    read(&mut bitmap, Name::of("dirty_get_64g_pinned"), 1);
    container.unpin_pages(BASE, 1);
}

/// Records of real writes that the unit refused, from its queue to the handler of the domain.
fn faults(rig: &Rig, count: usize, op: &'static str) {
    const REPETITIONS: usize = 16;
    let options = DomainOptions { fault_handler: Some(&FAULTS), ..DomainOptions::default() };
    let domain = PagingDomain::with_options(&rig.unit, &POOL, &options);
    let domain = domain.expect("the unit has a domain left");
    let attached = claim(rig.group(0)).attach(&domain).expect("the group can be attached");
    let mut costs = Costs::default();
    for repetition in 0..=REPETITIONS {
        let before = FAULTS.0.load(Ordering::Relaxed);
        for _ in 0..count {
            rig.world.device(0).edu.poke(BASE, 1).expect("the device has an MSI");
        }
        let (told, cost) = rig.meter.count(|| {
            rig.world.registry.deliver_faults(&rig.unit, |_| panic!("nobody handled a fault"))
        });
        let handled = FAULTS.0.load(Ordering::Relaxed) - before;
        assert_eq!((told, handled), (count, count), "each refused write is a fault");
        if repetition > 0 {
            costs.push(cost);
        }
    }
    costs.tell(Name::of(op));
    drop(attached);
}
