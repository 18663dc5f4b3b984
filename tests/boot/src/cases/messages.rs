//! Interrupt messages that reach the interrupt controller: which one it is, the device tree's `msi-map`
//! says. Only the `virt` board of aarch64 tells it, and there the controller is a GICv2 with a frame
//! for messages.

use iommu::addr::{Iova, PhysAddr};
use iommu::domain::PagingDomain;
use iommu::reserved::ReservedKind;
use iommu::virtio::transport::MmioRegion;
use iommu_runtime::devicetree::MessageFrame;

use crate::machine::{Machine, POOL, TestDevice};
use crate::world::{World, place};
use crate::{probe, tally};

/// Which interrupts the frame may raise: first number in bits 16 to 25, how many in bits 0 to 9.
const FRAME_TYPE: usize = 0x008;
/// Where a message goes; its data is the number of the interrupt.
const FRAME_DOORBELL: u64 = 0x040;
// Registers of the distributor, each part with offsets from its own start.
const PENDING: u64 = 0x200;
const CLEAR_PENDING: usize = 0x80; // from `PENDING` on
const CONFIGURATION: u64 = 0xc00;

/// The controller behind a frame, as far as it is needed to see that an interrupt came.
struct Controller {
    first: u32,
    pending: MmioRegion,
    doorbell: PhysAddr,
}

impl Controller {
    fn new(machine: &Machine, place: MessageFrame) -> Self {
        let registers = |base| machine.mmio(base).expect("the board has registers there");
        let first = registers(place.frame.base).read_u32(FRAME_TYPE) >> 16 & 0x3ff;
        // Edges, so that the pulse of a message stays visible: two bits each, the upper one says so.
        let at = (first / 16 * 4) as usize;
        let configuration = registers(place.controller.base + CONFIGURATION);
        let edge = 2 << (2 * (first % 16));
        configuration.write_u32(at, configuration.read_u32(at) | edge);
        let pending = registers(place.controller.base + PENDING);
        let doorbell = PhysAddr(place.frame.base + FRAME_DOORBELL);
        Self { first, pending, doorbell }
    }

    /// Whether the interrupt came since the last look.
    fn take(&self) -> bool {
        let (at, bit) = ((self.first / 32 * 4) as usize, 1 << (self.first % 32));
        let came = self.pending.read_u32(at) & bit != 0;
        self.pending.write_u32(CLEAR_PENDING + at, bit);
        came
    }

    /// Lets the device send its message to `iova`.
    fn ask(&self, device: &TestDevice, iova: u64) {
        device.edu.poke(iova, self.first as u16).expect("the device has an MSI");
    }
}

/// C-039, C-043: the message of a device arrives at the controller that `msi-map` names for it, at the
/// address that the doorbell is mapped at. Where the unit lets messages pass, that is the doorbell
/// itself; else nothing comes through before it is mapped, or elsewhere.
pub fn a_message_reaches_the_controller(world: &World, machine: &Machine) {
    let tree = machine.tree.expect("the board has a device tree");
    let map = tree.msi_map().expect("its PCI host has the property");
    for index in [place::ROOT, place::BRIDGE, place::OTHER] {
        let device = world.device(index);
        let unit = world.unit_of(index);
        let (phandle, id) = map.translate(device.function.requester).expect("it has an entry");
        assert_eq!(id, device.function.requester.into(), "this board numbers them alike");
        let controller = Controller::new(machine, tree.gicv2m(phandle).expect("a GICv2 frame"));
        let doorbell = controller.doorbell;
        assert!(!controller.take(), "nothing came yet");

        let regions = world.group(index).reserved();
        let passes = regions.as_slice().iter().any(|region| {
            region.kind == ReservedKind::Msi && region.range.contains(Iova(doorbell.0))
        });
        let domain = PagingDomain::new(unit, &POOL).expect("a domain");
        let attached = world.claim(index).attach(&domain).expect("the domain fits");
        if !passes {
            controller.ask(device, doorbell.0);
            let refused = tally::judged(probe::refusal(unit, device.endpoint));
            assert!(refused.is_refused_at(doorbell.0), "{refused:?}");
            assert!(!controller.take(), "it was refused");
        }
        let iova = attached.map_doorbell(doorbell).expect("there is a window, or a region");
        assert_eq!(iova.0 == doorbell.0 && domain.mapping_count() == 0, passes);
        controller.ask(device, iova.0);
        assert!(controller.take(), "the interrupt of device {index} came");
        tally::arrived();
        assert!(unit.next_fault().is_none(), "and nothing else");
        drop(attached);
        defmt::println!(
            "device {=usize}: doorbell {=u64:#x} is reached at {=u64:#x}",
            index,
            doorbell.0,
            iova.0
        );
    }
}
