//! What either end of a call sends is passed on to the other.

use bytes::Bytes;

use super::{Place, cost};
use crate::{
    Moment,
    broker::{Broker, CallId, PeerId, WIDE_WINDOW_BYTES},
    failure::{Failure, Reason},
    wire::{
        Frame, Kind,
        messages::{Credit, Head},
    },
};

/// Microseconds between two reports of progress that are passed on.
const PROGRESS_US: u64 = 50_000;
/// Most grants that are kept for a call before a node has it.
const MAX_EARLY_GRANTS: usize = 16;

impl Broker {
    /// Passes a frame of an open call on to its other end. A call that has ended meanwhile is no fault.
    pub(in crate::broker) fn pass_on(&mut self, peer: PeerId, frame: Frame, now: Moment) {
        let open = self.peers.get(&peer).and_then(|p| p.calls.get(&frame.call));
        let Some(&id) = open else {
            return;
        };
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        match call.client == Some((peer, frame.call)) {
            true => self.pass_to_node(id, frame, now),
            false => self.pass_to_client(id, peer, frame, now),
        }
    }

    fn pass_to_node(&mut self, id: CallId, mut frame: Frame, now: Moment) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        match frame.kind {
            Kind::Data => {
                call.windows.client -= cost(&frame);
                call.bytes += frame.body.len() as u64;
                if call.windows.client < 0 {
                    let words = "more was sent than the other side had granted";
                    return self.abandon(id, &Failure::new(Reason::Invalid, words), now);
                }
                // It says nothing, and is not paid for.
                frame.head.clear();
                call.complete |= frame.flags.ends_stream();
                call.keep(&frame);
            }
            Kind::Credit => match widened(&mut call.windows.node, &frame) {
                Some(head) => frame.head = head,
                None => return,
            },
            Kind::Cancel => {
                let words = "the caller cancelled";
                return self.abandon(id, &Failure::new(Reason::Cancelled, words), now);
            }
            _ => return,
        }
        match &mut call.place {
            Place::Waiting(frames)
                if frames.len() < MAX_EARLY_GRANTS || frame.kind == Kind::Data =>
            {
                frames.push(frame.detached());
            }
            Place::Waiting(_) => {}
            Place::Running(running) => {
                let (peer, call) = (running.peer, running.number);
                self.send(peer, Frame { call, ..frame });
            }
        }
    }

    fn pass_to_client(&mut self, id: CallId, peer: PeerId, mut frame: Frame, now: Moment) {
        // How a call waits, only the gateway tells that has it.
        if matches!(frame.kind, Kind::Queued | Kind::Started) && !self.is_remote(peer) {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let mut ended = frame.kind == Kind::Failed;
        match frame.kind {
            Kind::Data => {
                frame.head.clear();
                call.windows.node -= cost(&frame);
                call.answer_bytes += frame.body.len() as u64;
                call.answered = true;
                let (bytes, ends_item) = (&frame.body, frame.flags.ends_item());
                if let Some(gathered) = &mut call.gathered
                    && !gathered.add(bytes, ends_item)
                {
                    call.gathered = None;
                }
                if call.windows.node < 0 && call.client.is_some() {
                    let words = "the node sent more than was granted";
                    return self.abandon(id, &Failure::new(Reason::Internal, words), now);
                }
                ended = frame.flags.ends_stream();
            }
            Kind::Credit => match widened(&mut call.windows.client, &frame) {
                Some(head) => frame.head = head,
                None => return,
            },
            Kind::Progress if now.micros_after(call.progress_at) >= PROGRESS_US => {
                call.progress_at = now;
            }
            Kind::Failed | Kind::Queued | Kind::Started => {}
            _ => return,
        }
        let failure = (frame.kind == Kind::Failed).then(|| {
            Failure::decode(&frame.head)
                .unwrap_or_else(|error| Failure::new(Reason::Internal, error.to_string()))
        });
        match failure {
            Some(failure) => self.end(id, Some(&failure), now),
            None => {
                if let Some((peer, number)) = call.client {
                    self.send(
                        peer,
                        Frame {
                            call: number,
                            ..frame
                        },
                    );
                }
                if ended {
                    self.end(id, None, now);
                }
            }
        }
    }
}

/// Widens a window by what a frame grants, up to [`WIDE_WINDOW_BYTES`]; the head that grants as much, if there is
/// anything to grant.
fn widened(window: &mut i64, frame: &Frame) -> Option<Bytes> {
    let credit = Credit::decode(&frame.head).ok()?;
    let room = u32::try_from(i64::from(WIDE_WINDOW_BYTES) - *window).ok()?;
    let bytes = credit.bytes.min(room);
    *window += i64::from(bytes);
    let head = Credit { bytes }.encode().ok()?;
    (bytes > 0).then_some(head)
}
