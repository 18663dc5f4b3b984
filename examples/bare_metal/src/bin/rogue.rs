//! A rogue device, and what it takes to stop it: the program of `docs/tutorial.md`.
#![no_std]
#![no_main]

use iommu::addr::{Iova, IovaRange};
use iommu::domain::PagingDomain;
use iommu::group::{Group, OwnerId};
use iommu::prot::Prot;
use iommu_boot::arch::{self, entry};
use iommu_boot::machine::{Machine, PLATFORM, POOL};
use iommu_boot::world::World;
use iommu_runtime::dma::Buffer;

entry!(start);

fn start(_: u64, _: u64, _: u64, _: u64) -> ! {
    let machine = Machine::bring_up().expect("memory, PCI and a test device");
    let rogue = machine.devices[0];

    // The kernel's own page. No device has business here.
    let secret = Buffer::new(&PLATFORM, 1).expect("a page");
    secret.fill(0x11);

    // Nobody drives the IOMMU yet, and then it lets everything pass.
    rogue.edu.poke(secret.phys().0, 0xbad).expect("it can write");
    assert!(!secret.is_filled(0x11));
    defmt::println!("1. No IOMMU is driven: the device overwrote the kernel's page");

    // Starts the units that the firmware describes, and adds every device to a group.
    let world = World::start(&machine).expect("the IOMMUs start");
    let iommu = &world.units[rogue.unit];
    secret.fill(0x11);
    rogue.edu.poke(secret.phys().0, 0xbad).expect("it can try");
    assert!(secret.is_filled(0x11));
    let fault = world.registry.next_fault(iommu).expect("the unit told us");
    assert_eq!(fault.device, Some(rogue.id()));
    defmt::println!(
        "2. Blocked: endpoint {=u32:#x} tried, memory is untouched",
        fault.record.endpoint.0
    );

    // One page for the device, at an address of our choice.
    let shared = Buffer::new(&PLATFORM, 1).expect("a page");
    let domain = PagingDomain::new(iommu, &POOL).expect("a domain");
    let page = IovaRange::from_len(Iova(0x10_0000), 0x1000).expect("a page");
    domain.map(page, shared.phys(), Prot::RW).expect("mapped");
    let group = world.registry.group_of(rogue.id()).expect("its group");
    let owned = Group::claim(&group, OwnerId(1)).expect("nobody else has it");
    let attached = owned.attach(&domain).expect("the domain fits");
    rogue.edu.poke(page.first().0, 0x600d).expect("it can write");
    assert_eq!([shared.read(0), shared.read(1)], [0x0d, 0x60]);
    defmt::println!("3. It reaches the page that it was given");

    // Everything else is as far away as before.
    rogue.edu.poke(secret.phys().0, 0xbad).expect("it can try");
    rogue.edu.poke(page.last().0 + 1, 0xbad).expect("it can try");
    assert!(secret.is_filled(0x11));
    let mut refused = 0;
    while let Some(fault) = world.registry.next_fault(iommu) {
        assert_eq!(fault.device, Some(rogue.id()));
        refused += 1;
    }
    assert_eq!(refused, 2);
    defmt::println!("4. And nothing else: {=i32} more writes were refused", refused);

    // When the page is unmapped, it is the kernel's again at once.
    domain.unmap(page).expect("the unit confirmed");
    shared.fill(0x22);
    rogue.edu.poke(page.first().0, 0xbad).expect("it can try");
    assert!(shared.is_filled(0x22));
    drop(attached); // blocked, whatever the domain maps
    defmt::println!("5. Unmapped and detached: it reaches nothing");
    arch::exit(0)
}
