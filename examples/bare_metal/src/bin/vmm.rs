//! A hypervisor gives devices of the machine to a guest, and takes them back.
//!
//! `cargo qemu example vmm` boots it. Read it from `main` down: each step is told, and each is shown
//! by what the guest's device reaches. The guest's addresses are the device's addresses, so a guest
//! drives its device as if it were alone on the machine.
#![no_std]
#![no_main]

use heapless::Vec;
use iommu::container::{Container, DirtyRange, EmulatedId, MapDma, Options, UnmapDma};
use iommu::domain::PagingDomain;
use iommu::group::{GroupId, Ownership};
use iommu::prot::Prot;
use iommu_boot::arch::{self, entry};
use iommu_boot::machine::{Machine, PLATFORM, POOL};
use iommu_boot::probe;
use iommu_boot::world::{World, place};
use iommu_examples::guest::{Driver, GuestRam, PAGE, PAGES, RAM};
use iommu_runtime::dma::Buffer;

/// The guest's memory for its devices: one container, whatever IOMMUs the devices are behind.
type Vm<'m> = Container<&'m GuestRam>;

/// The guest's console, which the hypervisor plays. It does no DMA of its own, but while it is there
/// the guest's memory stays on record, whatever real devices come and go.
const CONSOLE: EmulatedId = EmulatedId(1);

entry!(start);

fn start(_: u64, _: u64, _: u64, _: u64) -> ! {
    let machine = Machine::bring_up().expect("the machine comes up");
    // From here on every device is blocked: nobody gave it memory.
    let world = World::start(&machine).expect("the IOMMUs start");
    world.reach_peak(); // a unit's table of domain ids grows, and stays: once is not a leak
    let before = (POOL.usage(), PLATFORM.pages_in_use());
    let ram = GuestRam::new(&PLATFORM);
    let guest = |index| Driver { ram: &ram, device: world.device(index) };
    let (first, second) = (guest(place::ROOT), guest(place::OTHER));

    let vm = open(&ram);
    let disk = give_a_device(&world, &vm, &first);
    a_guest_can_not_leave_its_memory(&world, &first);
    let nic = hot_plug(&world, &vm, &second);
    migrate(&world, &vm, &first, &second, [disk, nic]);
    take_back(&world, &vm, &first);
    close(vm, &ram);

    drop(ram);
    assert_eq!((POOL.usage(), PLATFORM.pages_in_use()), before, "everything was given back");
    defmt::println!("Every step held.");
    arch::exit(0)
}

/// Step 1. The guest's memory is recorded before any device is there: nothing is pinned yet.
fn open(ram: &GuestRam) -> Vm<'_> {
    defmt::println!("1. A guest with {=usize} pages, none of them beside its neighbour", PAGES);
    // The machine has no unit that keeps devices from forging interrupts; we say that we know.
    let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
    let vm = Container::new(&POOL, ram, options);
    vm.attach_emulated(CONSOLE).expect("it is the first");
    vm.map_dma(&MapDma { iova: 0, vaddr: 0, size: RAM, prot: Prot::RW }).expect("it is recorded");
    assert_eq!(ram.pinned(), 0);
    vm
}

/// Step 2. The first device pins and maps everything; from then on the guest drives it.
fn give_a_device(world: &World, vm: &Vm<'_>, guest: &Driver<'_>) -> GroupId {
    // The control: before it is given, the device reaches nothing of the guest.
    guest.fill(0, 512, 1);
    guest.copy(0, 0x5000, 512);
    assert!(!guest.holds(0x5000, 512, 1), "a device that was not given reaches nothing");
    world.drop_faults();

    let group = attach(world, vm, place::ROOT);
    assert_eq!(guest.ram.pinned(), PAGES);
    guest.copy(0, 0x5000, 512);
    assert!(guest.holds(0x5000, 512, 1), "the guest's addresses are the device's");
    // A transfer over a border of pages that don't lie together.
    guest.fill(2 * PAGE - 100, 200, 2);
    guest.copy(2 * PAGE - 100, 7 * PAGE - 100, 200);
    assert!(guest.holds(7 * PAGE - 100, 200, 2), "pages follow each other for the device too");
    defmt::println!("2. Its first device: {=usize} pages pinned, copies arrive", PAGES);
    group
}

/// Step 3. A guest that programs its device with any other address gets nothing, and is reported.
fn a_guest_can_not_leave_its_memory(world: &World, guest: &Driver<'_>) {
    let host = Buffer::new(&PLATFORM, 1).expect("there is memory");
    host.fill(0x77);
    for outside in [host.phys().0, RAM, RAM + 0x10_0000] {
        let unit = world.unit_of(place::ROOT);
        let outcome = probe::poke_nowhere(unit, guest.device, outside);
        assert!(outcome.is_refused_at(outside), "the write is refused, and reported");
    }
    assert!(host.is_filled(0x77), "the host's memory is untouched");
    defmt::println!("3. Beyond its memory the device is refused, and the fault names it");
}

/// Step 4. Another device comes while the guest runs, behind the other IOMMU if there is one.
fn hot_plug(world: &World, vm: &Vm<'_>, guest: &Driver<'_>) -> GroupId {
    let before = vm.operations();
    let group = attach(world, vm, place::OTHER);
    let made = vm.operations().since(&before);
    let another = u64::from(world.has_two_units());
    assert_eq!((made.dom_alloc, made.attach_ok), (another, 1), "a domain only if none fits");
    assert_eq!(guest.ram.pinned(), PAGES, "a second domain pins nothing again");
    guest.fill(9 * PAGE, 512, 3);
    guest.copy(9 * PAGE, 0xa000, 512);
    assert!(guest.holds(0xa000, 512, 3), "it sees the same memory at the same addresses");
    defmt::println!("4. A second device is plugged in: {=u64} new domain(s)", another);
    group
}

/// Step 5. The guest moves to another host while its devices write. What they may have written is
/// copied again; the last round comes when they can write no more.
fn migrate(
    world: &World,
    vm: &Vm<'_>,
    first: &Driver<'_>,
    second: &Driver<'_>,
    devices: [GroupId; 2],
) {
    let there: Vec<Buffer, PAGES> =
        (0..PAGES).map(|_| Buffer::new(&PLATFORM, 1).expect("there is memory")).collect();
    let equal = |page: usize| {
        let from = page as u64 * PAGE;
        (0..PAGE).all(|at| first.ram.read(from + at) == there[page].read(at as usize))
    };
    vm.start_dirty_tracking().expect("every page can be tracked");
    assert_eq!(round(vm, first.ram, &there), PAGES, "the first round is everything");
    assert!((0..PAGES).all(equal));

    // The devices write behind the back of the first round.
    first.fill(0, 256, 4);
    first.copy(0, 0x1_1000, 256);
    second.copy(0, 0x1_2000, 256);
    let stale = (0..PAGES).filter(|page| !equal(*page)).count();
    assert!(stale >= 2, "the control: without a further round the copy is stale");

    // A device without pins of its own may have written anywhere it reaches: all of it is dirty.
    assert_eq!(round(vm, first.ram, &there), PAGES);
    first.copy(0, 0x1_3000, 256);
    let back: Vec<Ownership, 2> =
        devices.iter().map(|group| vm.detach_group(*group).expect("it was attached")).collect();
    first.copy(0, 0x1_4000, 256); // blocked: it changes nothing any more
    second.copy(0, 0x1_4000, 256);
    world.drop_faults();
    let last = round(vm, first.ram, &there);
    assert!((0..PAGES).all(equal), "what arrived is what the guest had, to the last byte");
    assert!(!first.holds(0x1_4000, 256, 4), "nothing was written after the last round began");
    vm.stop_dirty_tracking().expect("it was on");
    drop(back); // the groups are free again, and blocked
    defmt::println!("5. Migrated while the devices wrote: {=usize} pages in the last round", last);
}

/// One round: copies the pages that may have been written since the last one, and counts them.
fn round(vm: &Vm<'_>, ram: &GuestRam, there: &[Buffer]) -> usize {
    let mut bitmap = [0_u64; PAGES / 64];
    let range = DirtyRange { iova: 0, size: RAM, page_size: PAGE };
    vm.read_dirty(&range, bitmap.as_mut_slice()).expect("tracking is on");
    let dirty = |page: &usize| bitmap[page / 64] >> (page % 64) & 1 == 1;
    let pages = (0..PAGES).filter(dirty);
    pages
        .inspect(|page| {
            let from = *page as u64 * PAGE;
            (0..PAGE).for_each(|at| there[*page].write(at as usize, ram.read(from + at)));
        })
        .count()
}

/// Step 6. The host uses the device itself: on a domain of its own, where the guest is not.
fn take_back(world: &World, vm: &Vm<'_>, guest: &Driver<'_>) {
    let page = Buffer::new(&PLATFORM, 1).expect("there is memory");
    let domain = PagingDomain::new(world.unit_of(place::ROOT), &POOL).expect("a domain is left");
    let at = iommu::addr::Iova(0x4000_0000);
    let range = iommu::addr::IovaRange::from_len(at, PAGE).expect("a page");
    domain.map(range, page.phys(), Prot::RW).expect("it is mapped");
    let attached = world.claim(place::ROOT).attach(&domain).expect("the domain fits");
    let (unit, device) = (world.unit_of(place::ROOT), guest.device);
    assert_eq!(probe::poke(unit, device, at.0, &page, 0), probe::Outcome::Arrived);
    for address in [0, 0x5000, RAM - 4] {
        let outcome = probe::poke_nowhere(unit, device, address);
        assert!(outcome.is_refused_at(address), "the guest's memory is out of reach");
    }
    drop(attached);
    let outcome = probe::poke(unit, device, at.0, &page, 0);
    assert!(outcome.is_refused_at(at.0), "the host let go: blocked again");
    assert_eq!(vm.group_count(), 0);
    defmt::println!("6. The host has its device back");
}

/// Step 7. The guest goes: what is on record is forgotten, and nothing stays pinned.
fn close(vm: Vm<'_>, ram: &GuestRam) {
    assert_eq!(ram.pinned(), 0, "the last real device let go of every page");
    assert_eq!(vm.unmap_dma(&UnmapDma::All).expect("nobody is at work").bytes, RAM);
    vm.detach_emulated(CONSOLE);
    drop(vm);
    defmt::println!("7. Closed");
}

/// Gives the group of a test device to the guest, and tells what it cost.
fn attach(world: &World, vm: &Vm<'_>, index: usize) -> GroupId {
    let ownership = world.claim(index);
    let group = ownership.group().id();
    vm.attach_group(ownership).expect("the group is attached");
    group
}
