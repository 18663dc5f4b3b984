//! From a request to the backend's call and back (rules T1-060 to T1-084, T1-354 to T1-357,
//! T1-369, T1-416).

use iommu::container::abi::{Command, Errno, backend_ioctl, ioctl, request};
use iommu::container::{DirtyRange, Kind, MapDma, UnmapDma, UpdateVaddr};
use iommu::prot::Prot;

use crate::fake::{Call, Fake, File};
use crate::memory::{BASE, Fields, User};

const UNMAP: u32 = request::IOMMU_UNMAP_DMA;
const DIRTY: u32 = request::IOMMU_DIRTY_PAGES;

fn opened() -> File {
    let file = File::default();
    file.groups.set(1);
    file.open.set(true);
    file
}

/// T1-555 to T1-557.
#[test]
fn request_numbers() {
    let numbers = [
        (request::GET_API_VERSION, 15204),
        (request::CHECK_EXTENSION, 15205),
        (request::SET_IOMMU, 15206),
        (request::GROUP_GET_STATUS, 15207),
        (request::GROUP_SET_CONTAINER, 15208),
        (request::GROUP_UNSET_CONTAINER, 15209),
        (request::GROUP_GET_DEVICE_FD, 15210),
        (request::IOMMU_GET_INFO, 15216),
        (request::IOMMU_MAP_DMA, 15217),
        (request::IOMMU_UNMAP_DMA, 15218),
        (request::IOMMU_ENABLE, 15219),
        (request::IOMMU_DISABLE, 15220),
        (request::IOMMU_DIRTY_PAGES, 15221),
    ];
    for (request, number) in numbers {
        assert_eq!(request, number);
        assert_eq!(request >> 8, 0x3B);
    }
}

/// T1-061, T1-069: what is answered without a backend, and what is not.
#[test]
fn every_request_without_and_with_a_backend() {
    let known = [0x3B64, 0x3B65, 0x3B66, 0x3B70, 0x3B71, 0x3B72, 0x3B75];
    for request in (0x3B00..0x3C00).chain([0, u32::MAX, 0x3B71 | 1 << 30, 0xC020_3B71]) {
        let (closed, user) = (File::default(), User::new(0));
        for groups in [0, 1] {
            closed.groups.set(groups);
            let answer = ioctl(&closed, &user, request, BASE);
            let expected = match request {
                0x3B64 | 0x3B65 => Ok(0),
                0x3B66 if groups == 1 => Err(Errno::NODEV),
                _ => Err(Errno::INVAL),
            };
            assert_eq!(answer, expected, "{request:#x}: nothing is read");
        }
        let answer = ioctl(&opened(), &user, request, BASE);
        let expected = match request {
            0x3B64 | 0x3B65 => Ok(0),
            0x3B66 => Err(Errno::INVAL),
            _ if known.contains(&request) => Err(Errno::FAULT),
            _ => Err(Errno::NOTTY),
        };
        assert_eq!(answer, expected, "{request:#x}");
        if !known.contains(&request) {
            assert_eq!(Command::decode(request, BASE, &user), Err(Errno::NOTTY));
        }
    }
    for request in [request::GET_API_VERSION, request::SET_IOMMU] {
        let answer = backend_ioctl(&Fake::default(), &User::new(0), request, 1);
        assert_eq!(answer, Err(Errno::NOTTY), "not the backend's");
    }
}

/// T1-070, T1-080 to T1-084.
#[test]
fn every_extension() {
    let user = User::new(0);
    let (closed, open) = (File::default(), opened());
    for number in (0..=64).chain([1 << 32 | 1, u64::MAX]) {
        let ask = |file: &File| ioctl(file, &user, request::CHECK_EXTENSION, number).unwrap();
        let fixed = i32::from([1, 3, 9].contains(&number));
        assert_eq!(ask(&closed), fixed, "{number} without a backend");
        for (coherent, emulated) in [(false, false), (false, true), (true, false), (true, true)] {
            open.backend.coherent.set(coherent);
            open.backend.emulated.set(emulated);
            let expected = match number {
                4 => coherent.into(),
                10 => (!emulated).into(),
                _ => fixed,
            };
            assert_eq!(ask(&open), expected, "{number}");
        }
    }
}

/// T1-062 to T1-064, in their order.
#[test]
fn setting_the_backend() {
    let user = User::new(0);
    let set = |file: &File, number| ioctl(file, &user, request::SET_IOMMU, number);
    for number in (0..=16).chain([1 << 32 | 1, u64::MAX]) {
        let file = File::default();
        assert_eq!(set(&file, number), Err(Errno::INVAL), "no group");
        file.groups.set(2);
        let expected = match number {
            1 => Ok(Kind::V1),
            3 => Ok(Kind::V2),
            9 => Err(Errno::INVAL), // an extension of the backend, so accepted, but no kind of it
            _ => Err(Errno::NODEV),
        };
        assert_eq!(Kind::from_number(number), expected, "{number}");
        assert_eq!(set(&file, number), expected.map(|_| 0), "{number}");
        assert_eq!(file.open.get(), expected.is_ok());
        if let Ok(kind) = expected {
            assert_eq!((kind, number), (file.backend.kind.get(), kind.number()));
            assert_eq!(set(&file, number), Err(Errno::INVAL), "set already");
            assert_eq!(set(&file, 77), Err(Errno::INVAL), "set already, before the number");
        }
    }
    let file = File::default();
    file.groups.set(1);
    file.backend.refuse.set(Some(Errno(1)));
    assert_eq!(set(&file, 3), Err(Errno(1)), "the error of an attach");
    assert_eq!(set(&file, 6), Err(Errno::NODEV), "nesting, before any attach");
}

#[test]
fn every_call_arrives() {
    let head = |argsz: u32, flags: u32| Fields::default().u32(argsz).u32(flags);
    let range = |fields: Fields| fields.u64(0x4000).u64(0x3000);
    let bitmap = |fields: Fields| fields.u64(0x1000).u64(8).u64(BASE + 64);
    let (iova, size) = (0x4000, 0x3000);
    let of_range = UnmapDma::Range { iova, size };
    let dirty = DirtyRange { iova, size, page_size: 0x1000 };
    let map = head(32, 1).u64(0x9000).u64(iova).u64(size);
    let update = head(32, 4).u64(0x9000).u64(iova).u64(size);
    let map_dma = MapDma { iova, vaddr: 0x9000, size, prot: Prot::READ };
    let cases = [
        (0x3B70, head(16, 0).u64(0), Call::Info),
        (0x3B71, map, Call::Map(map_dma)),
        (0x3B71, update, Call::Update(UpdateVaddr { iova, vaddr: 0x9000, size })),
        (0x3B72, range(head(24, 0)), Call::Unmap(of_range)),
        (0x3B72, head(24, 2).u64(0).u64(0), Call::Unmap(UnmapDma::All)),
        (0x3B72, bitmap(range(head(48, 1))), Call::UnmapDirty(dirty)),
        (0x3B72, range(head(24, 4)), Call::Invalidate(of_range)),
        (0x3B72, head(24, 6).u64(0).u64(0), Call::Invalidate(UnmapDma::All)),
        (0x3B75, head(8, 1), Call::Start),
        (0x3B75, head(8, 2), Call::Stop),
        (0x3B75, bitmap(range(head(48, 4))), Call::Get(dirty)),
    ];
    for (request, fields, call) in cases {
        let file = opened();
        let user = User::new(128);
        user.put(0, &fields.0);
        let before = user.bytes();
        assert_eq!(ioctl(&file, &user, request, BASE), Ok(0), "{call:?}");
        assert_eq!(file.backend.taken(), std::slice::from_ref(&call));
        let mut after = before.clone();
        match call {
            // T1-525: too short for the chain, the 16 bytes that there are.
            Call::Info => after[..16].copy_from_slice(&head(104, 3).u64(0x1000).0),
            Call::Unmap(_) | Call::UnmapDirty(_) | Call::Invalidate(_) => {
                after[16..24].copy_from_slice(&0x3000_u64.to_ne_bytes());
            }
            _ => {} // T1-289: not written back
        }
        assert_eq!(user.bytes(), after, "{call:?}");

        user.put(0, &fields.0);
        file.backend.refuse.set(Some(Errno(77)));
        assert_eq!(ioctl(&file, &user, request, BASE), Err(Errno(77)));
        assert_eq!(user.bytes(), before, "refused, and written: {call:?}");

        if request == 0x3B75 {
            file.backend.taken();
            file.backend.kind.set(Kind::V1);
            assert_eq!(ioctl(&file, &user, request, BASE), Err(Errno::ACCES));
            assert_eq!(ioctl(&file, &user, request, 0), Err(Errno::ACCES), "before reading");
            assert_eq!(file.backend.taken(), []);
        }
    }
}

/// The bits reach the user's bitmap, for GET and for unmap.
#[test]
fn dirty_bits_arrive() {
    for (request, flags, size_after) in [(DIRTY, 4, 0x8_0000_u64), (UNMAP, 1, 0x3000)] {
        let file = opened();
        *file.backend.bits.borrow_mut() = vec![(0, vec![0x81 | 0xf0 << 56]), (1, vec![0xf0_0f])];
        let user = User::new(80);
        let head = Fields::default().u32(48).u32(flags);
        user.put(0, &head.u64(0x10_0000).u64(0x8_0000).u64(0x1000).u64(16).u64(BASE + 56).0);
        user.put(56, &[0; 16]);
        assert_eq!(ioctl(&file, &user, request, BASE), Ok(0));
        let bitmap = &user.bytes()[56..72];
        assert_eq!(bitmap, [0x81, 0, 0, 0, 0, 0, 0, 0xf0, 0x0f, 0xf0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(user.bytes()[72..], [0xA5; 8]);
        assert_eq!(user.bytes()[16..24], size_after.to_ne_bytes(), "the size, or as it was");

        file.backend.bits.borrow_mut().push((2, vec![1]));
        assert_eq!(ioctl(&file, &user, request, BASE), Err(Errno::FAULT), "beyond the bitmap");
        assert_eq!(user.bytes()[72..], [0xA5; 8]);
    }
}

/// T1-354 before T1-355 before T1-357, none of them in the backend.
#[test]
fn unmaps_with_two_faults() {
    let large = 1 << 32;
    let cases = [
        (6, large, 1, true, Err(Errno::BUSY), "emulated before too large"),
        (6, large, 1, false, Err(Errno::OVERFLOW), "too large before not empty"),
        (2, large, 1, true, Err(Errno::OVERFLOW), "emulated groups matter for addresses only"),
        (2, 1, 0, false, Err(Errno::INVAL), "all, with an IOVA"),
        (2, 0, 1, false, Err(Errno::INVAL), "all, with a size"),
        (6, 0, 1, false, Err(Errno::INVAL), "all, with a size"),
        (4, 0, 0x1000, true, Err(Errno::BUSY), "emulated"),
        (0, 0, large, false, Err(Errno::OVERFLOW), "a size too large"),
        (0, 0, large - 1, true, Ok(0), "the rest is the backend's"),
    ];
    for (flags, iova, size, emulated, expected, why) in cases {
        let backend = Fake::default();
        backend.emulated.set(emulated);
        let user = User::with(&Fields::default().u32(24).u32(flags).u64(iova).u64(size).0);
        user.native_max.set(u32::MAX.into());
        let before = user.bytes();
        assert_eq!(backend_ioctl(&backend, &user, UNMAP, BASE), expected, "{why}");
        assert_eq!(backend.taken().is_empty(), expected.is_err(), "{why}");
        assert_eq!(user.bytes() == before, expected.is_err(), "{why}");
    }
}

/// The mappings are gone, and the program can't be told how many: as in Linux.
#[test]
fn an_unmap_whose_answer_can_not_be_delivered() {
    let backend = Fake::default();
    let user = User::with(&Fields::default().u32(24).u32(2).u64(0).u64(0).0);
    user.read_only.set(BASE);
    assert_eq!(backend_ioctl(&backend, &user, UNMAP, BASE), Err(Errno::FAULT));
    assert_eq!(backend.taken(), [Call::Unmap(UnmapDma::All)]);
}
