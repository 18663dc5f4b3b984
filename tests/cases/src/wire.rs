//! Requests below the checks of the API: what a unit itself answers, and what is mapped afterwards.
//!
//! The examples of virtio 1.2, sections 5.13.6.5 and 5.13.6.6, and what its device requirements say
//! of ATTACH and PROBE, put to a driver that nothing stands before. The API sends none of the wrong
//! ones (see `cases::requests`); here they show that the software IOMMU is as strict as a device,
//! or in which [`Difference`] it is not.

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::driver::{DomainFeatures, DomainView, Driver, EndpointId, Gather, Mappings, Run};
use iommu::pool::Pool;
use iommu::prot::Prot;

use crate::steps::{AT, PAGE};

/// How many pages the requests are about, from [`AT`] on.
pub const PAGES: u64 = 16;

/// A sequence of requests to a unit that was just started.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it shows.
    pub name: &'static str,
    /// The requests, and the answers of a device.
    pub steps: &'static [(Request, Answer)],
    /// The pages that [`Who::First`] reaches at the end. A refused UNMAP ends with none: the driver
    /// can't know what is left, and resets the unit.
    pub left: &'static [u64],
    /// Where the software IOMMU differs, and why that may be.
    pub software: Option<Difference>,
}

/// What the software IOMMU does otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// Its answer to the last request.
    pub answer: Answer,
    /// The pages that are reached at the end.
    pub left: &'static [u64],
    /// Why that may be.
    pub why: &'static str,
}

/// Which unit is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A virtio-iommu.
    Device,
    /// The software IOMMU.
    Software,
}

/// Whether a request was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It was.
    Done,
    /// It was answered with an error.
    Refused,
}

/// An endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// One that the unit has.
    First,
    /// Another one.
    Second,
    /// One that it has not.
    Nobody,
}

/// One of two domains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    /// The first.
    A,
    /// The second.
    B,
}

/// One request. Pages are `first..=last`, as on the wire.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    /// ATTACH.
    Attach(Who, Domain),
    /// MAP, to read and write.
    Map(Domain, u64, u64),
    /// MAP without any right.
    MapWithoutRights(Domain, u64, u64),
    /// MAP of half a page.
    MapHalf(Domain, u64),
    /// UNMAP.
    Unmap(Domain, u64, u64),
    /// PROBE.
    Probe(Who),
}

use Answer::{Done, Refused};
use Domain::{A, B};
use Request::{Attach, Map, MapHalf, MapWithoutRights, Probe, Unmap};
use Who::{First, Nobody, Second};

const START: (Request, Answer) = (Attach(First, A), Done);
const TEN: &[u64] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

const fn row(name: &'static str, steps: &'static [(Request, Answer)], left: &'static [u64]) -> Row {
    Row { name, steps, left, software: None }
}

const fn but(row: Row, answer: Answer, left: &'static [u64], why: &'static str) -> Row {
    Row { software: Some(Difference { answer, left, why }), ..row }
}

const KEEPS: &str = "the software IOMMU is not reset after a refused UNMAP, and cuts nothing";
const KNOWS_ALL: &str = "the software IOMMU has every endpoint";

/// The table.
pub const ROWS: &[Row] = &[
    row("unmap example 1: nothing is mapped", &[START, (Unmap(A, 0, 4), Done)], &[]),
    row(
        "unmap example 2: one mapping",
        &[START, (Map(A, 0, 9), Done), (Unmap(A, 0, 9), Done)],
        &[],
    ),
    row(
        "unmap example 3: two mappings that touch",
        &[START, (Map(A, 0, 4), Done), (Map(A, 5, 9), Done), (Unmap(A, 0, 9), Done)],
        &[],
    ),
    but(
        row(
            "unmap example 4: a part of a mapping",
            &[START, (Map(A, 0, 9), Done), (Unmap(A, 0, 4), Refused)],
            &[],
        ),
        Refused,
        TEN,
        KEEPS,
    ),
    row(
        "unmap example 5: the first of two mappings",
        &[START, (Map(A, 0, 4), Done), (Map(A, 5, 9), Done), (Unmap(A, 0, 4), Done)],
        &[5, 6, 7, 8, 9],
    ),
    row(
        "unmap example 6: more than is mapped",
        &[START, (Map(A, 0, 4), Done), (Unmap(A, 0, 9), Done)],
        &[],
    ),
    row(
        "unmap example 7: over a hole",
        &[START, (Map(A, 0, 4), Done), (Map(A, 10, 14), Done), (Unmap(A, 0, 14), Done)],
        &[],
    ),
    but(
        row(
            "unmap that cuts the last of three mappings",
            &[
                START,
                (Map(A, 0, 0), Done),
                (Map(A, 2, 2), Done),
                (Map(A, 4, 5), Done),
                (Unmap(A, 0, 4), Refused),
            ],
            &[],
        ),
        Refused,
        &[0, 2, 4, 5],
        KEEPS,
    ),
    row(
        "map beside a mapping",
        &[START, (Map(A, 4, 5), Done), (Map(A, 2, 3), Done), (Map(A, 6, 7), Done)],
        &[2, 3, 4, 5, 6, 7],
    ),
    row(
        "map of what is mapped",
        &[START, (Map(A, 0, 4), Done), (Map(A, 0, 4), Refused)],
        &[0, 1, 2, 3, 4],
    ),
    row(
        "map inside a mapping",
        &[START, (Map(A, 0, 4), Done), (Map(A, 2, 2), Refused)],
        &[0, 1, 2, 3, 4],
    ),
    row("map around a mapping", &[START, (Map(A, 2, 3), Done), (Map(A, 0, 9), Refused)], &[2, 3]),
    row(
        "map over the start of a mapping",
        &[START, (Map(A, 2, 3), Done), (Map(A, 0, 2), Refused)],
        &[2, 3],
    ),
    row(
        "map over the end of a mapping",
        &[START, (Map(A, 2, 3), Done), (Map(A, 3, 9), Refused)],
        &[2, 3],
    ),
    row("map in a domain that is not there", &[(Map(A, 0, 0), Refused)], &[]),
    row("map in another domain that is not there", &[START, (Map(B, 0, 0), Refused)], &[]),
    row("unmap in a domain that is not there", &[(Unmap(A, 0, 0), Refused)], &[]),
    row(
        "the first mapping after a refused one",
        &[START, (Map(A, 0, 0), Done), (Map(A, 0, 0), Refused), (Map(A, 1, 1), Done)],
        &[0, 1],
    ),
    // What the API has to check, because neither unit does.
    row("map without a right", &[START, (MapWithoutRights(A, 0, 0), Done)], &[]),
    row("map of half a page", &[START, (MapHalf(A, 0), Done)], &[0]),
    // ATTACH.
    but(
        row("attach of an endpoint that is not there", &[(Attach(Nobody, A), Refused)], &[]),
        Done,
        &[],
        KNOWS_ALL,
    ),
    but(
        row("probe of an endpoint that is not there", &[(Probe(Nobody), Refused)], &[]),
        Done,
        &[],
        KNOWS_ALL,
    ),
    row("probe of an endpoint that is there", &[(Probe(First), Done)], &[]),
    row(
        "attach to the same domain again: its mappings are gone",
        &[START, (Map(A, 0, 4), Done), START],
        &[],
    ),
    row(
        "attach to the same domain again, beside another endpoint: they stay",
        &[START, (Attach(Second, A), Done), (Map(A, 0, 1), Done), START],
        &[0, 1],
    ),
    row(
        "the domain that the last endpoint leaves loses its mappings",
        &[START, (Map(A, 0, 4), Done), (Attach(First, B), Done), (Map(B, 8, 8), Done), START],
        &[],
    ),
    row(
        "the domain that one of two endpoints leaves keeps them",
        &[START, (Attach(Second, A), Done), (Map(A, 0, 1), Done), (Attach(First, B), Done), START],
        &[0, 1],
    ),
    row(
        "what is mapped in another domain",
        &[START, (Attach(Second, B), Done), (Map(A, 0, 1), Done), (Map(B, 4, 5), Done)],
        &[0, 1],
    ),
];

/// A unit that was just started, and how to see what its first endpoint reaches.
pub struct Subject<'a> {
    /// Which kind.
    pub kind: Kind,
    /// Its driver.
    pub driver: &'a dyn Driver,
    /// For the records, which stay empty.
    pub pool: &'static Pool,
    /// [`Who::First`], [`Who::Second`] and [`Who::Nobody`].
    pub endpoints: [EndpointId; 3],
    /// Memory for all [`PAGES`].
    pub memory: PhysAddr,
    /// Whether a write of the first endpoint to this address comes to this memory.
    pub reaches: &'a dyn Fn(Iova, PhysAddr) -> bool,
}

/// Sends the requests of a row, and looks.
///
/// # Panics
///
/// When an answer is another one, or other pages are reached.
pub fn play(row: &Row, subject: &Subject<'_>) {
    let Row { name, steps, left, software } = *row;
    let software = software.filter(|_| subject.kind == Kind::Software);
    let domains = [0, 1].map(|_| {
        subject.driver.alloc_domain(DomainFeatures::empty()).expect("the unit has a domain left")
    });
    // How many endpoints are on each domain decides whether the driver sends anything, and where
    // each one is decides how many there are. Requests to a domain without any are sent as well.
    let mut places: [Option<Domain>; 3] = [None; 3];
    let empty = Mappings::new(subject.pool);
    let view = |domain: Domain, endpoints: usize| DomainView {
        id: domains[domain as usize],
        endpoints,
        features: DomainFeatures::empty(),
        dirty: false,
        mappings: &empty,
    };
    for (index, (request, expected)) in steps.iter().enumerate() {
        let is_last = index + 1 == steps.len();
        let expected = software.filter(|_| is_last).map_or(*expected, |other| other.answer);
        let answer = match *request {
            Attach(who, domain) => {
                let others = (0..3).filter(|at| *at != who as usize);
                let count = others.filter(|at| places[*at] == Some(domain)).count();
                let old = places[who as usize].map(|old| domains[old as usize]);
                let endpoint = [subject.endpoints[who as usize]];
                let answer = subject.driver.attach(&endpoint, &view(domain, count), old);
                places[who as usize] = Some(domain);
                answer.is_ok()
            }
            Map(domain, first, last) => {
                let run = subject.run(first, (last - first + 1) * PAGE, Prot::RW);
                subject.driver.map(&view(domain, 1), &[run]).is_ok()
            }
            MapWithoutRights(domain, first, last) => {
                let run = subject.run(first, (last - first + 1) * PAGE, Prot::empty());
                subject.driver.map(&view(domain, 1), &[run]).is_ok()
            }
            MapHalf(domain, page) => {
                let run = subject.run(page, PAGE / 2, Prot::RW);
                subject.driver.map(&view(domain, 1), &[run]).is_ok()
            }
            Unmap(domain, first, last) => {
                let range = subject.run(first, (last - first + 1) * PAGE, Prot::RW).range;
                let (view, mut gather) = (view(domain, 1), Gather::new());
                let answer = subject.driver.unmap(&view, &[range], &mut gather);
                answer.and_then(|()| subject.driver.sync(&view, &mut gather)).is_ok()
            }
            Probe(who) => subject.driver.probe(subject.endpoints[who as usize]).is_ok(),
        };
        assert_eq!(answer, expected == Done, "{name}: step {index}, {request:?}");
    }
    let left = software.map_or(left, |other| other.left);
    for page in 0..PAGES {
        let Run { range, phys, .. } = subject.run(page, PAGE, Prot::RW);
        let reaches = (subject.reaches)(range.first(), phys);
        assert_eq!(reaches, left.contains(&page), "{name}: page {page}");
    }
}

impl Subject<'_> {
    fn run(&self, page: u64, len: u64, prot: Prot) -> Run {
        let range = IovaRange::from_len(Iova(AT + page * PAGE), len).expect("does not wrap");
        Run { range, phys: PhysAddr(self.memory.0 + page * PAGE), prot }
    }
}
