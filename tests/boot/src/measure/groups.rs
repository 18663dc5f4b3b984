//! Attach and detach: claim and release are part of them, as Linux's ioctls have it.

use iommu::container::IdentityMemory;

use super::meter::{Costs, Name};
use super::rig::{BASE, PAGE, Rig, map};

const REPETITIONS: usize = 8;
const MANY: u64 = 10_000;
/// What the attach of the n-th group is named.
const ATTACH: [&str; 8] = [
    "attach_first",
    "attach_2nd",
    "attach_3rd",
    "attach_4th",
    "attach_5th",
    "attach_6th",
    "attach_7th",
    "attach_8th",
];

/// Measures it.
pub fn measure(rig: &Rig) {
    one_after_the_other(rig);
    with_mappings(rig);
}

/// All groups, one after the other, and away again.
fn one_after_the_other(rig: &Rig) {
    let count = rig.groups.len();
    let mut attaches: [Costs; 8] = Default::default();
    let mut detaches: [Costs; 8] = Default::default();
    for repetition in 0..=REPETITIONS {
        let container = rig.container(IdentityMemory);
        for (index, costs) in attaches.iter_mut().enumerate().take(count) {
            let ((), cost) = rig.meter.count(|| rig.attach(&container, index));
            if repetition > 0 {
                costs.push(cost);
            }
        }
        for (index, costs) in detaches.iter_mut().enumerate().take(count).rev() {
            let ((), cost) = rig.meter.count(|| rig.detach(&container, index));
            if repetition > 0 {
                costs.push(cost);
            }
        }
    }
    for (costs, name) in attaches.into_iter().zip(ATTACH).take(count) {
        costs.tell(Name::of(name));
    }
    let [last, two, .., eight] = detaches;
    last.tell(Name::of("detach_last"));
    two.tell(Name::of("detach_of_2"));
    eight.tell(Name::of("detach_of_8"));
}

/// What is mapped makes no difference to a group that joins or leaves, and all to the last one.
fn with_mappings(rig: &Rig) {
    const LASTS: usize = 3;
    let (mut attaches, mut detaches) = (Costs::default(), Costs::default());
    let mut lasts = Costs::default();
    for round in 0..LASTS {
        let container = rig.attached(IdentityMemory);
        (0..MANY).for_each(|index| map(&container, BASE + index * PAGE, PAGE));
        for repetition in 0..=REPETITIONS {
            let ((), cost) = rig.meter.count(|| rig.attach(&container, 1));
            let ((), less) = rig.meter.count(|| rig.detach(&container, 1));
            if round == 0 && repetition > 0 {
                attaches.push(cost);
                detaches.push(less);
            }
        }
        rig.meter.add(&mut lasts, || rig.detach(&container, 0));
    }
    attaches.tell(Name::of("attach_2nd").at("@10k"));
    detaches.tell(Name::of("detach_of_2").at("@10k"));
    lasts.tell(Name::of("detach_last").at("@10k"));
}
