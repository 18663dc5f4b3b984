//! The container behind the dispatch: real mappings, and random requests.

use iommu::container::abi::{Backend, Errno, UserMemory, backend_ioctl, request};
use iommu::container::{Container, IdentityMemory, Kind, Options};
use iommu::pool::Pool;
use proptest::prelude::*;

use crate::fake::Fake;
use crate::memory::{BASE, Fields, User};

fn container() -> Container<IdentityMemory> {
    of_kind(Kind::V2)
}

fn of_kind(kind: Kind) -> Container<IdentityMemory> {
    let pool: &'static Pool = Box::leak(Box::new(Pool::heap()));
    Container::new(pool, IdentityMemory, Options { kind, ..Options::default() })
}

fn call(container: &impl Backend, request: u32, fields: &Fields) -> (Result<i32, Errno>, Vec<u8>) {
    let user = User::with(&fields.0);
    (backend_ioctl(container, &user, request, BASE), user.bytes())
}

fn map(flags: u32, vaddr: u64, iova: u64, size: u64) -> Fields {
    Fields::default().u32(32).u32(flags).u64(vaddr).u64(iova).u64(size)
}

fn unmap(flags: u32, iova: u64, size: u64) -> Fields {
    Fields::default().u32(24).u32(flags).u64(iova).u64(size)
}

/// What an unmodified program does, and what it sees.
#[test]
fn a_program_maps_and_unmaps() {
    let container = container();
    let (map_dma, unmap_dma) = (request::IOMMU_MAP_DMA, request::IOMMU_UNMAP_DMA);
    for number in [0, 1] {
        let fields = map(3, 0x8000, 0x10_0000 + number * 0x2000, 0x2000);
        assert_eq!(call(&container, map_dma, &fields).0, Ok(0));
        assert_eq!(call(&container, map_dma, &fields).0, Err(Errno::EXIST), "T1-268");
    }
    assert_eq!(container.mapping_count(), 2);
    let (answer, bytes) = call(&container, request::IOMMU_GET_INFO, &Fields(vec![72; 72]));
    assert_eq!(answer, Ok(0), "an argsz that is large enough");
    assert_eq!(bytes[4..8], 3_u32.to_ne_bytes());
    assert_eq!(bytes[8..16], (!0xfff_u64).to_ne_bytes());
    assert_eq!(bytes[64..68], 65_533_u32.to_ne_bytes(), "T1-033, T1-528");
    let (answer, bytes) = call(&container, unmap_dma, &unmap(0, 0x10_1000, 0x1000));
    assert_eq!(answer, Err(Errno::INVAL), "T1-361");
    assert_eq!(bytes, unmap(0, 0x10_1000, 0x1000).0);
    let (answer, bytes) = call(&container, unmap_dma, &unmap(0, 0, 0x10_2000));
    assert_eq!((answer, bytes), (Ok(0), unmap(0, 0, 0x2000).0));
    let (answer, bytes) = call(&container, unmap_dma, &unmap(2, 0, 0));
    assert_eq!((answer, bytes), (Ok(0), unmap(2, 0, 0x2000).0));
    assert_eq!(container.mapping_count(), 0);
    let (answer, bytes) = call(&container, unmap_dma, &unmap(0, 0, 0x1000));
    assert_eq!((answer, bytes), (Ok(0), unmap(0, 0, 0).0), "T1-365: nothing there");
}

/// Misalignment, T1-266, T1-356, T1-358, T1-359, in the order of the rules.
#[test]
fn the_container_takes_the_checks_up() {
    let container = container();
    let cases = [
        (request::IOMMU_MAP_DMA, map(3, 0x8001, 0, 0x1000), Errno::INVAL),
        (request::IOMMU_MAP_DMA, map(3, u64::MAX, 1, 0x1001), Errno::OVERFLOW),
        (request::IOMMU_UNMAP_DMA, unmap(0, 1, 0), Errno::INVAL),
        (request::IOMMU_UNMAP_DMA, unmap(0, !0xfff, 0x1001), Errno::INVAL),
        (request::IOMMU_UNMAP_DMA, unmap(0, !0xfff, 0x2000), Errno::OVERFLOW),
    ];
    for (request, fields, errno) in cases {
        assert_eq!(call(&container, request, &fields), (Err(errno), fields.0.clone()));
    }
}

const REQUESTS: [u32; 6] = [
    request::CHECK_EXTENSION,
    request::IOMMU_GET_INFO,
    request::IOMMU_MAP_DMA,
    request::IOMMU_UNMAP_DMA,
    request::IOMMU_ENABLE,
    request::IOMMU_DIRTY_PAGES,
];

/// Words that are often right: flags and sizes of structures, pages, addresses of user memory.
fn word() -> impl Strategy<Value = u64> {
    let head = (0..60_u32, 0..8_u32).prop_map(|(argsz, flags)| {
        let fields = Fields::default().u32(argsz).u32(flags);
        u64::from_ne_bytes(fields.0.try_into().unwrap())
    });
    let page = (0..16_u64).prop_map(|page| page << 12);
    let small = 0..70_u64;
    let top = (0..0x3000_u64).prop_map(|by| u64::MAX - by);
    let user = (BASE..BASE + 128).boxed();
    prop_oneof![3 => head, 6 => page, 1 => small, 1 => top, 2 => user, 1 => any::<u64>()]
}

type Request = (u32, u64, Vec<u64>);

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let number = prop_oneof![6 => prop::sample::select(&REQUESTS[..]), 1 => any::<u32>()];
    let arg = prop_oneof![8 => BASE..BASE + 4, 1 => BASE + 60..BASE + 140, 1 => any::<u64>()];
    prop::collection::vec((number, arg, prop::collection::vec(word(), 1..16)), 1..24)
}

fn prepared(words: &[u64], arg: u64) -> User {
    let user = User::new(128);
    let shift = arg.wrapping_sub(BASE).min(3) as usize;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    user.put(shift, &bytes);
    user
}

proptest! {
    /// Nothing panics, and a request that is refused has changed nothing (but for a bitmap that is
    /// there in part: T1-374, T1-447).
    #[test]
    fn random_requests_to_the_container(requests in requests(), first in any::<bool>()) {
        let kind = if first { Kind::V1 } else { Kind::V2 };
        let container = of_kind(kind);
        prop_assert_eq!(Backend::kind(&container), kind);
        for (request, arg, words) in requests {
            let user = prepared(&words, arg);
            let before = (user.bytes(), container.mapping_count(), container.free_mappings());
            let answer = backend_ioctl(&container, &user, request, arg);
            let after = (user.bytes(), container.mapping_count(), container.free_mappings());
            if answer.is_err() {
                let bitmap = [request::IOMMU_UNMAP_DMA, request::IOMMU_DIRTY_PAGES];
                if answer != Err(Errno::FAULT) || !bitmap.contains(&request) {
                    prop_assert_eq!(before, after);
                }
            } else if after.1 > before.1 {
                prop_assert_eq!(request, request::IOMMU_MAP_DMA);
                prop_assert_eq!(before.0, after.0);
            }
        }
    }

    /// The same with a backend that has every feature; in memory that is there but can't be written,
    /// nothing is.
    #[test]
    fn random_requests_to_a_full_backend(requests in requests(), read_only in any::<bool>()) {
        let backend = Fake::default();
        backend.bits.borrow_mut().push((0, vec![!0, !0]));
        for (request, arg, words) in requests {
            let user = prepared(&words, arg);
            if read_only {
                user.read_only.set(0);
            }
            let before = user.bytes();
            let answer = backend_ioctl(&backend, &user, request, arg);
            let calls = backend.taken();
            prop_assert!(calls.len() <= 1);
            prop_assert!(answer.is_err() || calls.len() == 1 || request == request::CHECK_EXTENSION);
            if read_only || (calls.is_empty() && answer.is_err()) {
                prop_assert_eq!(user.bytes(), before);
            }
            if answer.is_err() && !calls.is_empty() {
                prop_assert_eq!(answer, Err(Errno::FAULT), "the backend refused nothing");
            }
        }
    }

    /// Bytes without any thought.
    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..128), request in any::<u32>(),
        which in 0..8_usize, arg in BASE..BASE + 130)
    {
        let user = User::with(&bytes);
        let request = REQUESTS.get(which).copied().unwrap_or(request);
        let answer = backend_ioctl(&container(), &user, request, arg);
        if answer.is_err() {
            prop_assert_eq!(user.bytes(), bytes);
        }
        prop_assert!(user.is_user_range(arg, 0));
    }
}
