//! Batches that nobody waits for: which requests are still out, and what came of the others.
//!
//! Lock: that of the request queue, which owns the table.

use super::request::{Answer, Dead, Unit, Wait};
use super::wire::Status;
use crate::driver::{Progress, Ticket};
use crate::error::MapError;
use crate::platform::Platform;
use crate::virtio::transport::Transport;

/// How many batches may be out at a time. More are told to wait.
pub(super) const MAX_TICKETS: usize = 16;

/// The batches, by the number of their ticket.
#[derive(Default)]
pub(super) struct Tickets {
    batches: [Option<Batch>; MAX_TICKETS],
}

struct Batch {
    /// Requests without an answer.
    out: usize,
    /// Whether anything but OK ends the trust in the device.
    unmap: bool,
    worst: Option<MapError>,
    wait: Wait,
}

impl Tickets {
    /// Takes a place for a batch, if there is one.
    pub(super) fn open(&mut self, wait: Wait, unmap: bool) -> Option<Ticket> {
        let place = self.batches.iter().position(Option::is_none)?;
        if let Some(batch) = self.batches.get_mut(place) {
            *batch = Some(Batch { out: 0, unmap, worst: None, wait });
        }
        Some(Ticket(place as u32))
    }

    /// Gives a place back without asking.
    pub(super) fn close(&mut self, ticket: Ticket) {
        if let Some(batch) = self.batches.get_mut(ticket.0 as usize) {
            *batch = None;
        }
    }

    /// Counts one more request of a batch.
    pub(super) fn sent(&mut self, ticket: Ticket) {
        if let Some(batch) = self.batch(ticket) {
            batch.out += 1;
        }
    }

    /// Takes the answer to a request of a batch in.
    pub(super) fn answered(&mut self, ticket: Ticket, answer: Answer) -> Result<(), Dead> {
        let Some(batch) = self.batch(ticket) else { return Ok(()) };
        batch.out = batch.out.saturating_sub(1);
        if answer == Answer::Done {
            return Ok(());
        }
        if batch.unmap {
            return Err(Dead::UnmapRefused);
        }
        batch.worst = match answer {
            Answer::Refused(Status::NOMEM) => batch.worst.or(Some(MapError::OutOfMemory)),
            _ => Some(MapError::Io),
        };
        Ok(())
    }

    /// How far a batch has come; once it has ended, its place is free.
    pub(super) fn progress(&mut self, ticket: Ticket) -> Progress {
        let Some(batch) = self.batch(ticket) else { return Progress::Failed };
        if batch.out > 0 {
            return Progress::Pending;
        }
        let worst = batch.worst;
        self.close(ticket);
        worst.map_or(Progress::Done, Progress::Refused)
    }

    /// Whether there is hope for every batch that is out; if not, for which one and why.
    pub(super) fn look<P: Platform, T: Transport>(
        &mut self,
        unit: &Unit<'_, P, T>,
    ) -> Result<(), (Ticket, Dead)> {
        for (place, slot) in self.batches.iter_mut().enumerate() {
            if let Some(batch) = slot
                && batch.out > 0
            {
                batch.wait.look(unit).map_err(|dead| (Ticket(place as u32), dead))?;
            }
        }
        Ok(())
    }

    /// Whether requests of a batch have no answer.
    pub(super) fn is_out(&self, ticket: Ticket) -> bool {
        let batch = self.batches.get(ticket.0 as usize).and_then(Option::as_ref);
        batch.is_some_and(|batch| batch.out > 0)
    }

    fn batch(&mut self, ticket: Ticket) -> Option<&mut Batch> {
        self.batches.get_mut(ticket.0 as usize)?.as_mut()
    }
}
