//! The table of requests against the software IOMMU, and against a model of a device.

use std::collections::BTreeSet;

use iommu::addr::{Iova, PhysAddr};
use iommu::driver::EndpointId;
use iommu::drivers::virtio_iommu::{Options, VirtioIommu};
use iommu::fault::Access;
use iommu::pool::Pool;
use iommu::sim::Sim;
use iommu_cases::wire::{Kind, ROWS, Subject, play};

use crate::unit;

static POOL: Pool = Pool::heap();

#[test]
fn the_software_iommu_answers_as_the_table_says() {
    for row in ROWS {
        let sim = Sim::new();
        let endpoints = [0x10, 0x18, 0xf8].map(EndpointId);
        let reaches = |iova, phys| sim.reach(endpoints[0], iova, Access::WRITE) == Ok(phys);
        let driver = sim.driver();
        let subject = Subject {
            kind: Kind::Software,
            driver: &driver,
            pool: &POOL,
            endpoints,
            memory: PhysAddr(0x8000_0000),
            reaches: &reaches,
        };
        play(row, &subject);
    }
}

#[test]
fn the_model_of_a_device_answers_as_the_table_says() {
    // The same answers as QEMU gives in the boot images.
    for row in ROWS {
        let machine = unit::device(0);
        let endpoints = [0x10, 0x18, 0xf8].map(EndpointId);
        let reaches = |iova: Iova, phys: PhysAddr| {
            machine.translate(endpoints[0], iova.0, true) == Ok(phys.0)
        };
        let driver =
            VirtioIommu::new(machine.clone(), machine.transport(), &POOL, Options::default());
        let driver = driver.unwrap();
        let subject = Subject {
            kind: Kind::Device,
            driver: &driver,
            pool: &POOL,
            endpoints,
            memory: PhysAddr(0x8000_0000),
            reaches: &reaches,
        };
        play(row, &subject);
    }
}

#[test]
fn every_difference_is_one_and_has_a_reason() {
    for row in ROWS {
        let Some(other) = row.software else { continue };
        let (_, answer) = row.steps.last().unwrap();
        assert!((*answer, row.left) != (other.answer, other.left), "{}", row.name);
        assert!(!other.why.is_empty(), "{}", row.name);
    }
    let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), ROWS.len());
}
