//! Domains that a reset left behind.
//!
//! An endpoint of an earlier driver may still be on one, so it is emptied, which blocks that
//! endpoint, and its id is never used: who got it would share memory with a stranger.

use core::ops::RangeInclusive;

use super::Config;
use super::ids::DomainIds;
use super::request::{Answer, Dead, Request, Requests, Unit, halves};
use super::wire::Status;
use crate::addr::IovaRange;
use crate::driver::DomainId;
use crate::platform::Platform;
use crate::trace::emit;
use crate::virtio::transport::Transport;

/// How many ids are asked about first. As long as one of them is found, as many more follow:
/// drivers hand out ids from the lowest up.
const SWEEP: u32 = 32;

/// Looks for domains from the lowest id up, and empties those that are there.
///
/// A device that knows no such domain says so (NOENT), so UNMAP is the question as well. A domain
/// that can't be unmapped, because it is an identity domain, shows by another error, if the device
/// says NOENT for others; one that says neither is not asked further.
pub(super) fn sweep<P: Platform, T: Transport>(
    requests: &mut Requests,
    unit: &Unit<'_, P, T>,
    ids: &mut DomainIds,
    config: &Config,
) -> Result<(), Dead> {
    let mut next = Some(config.first_domain);
    while let Some(first) = next {
        let last = first.saturating_add(SWEEP - 1).min(config.last_domain);
        // One request per id is the question; what is found is emptied below.
        let mut ids_left = first..=last;
        let mut questions = unmaps(first..=last, low_half(config.input_range));
        let (mut there, mut odd, mut precise) = (None, None, false);
        loop {
            let sent = requests.send(unit, &mut questions)?;
            let answers = requests.answers(&sent);
            for (answer, id) in answers.iter().zip(ids_left.by_ref().take(answers.len())) {
                match answer {
                    Answer::Done => there = Some(id),
                    Answer::Refused(Status::NOENT) => precise = true,
                    Answer::Refused(_) | Answer::Unclear => odd = Some(id),
                }
            }
            if !sent.more {
                break;
            }
        }
        let highest = if precise { there.max(odd) } else { there };
        let Some(highest) = highest else { return Ok(()) };
        emit!(warn, "iommu: the reset left domains up to {} behind, they are empty now", highest);
        empty(requests, unit, first..=highest, config.input_range);
        ids.skip_to(highest);
        next = last.checked_add(1).filter(|next| *next <= config.last_domain);
    }
    Ok(())
}

/// Empties domains as far as the device obeys.
pub(super) fn empty<P: Platform, T: Transport>(
    requests: &mut Requests,
    unit: &Unit<'_, P, T>,
    ids: RangeInclusive<u32>,
    span: IovaRange,
) {
    let mut questions = unmaps(ids, span);
    while let Ok(sent) = requests.send(unit, &mut questions) {
        if !sent.more {
            return;
        }
    }
}

/// The part of a span that one request can name.
fn low_half(span: IovaRange) -> IovaRange {
    halves(span).next().unwrap_or(span)
}

fn unmaps(ids: RangeInclusive<u32>, span: IovaRange) -> impl Iterator<Item = Request> {
    ids.flat_map(move |id| {
        halves(span).map(move |range| Request::Unmap { domain: DomainId(id), range })
    })
}
