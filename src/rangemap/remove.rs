//! Removals. They only free: a child that fell below the least is merged with a sibling if both fit
//! into one node, otherwise takes items from it; an empty node is freed, and a root with one child
//! gives way to it.

use super::node::{Entry, Inner, Node};
use crate::addr::Iova;

/// Takes out the entry that begins exactly at `first`.
pub(super) fn remove<V>(root: &mut Option<Node<V>>, first: Iova) -> Option<Entry<V>> {
    let taken = remove_below(root.as_mut()?, first, true)?;
    while let Some(Node::Inner(inner)) = root
        && inner.slots.len() <= 1
    {
        *root = inner.slots.pop().map(|slot| slot.child);
    }
    if root.as_ref().is_some_and(|node| node.len() == 0) {
        *root = None;
    }
    Some(taken)
}

fn remove_below<V>(node: &mut Node<V>, first: Iova, edge: bool) -> Option<Entry<V>> {
    match node {
        Node::Leaf(leaf) => {
            let i = leaf.binary_search_by_key(&first, |(range, _)| range.first()).ok()?;
            Some(leaf.remove(i))
        }
        Node::Inner(inner) => {
            let i = inner.route(first);
            let child_edge = edge && i + 1 == inner.slots.len();
            let taken = remove_below(&mut inner.slots.get_mut(i)?.child, first, child_edge)?;
            mend(inner, i, child_edge);
            Some(taken)
        }
    }
}

/// Restores the bounds of child `i` after it lost an item.
fn mend<V>(inner: &mut Inner<V>, i: usize, child_edge: bool) {
    inner.refresh(i);
    let child = &inner.slots[i].child;
    let (most, least) = child.bounds();
    if child.len() >= least {
        return;
    }
    if child.len() == 0 {
        inner.slots.remove(i);
        return;
    }
    let pairs = [i.checked_sub(1), Some(i)];
    let pairs = pairs.into_iter().flatten().filter_map(|low| Some((low, inner.pair_len(low)?)));
    // The pair with the fewest items: what fits into one node is then found.
    let Some((low, items)) = pairs.min_by_key(|&(_, items)| items) else { return };
    if items <= most {
        inner.share_out(low, items);
    } else if !child_edge {
        inner.share_out(low, items / 2);
    }
}
