//! The life of a call: it comes, waits or is given to a node, its bytes are passed on, it ends.

mod coming;
mod ending;
mod passing;
mod placing;

use super::{Broker, FRAME_COST, PeerId, WINDOW_BYTES, cache::Gathered};
use crate::{
    Moment,
    billing::Bill,
    registry::{Quota, Target},
    wire::Frame,
};

/// Numbers of calls that the broker gives on a node's connection have this bit, the node's own do not.
const BROKERS: u32 = 1 << 31;
/// What callers without a token are counted by.
pub(super) const ANONYMOUS: &str = "anonymous";

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    /// Who waits for it, and under which number; nobody any more when absent.
    client: Option<(PeerId, u32)>,
    pub(super) user: String,
    groups: Vec<String>,
    pub(super) target: Target,
    came: Moment,
    deadline: Moment,
    /// Whether the client named the deadline.
    own_deadline: bool,
    place: Place,
    /// What came from the client so far, while another node could still take over from the start.
    replay: Option<Vec<Frame>>,
    /// Bytes that the client, and the node, may send.
    windows: Windows,
    /// Whether the client has sent everything.
    complete: bool,
    answered: bool,
    progress_at: Moment,
    /// Whether it came with its caller, from another gateway or a front.
    forwarded: bool,
    /// Bytes of arguments so far.
    bytes: u64,
    /// Bytes of results so far.
    answer_bytes: u64,
    /// The result so far, if it may be kept.
    gathered: Option<Gathered>,
}

#[derive(Debug)]
struct Windows {
    client: i64,
    node: i64,
}

/// Where a call is.
#[derive(Debug)]
enum Place {
    /// In the queue, with what the client has sent.
    Waiting(Vec<Frame>),
    /// At a node.
    Running(Running),
}

#[derive(Clone, Debug)]
struct Running {
    node: String,
    /// The number of the list of functions that the node had when it was given the call.
    registration: u64,
    peer: PeerId,
    number: u32,
    began: Moment,
    quota: Option<Quota>,
    /// What it costs, set aside; settled when absent, or free.
    bill: Option<Bill>,
}

impl Call {
    /// What usage is counted by.
    fn user(&self) -> &str {
        match self.user.as_str() {
            "" => ANONYMOUS,
            user => user,
        }
    }

    /// Keeps a frame for another node, as long as that is little.
    fn keep(&mut self, frame: &Frame) {
        if self.bytes > u64::from(WINDOW_BYTES) {
            self.replay = None;
        }
        if let Some(kept) = &mut self.replay {
            kept.push(frame.clone());
        }
    }

    /// Bytes of frames that are kept for it.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        let waiting = match &self.place {
            Place::Waiting(frames) => &frames[..],
            Place::Running(_) => &[],
        };
        let kept = waiting.iter().chain(self.replay.iter().flatten());
        kept.map(Frame::len).sum()
    }
}

fn cost(frame: &Frame) -> i64 {
    frame.body.len() as i64 + i64::from(FRAME_COST)
}

impl Broker {
    /// Forgets a call's number on a connection.
    fn part(&mut self, end: Option<(PeerId, u32)>) {
        if let Some((peer, number)) = end
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            peer.calls.remove(&number);
        }
    }

    /// Calls that are open, wherever they are.
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }
}
