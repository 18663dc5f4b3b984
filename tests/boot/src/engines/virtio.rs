//! virtio-rng and virtio-blk, one request at a time, on a ring of our own that says where each
//! buffer is. What is driven through ready-made drivers is in the image `devices`.

use core::sync::atomic::{Ordering, fence};

use iommu::addr::PhysAddr;
use iommu::fault::Access;
use iommu::prot::Prot;
use iommu::virtio::transport::pci::PciTransport;
use iommu::virtio::transport::{QueueSetup, Transport};
use iommu::virtio::{DeviceStatus, F_ACCESS_PLATFORM, F_VERSION_1};
use iommu_cases::disk::{Content, SCRATCH};
use iommu_cases::matrix::Need;

use super::{Engine, Wait, Yard, wait};

const RNG: u32 = 4;

const SIZE: u16 = 8;
const AVAILABLE: u64 = 16 * SIZE as u64;
/// The page that the device reads of the ring.
const RING: usize = 0;
/// The page that it writes there.
const USED: usize = 1;
/// The page with heads and tails of requests.
const HEADS: usize = 2;
/// The page where it shows what it has read.
const LANDING: usize = 3;
/// Where the status byte of a disk request is, in its page.
const STATUS: usize = 256;
/// The sector that writes are of: one that nobody changes.
const SOURCE_SECTOR: u64 = 7;

/// One device.
pub struct VirtioEngine {
    transport: PciTransport,
    yard: Yard<4>,
    /// The next available index, if the ring is set up and the device has done all it was asked for.
    ready: Option<u16>,
}

/// A piece of a request: where, how many bytes, and whether the device writes it.
type Piece = (u64, u32, bool);

impl VirtioEngine {
    /// Takes the device.
    #[must_use]
    pub fn new(transport: PciTransport, number: u64) -> Self {
        // A disk also reads the flags of the used ring, which it is to write only.
        let yard = Yard::new(number, [Prot::READ, Prot::RW, Prot::RW, Prot::WRITE]);
        Self { transport, yard, ready: None }
    }

    /// Makes the device forget everything, and sets the ring up. No DMA.
    fn start(&mut self) -> u16 {
        let Self { transport, yard, .. } = self;
        transport.set_status(DeviceStatus::empty());
        assert!(wait(|| transport.status() == DeviceStatus::empty()), "the device resets");
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        transport.set_status(status);
        // Without the first a device takes no notice of the IOMMU.
        let features = F_ACCESS_PLATFORM | F_VERSION_1;
        assert_eq!(transport.device_features() & features, features, "it is behind the IOMMU");
        transport.set_driver_features(features);
        status |= DeviceStatus::FEATURES_OK;
        transport.set_status(status);
        assert!(transport.status().contains(DeviceStatus::FEATURES_OK));
        yard.clear(RING);
        yard.clear(USED);
        let [ring, used] = [RING, USED].map(|page| yard.iova(page));
        let setup = QueueSetup {
            size: SIZE,
            descriptors: PhysAddr(ring),
            available: PhysAddr(ring + AVAILABLE),
            used: PhysAddr(used),
        };
        assert!(transport.queue_max(0) >= SIZE);
        transport.enable_queue(0, &setup).expect("the queue can be set up");
        transport.set_status(status | DeviceStatus::DRIVER_OK);
        0
    }

    /// One request, to its end or to that of the wait.
    fn request(&mut self, pieces: &[Piece], wait: &mut Wait<'_>) -> bool {
        let available = match self.ready.take() {
            Some(available) => available,
            None => self.start(),
        };
        let Self { transport, yard, .. } = self;
        let last = pieces.len() - 1;
        for (index, (at, len, is_written)) in pieces.iter().enumerate() {
            let flags = u16::from(index < last) | u16::from(*is_written) << 1;
            let at_descriptor = index * 16;
            yard.put(RING, at_descriptor, &at.to_le_bytes());
            yard.put(RING, at_descriptor + 8, &len.to_le_bytes());
            yard.put(RING, at_descriptor + 12, &flags.to_le_bytes());
            yard.put(RING, at_descriptor + 14, &(index as u16 + 1).to_le_bytes());
        }
        // The request begins with descriptor 0, which is what the ring is full of.
        let next = available.wrapping_add(1);
        fence(Ordering::SeqCst); // the request is there before the index says so
        yard.put(RING, AVAILABLE as usize + 2, &next.to_le_bytes());
        fence(Ordering::SeqCst); // and the index before the device looks
        transport.notify(0);
        let done = wait.until(|| yard.u16(USED, 2) == next);
        fence(Ordering::SeqCst); // the index is read before what it is about
        if done {
            self.ready = Some(next);
        } else {
            // Whatever goes on ends here.
            transport.set_status(DeviceStatus::empty());
            let reset = super::wait(|| transport.status() == DeviceStatus::empty());
            assert!(reset, "the device resets");
        }
        done
    }

    /// A transfer between a sector and memory.
    fn sector(
        &mut self,
        sector: u64,
        access: Access,
        at: u64,
        len: usize,
        wait: &mut Wait<'_>,
    ) -> bool {
        let heads = self.yard.iova(HEADS);
        let is_written = access == Access::WRITE;
        let order = u32::from(!is_written); // 0: the device reads its disk
        self.yard.put(HEADS, 0, &order.to_le_bytes());
        self.yard.put(HEADS, 8, &sector.to_le_bytes());
        self.yard.put(HEADS, STATUS, &[0xff]);
        let pieces =
            [(heads, 16, false), (at, len as u32, is_written), (heads + STATUS as u64, 1, true)];
        self.request(&pieces, wait) && self.yard.byte(HEADS, STATUS) == 0
    }

    fn is_rng(&self) -> bool {
        self.transport.device_id() == RNG
    }
}

impl Engine for VirtioEngine {
    fn needs(&self) -> &[Need] {
        &self.yard.needs
    }

    /// The available index (virtio 1.2 §2.7.6); a disk asks not to be notified before, in the
    /// flags of the used ring (§2.7.10).
    fn first(&self, _: u64) -> u64 {
        if self.is_rng() { self.yard.iova(RING) + AVAILABLE + 2 } else { self.yard.iova(USED) }
    }

    fn run(&mut self, access: Access, iova: u64, len: usize, wait: &mut Wait<'_>) -> bool {
        if self.is_rng() {
            let done = self.request(&[(iova, len as u32, true)], wait);
            let place = self.ready.map_or(0, |next| usize::from(next.wrapping_sub(1) % SIZE));
            return done && usize::from(self.yard.u16(USED, 8 + place * 8)) == len;
        }
        let sector = if access == Access::WRITE { SOURCE_SECTOR } else { SCRATCH.start };
        self.sector(sector, access, iova, len, wait)
    }

    fn written(&self, at: usize) -> Option<u8> {
        (!self.is_rng()).then(|| Content::Blk.byte(SOURCE_SECTOR, at))
    }

    fn show(&mut self, len: usize) -> bool {
        let landing = self.yard.iova(LANDING);
        let mut watch = || false;
        let mut wait = Wait::new(super::LIMIT_NS, &mut watch);
        self.sector(SCRATCH.start, Access::WRITE, landing, len, &mut wait)
    }

    fn shown(&self, at: usize) -> u8 {
        self.yard.byte(LANDING, at)
    }
}
