//! Inserts. A first walk down finds which nodes must split; a second one allocates the new nodes
//! on its way down and changes the tree on its way up, when nothing can fail any more.
//!
//! A full leaf first spills into a sibling with room, which keeps leaves fuller than splits alone.
//! On the right edge a split leaves the old node full, so ascending inserts fill every node.

use super::node::{Entry, HEIGHT_MAX, Inner, LEAF_MAX, Leaf, Node, Slot, place, split};
use crate::addr::Iova;
use crate::error::OutOfMemory;
use crate::pool::{Owned, Pool};

/// A full leaf spills into a sibling with so many free places; fewer would not be worth the move.
const SPILL_ROOM: usize = LEAF_MAX / 4;
// Half of a place would leave the sibling full again.
const _: () = assert!(SPILL_ROOM >= 2);

/// Adds an entry that overlaps none. On failure the tree is unchanged.
pub(super) fn insert<V>(
    root: &mut Option<Node<V>>,
    pool: &'static Pool,
    entry: Entry<V>,
) -> Result<(), OutOfMemory> {
    let Some(node) = root else {
        let mut leaf = Owned::new(pool, Leaf::new())?;
        place(&mut leaf, 0, entry);
        *root = Some(Node::Leaf(leaf));
        return Ok(());
    };
    let splits_from = plan(node, entry.0.first())?;
    let top = if splits_from == 0 { Some(Owned::new(pool, Inner::new())?) } else { None };
    let Some(upper) = insert_below(node, pool, splits_from, true, entry)? else { return Ok(()) };
    let (Some(mut top), Some(lower)) = (top, root.take()) else {
        unreachable!("a root splits as planned");
    };
    if let Some(first) = lower.first() {
        place(&mut top.slots, 0, Slot { first, child: lower });
    }
    place(&mut top.slots, 1, upper);
    *root = Some(Node::Inner(top));
    Ok(())
}

/// The depth from which all nodes on the path of `at` split; beyond the leaf if none does.
fn plan<V>(root: &Node<V>, at: Iova) -> Result<usize, OutOfMemory> {
    let mut node = root;
    let mut depth = 0;
    let mut from = 0;
    loop {
        if !node.is_full() {
            from = depth + 1;
        }
        let Node::Inner(inner) = node else { break };
        let i = inner.route(at);
        depth += 1;
        if spill(inner, i).is_some() {
            return Ok(depth + 1);
        }
        node = &inner.slots[i].child;
    }
    if from == 0 && depth >= HEIGHT_MAX { Err(OutOfMemory) } else { Ok(from) }
}

/// If child `i` is a full leaf beside one with room: the lower of the two and their items.
fn spill<V>(inner: &Inner<V>, i: usize) -> Option<(usize, usize)> {
    let child = &inner.slots.get(i)?.child;
    if !child.is_full() || matches!(child, Node::Inner(_)) {
        return None;
    }
    [i.checked_sub(1), Some(i)]
        .into_iter()
        .flatten()
        .filter_map(|low| Some((low, inner.pair_len(low)?)))
        .find(|(_, items)| items + SPILL_ROOM <= 2 * LEAF_MAX)
}

/// Adds the entry below `node`, whose depth is `splits_from` levels above the first to split.
/// Returns the new right sibling if `node` itself was split.
fn insert_below<V>(
    node: &mut Node<V>,
    pool: &'static Pool,
    splits_from: usize,
    edge: bool,
    entry: Entry<V>,
) -> Result<Option<Slot<V>>, OutOfMemory> {
    let at = entry.0.first();
    match node {
        Node::Leaf(leaf) => {
            let i = leaf.partition_point(|(range, _)| range.first() < at);
            if splits_from > 0 {
                place(leaf, i, entry);
                return Ok(None);
            }
            let mut upper = Owned::new(pool, Leaf::new())?;
            split(leaf, &mut upper, i, entry, edge);
            Ok(slot(Node::Leaf(upper)))
        }
        Node::Inner(inner) => {
            let spare = if splits_from == 0 { Some(Owned::new(pool, Inner::new())?) } else { None };
            let mut i = inner.route(at);
            if let Some((low, items)) = spill(inner, i) {
                inner.share_out(low, items / 2);
                i = inner.route(at);
            }
            let child_edge = edge && i + 1 == inner.slots.len();
            let below = splits_from.saturating_sub(1);
            let new = insert_below(&mut inner.slots[i].child, pool, below, child_edge, entry)?;
            inner.refresh(i);
            let Some(new) = new else { return Ok(None) };
            let Some(mut upper) = spare else {
                place(&mut inner.slots, i + 1, new);
                return Ok(None);
            };
            split(&mut inner.slots, &mut upper.slots, i + 1, new, edge);
            Ok(slot(Node::Inner(upper)))
        }
    }
}

/// A slot for a node that is not empty.
fn slot<V>(child: Node<V>) -> Option<Slot<V>> {
    child.first().map(|first| Slot { first, child })
}
