//! EBUSY: requests that meet a call at work (rules T1-582, T1-583), by both routes. The host's code
//! asks while it is called, so it is known what is at work: the provider while it pins, charges and
//! copies, and the user's memory while it is written.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use iommu::container::Kind;
use iommu::container::abi::{UserFault, UserMemory, backend_ioctl};

use crate::fixture::World;
use crate::memory::{BASE, Fields, User};
use crate::route::{AT, Request, UNMAP};
use crate::worlds::{after, another_owner, plain, tracked, world};

const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;

fn all(flags: u32) -> Request {
    Request::unmap(0, 0).but(|r| (r.flags, r.iova) = (flags, 0))
}

/// Each request, by ioctl and by the typed call: refused with its errno, and nothing has changed.
fn refused(world: &'static World, requests: &[(Request, i32)]) {
    for (request, errno) in requests {
        let before = world.content();
        assert_eq!(request.ask(world), *errno, "{request:x?}");
        if let Some(called) = request.call(world) {
            assert_eq!(called, *errno, "typed: {request:x?}");
        }
        assert_eq!(world.content(), before, "{request:x?}");
    }
}

/// Runs `call`; in the first call of the provider the requests are made.
fn at_work(
    world: &'static World,
    call: impl FnOnce(&'static World),
    requests: Vec<(Request, i32)>,
) {
    let once = Arc::new(Mutex::new(Some(requests)));
    let left = once.clone();
    world.memory.hook(move || {
        let now = once.lock().unwrap().take();
        if let Some(requests) = now {
            refused(world, &requests);
        }
    });
    call(world);
    world.memory.unhook();
    assert!(left.lock().unwrap().is_none(), "the provider was called");
    world.container.check_invariants().unwrap();
}

#[test]
fn a_map_is_at_work() {
    let requests = vec![
        (Request::unmap(16, 4), EBUSY),
        (all(2), EBUSY),
        (Request::unmap_dirty(16, 4), EBUSY),
        (Request::invalidate(16, 4), EBUSY),
        (all(6), EBUSY),
        // Its whole range is taken from the start.
        (Request::map(16, 4), EEXIST),
        (Request::map(19, 1), EEXIST),
        // In two ways wrong: the range is looked at first.
        (Request::unmap(17, 1), EINVAL),
    ];
    at_work(tracked(), |world| assert_eq!(Request::map(16, 4).ask(world), 0), requests);
}

#[test]
fn an_attach_is_at_work() {
    let bare = after(world(1, Kind::V2, 4), |world| {
        assert_eq!(Request::map(0, 4).ask(world), 0);
    });
    let requests = vec![
        (Request::unmap(0, 4), EBUSY),
        (all(2), EBUSY),
        (Request::invalidate(0, 4), EBUSY),
        (Request::map(0, 4), EEXIST),
        (Request::map(2, 8), EEXIST),
        // Nothing is at work there, but no address may become void now (T1-150).
        (Request::invalidate(32, 4), EBUSY),
    ];
    let attach = |world: &'static World| {
        let _ = world.attached(0);
    };
    at_work(bare, attach, requests);
    assert_eq!(Request::unmap(0, 4).ask(bare), 0);
}

#[test]
fn a_copy_is_at_work() {
    let requests = || {
        let busy = [Request::unmap(0, 4), all(2), Request::invalidate(0, 4)];
        busy.map(|request| (request, EBUSY)).to_vec()
    };
    at_work(plain(), |world| world.container.dma_read(AT, &mut [0; 8]).unwrap(), requests());
    at_work(plain(), |world| world.container.dma_write(AT, &[0; 8]).unwrap(), requests());
}

#[test]
fn a_change_of_owner_is_at_work() {
    let mover = after(another_owner(), |world| world.memory.limit(100));
    let requests = vec![
        (Request::unmap(0, 4), EBUSY),
        (Request::invalidate(0, 4), EBUSY),
        (Request::map(0, 4), EEXIST),
    ];
    at_work(mover, |world| assert_eq!(Request::update(0, 4).ask(world), 0), requests);
    assert_eq!((mover.memory.charged_to(9), mover.memory.charged_to(0)), (4, 4));
}

/// User memory that makes requests when it is written.
struct Asking<'a> {
    user: &'a User,
    world: &'static World,
    requests: RefCell<Vec<(Request, i32)>>,
}

impl UserMemory for Asking<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), UserFault> {
        self.user.read(address, into)
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), UserFault> {
        refused(self.world, &self.requests.take());
        self.user.write(address, from)
    }

    fn is_user_range(&self, address: u64, len: u64) -> bool {
        self.user.is_user_range(address, len)
    }
}

#[test]
fn an_unmap_is_at_work() {
    // The mapping is void as well, so that a new address for it can be asked for.
    let world = after(tracked(), |world| assert_eq!(Request::invalidate(0, 4).ask(world), 0));
    let user = User::new(72);
    let head = Fields::default().u32(48).u32(1).u64(AT).u64(0x4000);
    user.put(0, &head.u64(0x1000).u64(8).u64(BASE + 64).0);
    let requests = vec![
        (Request::unmap(0, 4), EBUSY),
        (Request::unmap_dirty(0, 4), EBUSY),
        (all(2), EBUSY),
        (Request::invalidate(0, 4), EBUSY),
        (Request::update(0, 4), EBUSY),
        (Request::map(0, 4), EEXIST),
    ];
    let asking = Asking { user: &user, world, requests: RefCell::new(requests) };
    assert_eq!(backend_ioctl(&world.container, &asking, UNMAP, BASE), Ok(0));
    assert!(asking.requests.borrow().is_empty(), "the bitmap was written");
    assert_eq!(world.container.mapping_count(), 1);
    world.container.check_invariants().unwrap();
}

/// The same with a thread of its own: what waits for the provider stops nobody, and is not undone.
#[test]
fn another_thread_is_at_work() {
    use std::sync::mpsc::channel;
    let world = plain();
    let ((inside, is_inside), (leave, may_leave)) = (channel(), channel());
    let gate = Mutex::new(Some((inside, may_leave)));
    world.memory.hook(move || {
        let first = gate.lock().unwrap().take();
        if let Some((inside, may_leave)) = first {
            inside.send(()).unwrap();
            may_leave.recv_timeout(std::time::Duration::from_secs(60)).expect("nobody was stopped");
        }
    });
    let mapper = std::thread::spawn(move || Request::map(16, 4).ask(world));
    is_inside.recv().unwrap();
    let requests = [(Request::unmap(16, 4), EBUSY), (Request::map(16, 4), EEXIST)];
    refused(world, &requests);
    assert_eq!((Request::unmap(0, 4).ask(world), Request::map(0, 4).ask(world)), (0, 0));
    leave.send(()).unwrap();
    assert_eq!(mapper.join().unwrap(), 0);
    world.memory.unhook();
    assert_eq!(Request::unmap(16, 4).ask(world), 0);
    world.container.check_invariants().unwrap();
}
