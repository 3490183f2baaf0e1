//! The broker as a state machine: frames and time go in, frames go out. It owns no socket, task or
//! clock, so every interleaving can be tested, and all of it can be looked at after each step.

mod bills;
mod cache;
mod calls;
mod gateways;
mod queue;
mod session;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use self::view::{BrokerView, FunctionView, NodeView, UsageView};
use self::{cache::Cache, calls::Call, queue::Queue, session::Peer};
use crate::{
    Moment,
    billing::Purse,
    failure::Failure,
    registry::{Meter, Node, Recent, Router, Usage},
    tokens::Tokens,
    wire::{
        Frame, Kind,
        messages::{Goodbye, Head},
    },
};

/// A connection, as the broker counts them.
pub type PeerId = u64;
/// A call, as the broker counts them.
type CallId = u64;

/// Bytes that either side of a call may send before the other grants more.
pub const WINDOW_BYTES: u32 = 64 << 10;
/// Most bytes that may be granted and not sent yet; who grants more grants this. It bounds what a call whose
/// receiver stops reading leaves at the broker, and what it puts before other calls on its connections.
pub const WIDE_WINDOW_BYTES: u32 = 1 << 20;
/// What a frame costs of a window besides its body, so that empty items are bounded too.
pub const FRAME_COST: u32 = 16;

/// What the broker allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub peers: usize,
    /// Open calls of one connection.
    pub calls_per_peer: u32,
    /// Calls that wait for a node.
    pub waiting: usize,
    /// Ids of nodes that keys have taken.
    pub owners: usize,
    /// Microseconds without a frame after which a peer is taken for gone.
    pub silence_us: u64,
    /// Microseconds that a call may take when neither it nor its function says.
    pub deadline_us: u64,
    /// Whether clients and nodes need a token to come at all.
    pub token_required: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers: 10_000,
            calls_per_peer: 1024,
            waiting: 10_000,
            owners: 100_000,
            silence_us: 15_000_000,
            deadline_us: 24 * 3600 * 1_000_000,
            token_required: false,
        }
    }
}

/// What the broker wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a frame to a peer.
    Send(PeerId, Frame),
    /// Close a peer's connection once everything is sent.
    Close(PeerId),
    /// Remember for good whose a node's id is.
    Own {
        /// The id.
        id: String,
        /// The key that took it.
        key: [u8; 32],
    },
}

/// The broker.
#[derive(Debug)]
pub struct Broker {
    limits: Limits,
    tokens: Tokens,
    owners: BTreeMap<String, [u8; 32]>,
    peers: HashMap<PeerId, Peer>,
    nodes: BTreeMap<String, (PeerId, Node)>,
    calls: HashMap<CallId, Call>,
    queue: Queue,
    /// When the calls end that somebody waits for.
    deadlines: BTreeSet<(Moment, CallId)>,
    usage: Usage,
    meter: Meter,
    recent: Recent,
    router: Router,
    cache: Cache,
    /// What pays for calls that have a price; without it there are none.
    purse: Option<Box<dyn Purse>>,
    next_peer: PeerId,
    next_call: CallId,
    /// What the next list of functions that a node offers is numbered.
    next_registration: u64,
    /// Connections on which other gateways call.
    gateways: Vec<PeerId>,
    /// Nodes whose state those do not know yet.
    changed: BTreeSet<String>,
    actions: Vec<Action>,
}

impl Broker {
    /// A broker that knows these tokens and owners of node ids; `seed` decides among equal nodes.
    pub fn new(
        limits: Limits,
        tokens: Tokens,
        owners: BTreeMap<String, [u8; 32]>,
        seed: u64,
    ) -> Self {
        Self {
            limits,
            tokens,
            owners,
            peers: HashMap::new(),
            nodes: BTreeMap::new(),
            calls: HashMap::new(),
            queue: Queue::default(),
            deadlines: BTreeSet::new(),
            usage: Usage::default(),
            meter: Meter::default(),
            recent: Recent::default(),
            router: Router::new(seed),
            cache: Cache::default(),
            purse: None,
            next_peer: 1,
            next_call: 1,
            next_registration: 1,
            gateways: Vec::new(),
            changed: BTreeSet::new(),
            actions: Vec::new(),
        }
    }

    /// The same, with what pays for calls of functions that have a price.
    #[must_use]
    pub fn with_purse(mut self, purse: Box<dyn Purse>) -> Self {
        self.purse = Some(purse);
        self
    }

    /// What is to be done since the last time, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// New tokens in place of those before. Who came with one that is gone is sent away.
    pub fn set_tokens(&mut self, tokens: Tokens, now: Moment) {
        self.tokens = tokens;
        for peer in self.peers.values_mut() {
            peer.token_end = peer.token().and_then(|token| self.tokens.end(token));
        }
        self.dismiss_refused(|_| true, now);
    }

    /// Sends those away whose token is not good any more, among the peers to look at.
    fn dismiss_refused(&mut self, look_at: impl Fn(&Peer) -> bool, now: Moment) {
        let tokens = &self.tokens;
        let peers = self.peers.iter().filter(|(_, peer)| look_at(peer));
        let refused = peers.filter_map(|(id, peer)| {
            let refusal = tokens.find(peer.token()?, now).err()?;
            Some((*id, refusal.to_string()))
        });
        for (peer, reason) in refused.collect::<Vec<_>>() {
            self.dismiss(peer, reason, false, now);
        }
    }

    /// Lets time pass: ends calls whose deadline is over, sends those away whose token has ended, asks
    /// quiet peers for a sign of life and gives silent ones up. To be called every second or so, and at [`Broker::next_deadline`].
    pub fn tick(&mut self, now: Moment) {
        while let Some(&(at, call)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            self.expire(call, now);
        }
        self.dismiss_refused(|peer| peer.token_end.is_some_and(|end| end <= now), now);
        let quiet = self.limits.silence_us / 3;
        let mut silent = Vec::new();
        for (&id, peer) in &mut self.peers {
            let for_us = now.micros_after(peer.heard);
            if for_us >= self.limits.silence_us {
                silent.push(id);
            } else if peer.wants_ping(for_us >= quiet, now) {
                self.actions
                    .push(Action::Send(id, Frame::bare(Kind::Ping, 0)));
            }
        }
        for peer in silent {
            self.dismiss(peer, "nothing was heard from you".into(), true, now);
        }
        self.serve_waiting(now);
    }

    /// When the next deadline of a call passes.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A number for a list of functions.
    fn number_registration(&mut self) -> u64 {
        let number = self.next_registration;
        self.next_registration += 1;
        number
    }

    fn send(&mut self, peer: PeerId, frame: Frame) {
        self.actions.push(Action::Send(peer, frame));
    }

    /// Sends a frame whose head is one of ours, short by construction.
    fn say<H: Head>(&mut self, peer: PeerId, kind: Kind, call: u32, head: &H) {
        let head = head.encode().unwrap_or_default();
        self.send(
            peer,
            Frame {
                head,
                ..Frame::bare(kind, call)
            },
        );
    }

    fn fail(&mut self, peer: PeerId, call: u32, failure: &Failure) {
        self.say(peer, Kind::Failed, call, failure);
    }

    /// Sends a peer away.
    fn dismiss(&mut self, peer: PeerId, reason: String, retry: bool, now: Moment) {
        self.say(peer, Kind::Goodbye, 0, &Goodbye { reason, retry });
        self.actions.push(Action::Close(peer));
        self.disconnect(peer, now);
    }
}

#[cfg(test)]
mod tests;
