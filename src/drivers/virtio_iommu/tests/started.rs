//! Batches that nobody waits for: room, order, refusals, and a device that never answers.

use super::super::tickets::MAX_TICKETS;
use super::*;
use crate::driver::{Health, Progress, Start, Ticket, Work};
use crate::virtio::transport::fake::Lie;

/// A device that answers after some looks at the clock, and a filled, attached domain.
fn slow(delay: u32) -> (Rig, Space) {
    let rig = start(
        FakeConfig { delay, ..FakeConfig::default() },
        Options { wait_limit_ns: 1_000_000_000, ..QUICK },
    )
    .unwrap();
    let mut space = rig.space();
    rig.attach(&[ONE], &mut space).unwrap();
    (rig, space)
}

fn begin(rig: &Rig, space: &Space, runs: &[Run]) -> (Ticket, usize) {
    match rig.unit.start(&space.view(), Work::Map(runs)) {
        Start::Started { ticket, taken } => (ticket, taken),
        other => panic!("{other:?}"),
    }
}

/// Asks until the work has ended; how often it was still on its way.
fn finish(rig: &Rig, ticket: Ticket) -> (Progress, u32) {
    for looks in 0.. {
        match rig.unit.progress(ticket) {
            Progress::Pending => {}
            end => return (end, looks),
        }
    }
    unreachable!()
}

#[test]
fn a_batch_is_sent_at_once_and_ends_later() {
    let (rig, space) = slow(50);
    let runs = scattered(10);
    let before = rig.unit.counters();
    let (ticket, taken) = begin(&rig, &space, &runs);
    let sent = rig.unit.counters().since(&before);
    assert_eq!((taken, sent.map, sent.notifies), (10, 10, 1));
    assert_eq!(rig.machine.mappings(space.id), [], "the device has not looked yet");
    let (end, looks) = finish(&rig, ticket);
    assert!(end == Progress::Done && looks > 1, "{end:?} after {looks}");
    assert_eq!(rig.machine.mappings(space.id), in_device(&runs));
    assert_eq!(rig.unit.progress(ticket), Progress::Failed, "the ticket means nothing any more");
}

#[test]
fn a_call_that_waits_comes_after_what_was_started() {
    let (rig, space) = slow(50);
    let runs = scattered(3);
    let (ticket, _) = begin(&rig, &space, &runs);
    let all = range(0, 0x1000_0000);
    rig.unit.unmap(&space.view(), &[all], &mut Gather::new()).unwrap();
    assert_eq!(rig.machine.mappings(space.id), [], "mapped, and then unmapped");
    assert_eq!(rig.unit.progress(ticket), Progress::Done, "nobody had to look");
    let (unmap, _) = match rig.unit.start(&space.view(), Work::Unmap(&[all])) {
        Start::Started { ticket, taken } => (ticket, taken),
        other => panic!("{other:?}"),
    };
    rig.unit.probe(ONE).expect("a PROBE waits for it too");
    assert_eq!(rig.unit.progress(unmap), Progress::Done);
}

#[test]
fn the_ring_and_the_table_of_tickets_have_an_end() {
    let (rig, space) = slow(200);
    let runs = scattered(200);
    let (first, taken) = begin(&rig, &space, &runs);
    assert_eq!(taken, 128, "two descriptors each");
    let more = rig.unit.start(&space.view(), Work::Map(&runs[taken..]));
    assert_eq!(more, Start::Full);
    assert_eq!(finish(&rig, first).0, Progress::Done);
    let (second, rest) = begin(&rig, &space, &runs[taken..]);
    assert_eq!((rest, finish(&rig, second).0), (72, Progress::Done));
    assert_eq!(rig.machine.mappings(space.id), in_device(&runs));

    let (rig, space) = slow(0);
    let runs = scattered(MAX_TICKETS as u64 + 1);
    let tickets: Vec<_> =
        runs[1..].iter().map(|run| begin(&rig, &space, core::slice::from_ref(run)).0).collect();
    assert_eq!(rig.unit.start(&space.view(), Work::Map(&runs[..1])), Start::Full);
    assert_eq!(rig.unit.progress(tickets[3]), Progress::Done);
    begin(&rig, &space, &runs[..1]);
}

#[test]
fn a_refusal_comes_with_the_end_of_a_map_and_poisons_an_unmap() {
    // C-263, C-266
    for (lie, error) in [(Lie::Status(8), MapError::OutOfMemory), (Lie::Status(4), MapError::Io)] {
        let (rig, space) = slow(0);
        rig.machine.lie(1, lie);
        let (ticket, _) = begin(&rig, &space, &scattered(3));
        assert_eq!(finish(&rig, ticket).0, Progress::Refused(error));
        assert_eq!(rig.unit.health(), Health::Good);
    }
    let (rig, space) = slow(0);
    let runs = scattered(3);
    let (ticket, _) = begin(&rig, &space, &runs);
    assert_eq!(finish(&rig, ticket).0, Progress::Done);
    rig.machine.lie(0, Lie::Status(2));
    let ranges = [runs[0].range, runs[1].range];
    let Start::Started { ticket, .. } = rig.unit.start(&space.view(), Work::Unmap(&ranges)) else {
        panic!()
    };
    assert_eq!(finish(&rig, ticket).0, Progress::Failed);
    assert_eq!(rig.unit.health(), Health::Poisoned);
    assert_eq!(rig.unit.start(&space.view(), Work::Unmap(&ranges)), Start::Failed);
}

#[test]
fn a_device_that_never_answers_is_given_up_by_whoever_looks() {
    // C-233, D-35
    let rig = Rig::new();
    let mut space = rig.space();
    rig.attach(&[ONE], &mut space).unwrap();
    rig.machine.lie(0, Lie::NoAnswer);
    let runs = scattered(2);
    let (one, _) = begin(&rig, &space, &runs[..1]);
    let (two, _) = begin(&rig, &space, &runs[1..]);
    assert_eq!(finish(&rig, two).0, Progress::Failed);
    assert_eq!(rig.unit.progress(one), Progress::Failed, "every ticket ends");
    assert_eq!(rig.unit.health(), Health::Poisoned);
}

#[test]
fn a_driver_that_goes_while_requests_are_out_resets_the_device_before_its_memory_goes() {
    let (rig, space) = slow(1_000);
    let machine = rig.machine.clone();
    begin(&rig, &space, &scattered(20));
    assert_eq!(machine.mappings(space.id), [], "they are out");
    drop(rig); // the machine panics where memory goes under a running device
    assert!(machine.status().is_empty() && machine.pages() == 0);
}

#[test]
fn what_is_not_sent_in_one_request_is_left_to_the_call_that_waits() {
    let rig = Rig::new();
    let mut space = rig.space();
    let run = page(0x1000, 0x8000);
    assert_eq!(rig.unit.start(&space.view(), Work::Map(&[run])), Start::Unsupported, "no endpoint");
    rig.attach(&[ONE], &mut space).unwrap();
    let all = Run { range: IovaRange::ALL, phys: PhysAddr(0), prot: Prot::RW };
    assert_eq!(rig.unit.start(&space.view(), Work::Map(&[all])), Start::Unsupported);
    let ranges = [IovaRange::ALL];
    assert_eq!(rig.unit.start(&space.view(), Work::Unmap(&ranges)), Start::Unsupported);
}

#[test]
fn a_device_that_breaks_the_rules_ends_all_that_was_started() {
    let lies = [Lie::NoAnswer, Lie::NeedsReset, Lie::UsedId(1), Lie::Twice, Lie::UsedJump(0xfffe)];
    for lie in lies {
        let rig = start(FakeConfig { delay: 20, ..FakeConfig::default() }, QUICK).unwrap();
        let mut space = rig.space();
        rig.attach(&[ONE], &mut space).unwrap();
        rig.machine.lie(0, lie);
        let runs = scattered(6);
        let tickets: Vec<_> = runs.chunks(2).map(|two| begin(&rig, &space, two).0).collect();
        let clock = rig.machine.clock_ns();
        for ticket in tickets {
            assert_eq!(finish(&rig, ticket).0, Progress::Failed, "{lie:?}");
        }
        let waited = rig.machine.clock_ns() - clock;
        assert!(waited <= QUICK.wait_limit_ns + 100_000, "{lie:?}: {waited} ns, in fake time");
        assert_eq!(rig.unit.health(), Health::Poisoned, "{lie:?}");
        assert!(rig.machine.status().is_empty(), "{lie:?}: the device was reset");
        assert_eq!(rig.reads(ONE, 0x10_0000), Err(0), "{lie:?}");
    }
}

#[test]
fn a_device_that_gave_up_is_found_before_the_limit() {
    let (rig, space) = slow(20); // the limit is a second
    rig.machine.lie(0, Lie::NeedsReset);
    let (ticket, _) = begin(&rig, &space, &scattered(1));
    let (clock, accesses) = (rig.machine.clock_ns(), rig.machine.register_accesses());
    assert_eq!(finish(&rig, ticket).0, Progress::Failed);
    assert!(rig.machine.clock_ns() - clock < 10_000_000, "in fake time");
    let accesses = rig.machine.register_accesses() - accesses;
    assert!(accesses <= 6, "{accesses}: it is asked rarely, because asking is an exit");
}

#[test]
fn an_interrupt_is_asked_for_while_something_started_is_out() {
    let loud = Options { request_interrupts: true, ..QUICK };
    for (options, wanted) in [(loud, [0, 1]), (QUICK, [1, 1])] {
        let config = FakeConfig { delay: 20, ..FakeConfig::default() };
        let rig = start(config, options).unwrap();
        let mut space = rig.space();
        rig.attach(&[ONE], &mut space).unwrap();
        let runs = scattered(2);
        let (ticket, _) = begin(&rig, &space, &runs[..1]);
        assert_eq!(rig.machine.available_flags(), wanted);
        assert_eq!(finish(&rig, ticket).0, Progress::Done);
        rig.unit.map(&space.view(), &runs[1..]).unwrap();
        assert_eq!(rig.machine.available_flags(), [1, wanted[1]], "who waits polls");
    }
}
