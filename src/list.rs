//! The intrusive lists that link instances, groups, devices and what a container holds.
//!
//! - Owner: a list owns one count of every [`Shared`] node on it; `remove` hands it back, dropping
//!   the list drops it. A node is on at most one list per link.
//! - Lock: each list lives inside the state that its lock guards (`docs/locking.md`), and links are
//!   touched only through the list.
#![expect(unsafe_code, reason = "turns counted owners into list pointers and back")]

use core::fmt;

use intrusive_collections::linked_list::Cursor;
use intrusive_collections::{
    Adapter, DefaultPointerOps, LinkedList, LinkedListAtomicLink, UnsafeRef, intrusive_adapter,
};

use crate::device::Device;
use crate::group::Group;
use crate::instance::Instance;
use crate::pool::Shared;
use crate::sync::RawLock;

/// The link that a listable type carries.
pub(crate) type Link = LinkedListAtomicLink;

/// The list that a type is on as itself: devices of a group, groups of a registry.
pub(crate) enum Main {}

/// The second list of a device: those that translate through a domain.
pub(crate) enum OnDomain {}

/// What a list element type brings for each list that it can be on: its adapter.
pub(crate) trait Listed<L = Main>: Sized {
    type Adapter: Adapter<PointerOps = DefaultPointerOps<UnsafeRef<Self>>, LinkOps: LinkOps>
        + Copy
        + 'static;
    const ADAPTER: Self::Adapter;
    fn hook(&self) -> &Link;
}

pub(crate) use intrusive_collections::linked_list::LinkedListOps as LinkOps;

macro_rules! listed {
    ($adapter:ident, $node:ident) => {
        $crate::list::listed!($adapter, $node, link, $crate::list::Main);
    };
    ($adapter:ident, $node:ident, $field:ident, $list:ty) => {
        intrusive_adapter!(pub(crate) $adapter =
            intrusive_collections::UnsafeRef<$node>: $node { $field => $crate::list::Link });
        $crate::list::listed!(@ $node, $adapter, $field, $list, );
    };
    ($adapter:ident, $node:ident<$lock:ident>) => {
        intrusive_adapter!(pub(crate) $adapter<$lock> =
            intrusive_collections::UnsafeRef<$node<$lock>>: $node<$lock> { link => $crate::list::Link }
            where $lock: RawLock);
        $crate::list::listed!(@ $node<$lock>, $adapter<$lock>, link, $crate::list::Main, $lock: RawLock);
    };
    (@ $node:ty, $adapter:ty, $field:ident, $list:ty, $($bound:tt)*) => {
        impl<$($bound)*> $crate::list::Listed<$list> for $node {
            type Adapter = $adapter;
            const ADAPTER: Self::Adapter = <$adapter>::NEW;
            fn hook(&self) -> &$crate::list::Link {
                &self.$field
            }
        }
    };
}
pub(crate) use listed;

listed!(InstanceAdapter, Instance<R>);
listed!(GroupAdapter, Group<R>);
listed!(DeviceAdapter, Device);
listed!(DomainMemberAdapter, Device, on_domain, OnDomain);

/// A list of counted nodes, in order of insertion unless pushed at the front.
pub(crate) struct List<T: Listed<L>, L = Main> {
    nodes: LinkedList<T::Adapter>,
}

impl<T: Listed<L>, L> List<T, L> {
    pub(crate) const fn new() -> Self {
        Self { nodes: LinkedList::new(T::ADAPTER) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    #[cfg(feature = "container")]
    pub(crate) fn push_front(&mut self, node: Shared<T>) {
        let node = pointer::<T, L>(node);
        self.nodes.push_front(node);
    }

    pub(crate) fn push_back(&mut self, node: Shared<T>) {
        let node = pointer::<T, L>(node);
        self.nodes.push_back(node);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.nodes.iter()
    }

    /// Calls `each` with a further owner of every node, in order.
    pub(crate) fn for_each_shared(&self, mut each: impl FnMut(Shared<T>)) {
        let mut cursor = self.nodes.front();
        while let Some(node) = shared_at::<T, L>(&cursor) {
            each(node);
            cursor.move_next();
        }
    }

    /// Returns a further owner of the first node that `pick` accepts.
    pub(crate) fn find(&self, mut pick: impl FnMut(&&T) -> bool) -> Option<Shared<T>> {
        let mut cursor = self.nodes.front();
        while !pick(&cursor.get()?) {
            cursor.move_next();
        }
        shared_at(&cursor)
    }

    /// Takes the first node that `pick` accepts off the list.
    pub(crate) fn remove(&mut self, mut pick: impl FnMut(&T) -> bool) -> Option<Shared<T>> {
        let mut cursor = self.nodes.front_mut();
        while !pick(cursor.get()?) {
            cursor.move_next();
        }
        cursor.remove().map(owner)
    }

    pub(crate) fn pop_front(&mut self) -> Option<Shared<T>> {
        self.nodes.pop_front().map(owner)
    }
}

/// A further owner of the node that a cursor points to.
fn shared_at<T: Listed<L>, L>(cursor: &Cursor<'_, T::Adapter>) -> Option<Shared<T>> {
    // The list's own pointer: one made from the `&T` may not reach the count, nor free the node.
    let node = UnsafeRef::into_raw(cursor.clone_pointer()?);
    // SAFETY: every node was made a pointer by `pointer`, and the list still holds that owner.
    Some(unsafe { Shared::clone_raw(node) })
}

fn pointer<T: Listed<L>, L>(node: Shared<T>) -> UnsafeRef<T> {
    // A second insert would corrupt two lists; `intrusive-collections` panics on it, and no public
    // call can make it happen: nodes are inserted once, by the call that makes them.
    debug_assert!(!node.hook().is_linked(), "node is on a list already");
    // SAFETY: the owner that `into_raw` gives up keeps the value alive until `owner` takes it back.
    unsafe { UnsafeRef::from_raw(node.into_raw()) }
}

fn owner<T>(node: UnsafeRef<T>) -> Shared<T> {
    // SAFETY: the list gives each pointer back once, and each came from `Shared::into_raw`.
    unsafe { Shared::from_raw(UnsafeRef::into_raw(node)) }
}

impl<T: Listed<L>, L> Drop for List<T, L> {
    fn drop(&mut self) {
        while self.pop_front().is_some() {}
    }
}

impl<T: Listed<L> + fmt::Debug, L> fmt::Debug for List<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
