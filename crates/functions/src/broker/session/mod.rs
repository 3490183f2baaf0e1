//! Connections: who comes, what they offer, and signs of life.

mod admission;

use std::collections::HashMap;

use bytes::Bytes;
use serde::Serialize;

use super::{Broker, CallId, PeerId};
use crate::{
    Moment,
    failure::{Failure, Reason},
    registry::Node,
    wire::{
        Flags, Frame, Kind, MAX_BODY_BYTES, MAX_CONTROL_BYTES,
        messages::{Ask, Caller, Challenge, Goodbye, Head, Load, PROTOCOL, Question, Register},
    },
};

/// Bytes of entries after which an answer ends. One entry has at most what a node registers at once.
const PAGE_BYTES: usize = 1 << 20;
const TOKEN_REQUIRED: &str = "this broker admits nobody without a token; ask its owner for one";

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    /// When a frame came last.
    pub(super) heard: Moment,
    pinged: Option<Moment>,
    /// When it answered a ping last.
    ponged: Moment,
    rested: Moment,
    pub(super) role: Role,
    /// Open calls by their number on this connection.
    pub(super) calls: HashMap<u32, CallId>,
    pub(super) next_call: u32,
    pub(super) user: String,
    pub(super) groups: Vec<String>,
    token: Option<String>,
    /// When that token ends.
    pub(super) token_end: Option<Moment>,
    /// When another connection wanted to be the same node, and this one was asked whether it lives.
    disputed: Option<Moment>,
    /// Round trip of the newest ping in microseconds.
    pub(super) latency_us: Option<u64>,
}

/// What a peer is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It has not said hello; what it must sign if it is a node.
    New([u8; 32]),
    /// It calls functions.
    Client,
    /// It offers functions under this id, and may call others.
    Node(String),
    /// Another gateway, which is trusted to say whose its calls are, and is told of the nodes here.
    Gateway(String),
    /// What speaks other protocols for its callers in this process; trusted to say whose its calls are.
    Front,
    /// Another gateway, which has nodes that calls are given to.
    Remote(String),
}

impl Peer {
    fn new(role: Role, now: Moment) -> Self {
        Self {
            heard: now,
            ponged: now,
            pinged: None,
            rested: Moment::default(),
            role,
            calls: HashMap::new(),
            next_call: 1,
            user: String::new(),
            groups: Vec::new(),
            token: None,
            token_end: None,
            disputed: None,
            latency_us: None,
        }
    }

    /// Microseconds between pings of a node, whose round trips are measured.
    const MEASURE_US: u64 = 5_000_000;

    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Whether a ping is due: the peer is quiet, or its round trip is to be measured again.
    pub(super) fn wants_ping(&mut self, quiet: bool, now: Moment) -> bool {
        let measure = matches!(self.role, Role::Node(_) | Role::Remote(_))
            && now.micros_after(self.rested) >= Self::MEASURE_US;
        let due = self.pinged.is_none() && (quiet || measure);
        if due {
            self.pinged = Some(now);
        }
        due
    }
}

impl Broker {
    /// A connection was opened; `nonce` is 32 random bytes.
    ///
    /// # Errors
    /// When there are too many.
    pub fn connect(&mut self, nonce: [u8; 32], now: Moment) -> Result<PeerId, String> {
        if self.peers.len() >= self.limits.peers {
            return Err(format!(
                "{} connections are open already",
                self.limits.peers
            ));
        }
        let id = self.add_peer(Role::New(nonce), now);
        let challenge = Challenge {
            protocol: PROTOCOL,
            nonce,
        };
        self.say(id, Kind::Challenge, 0, &challenge);
        Ok(id)
    }

    /// What speaks other protocols in this process was connected.
    pub fn connect_front(&mut self, now: Moment) -> PeerId {
        self.add_peer(Role::Front, now)
    }

    /// Whom a token is for; nobody in particular without one.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn identify(&self, token: Option<&str>, now: Moment) -> Result<Caller, Failure> {
        let denied = |words: String| Failure::new(Reason::Unauthenticated, words);
        match token {
            Some(token) => {
                let known = self.tokens.find(token, now);
                let known = known.map_err(|error| denied(error.to_string()))?;
                Ok(Caller {
                    user: known.user.clone(),
                    groups: known.groups.clone(),
                    call: String::new(),
                })
            }
            None if self.limits.token_required => Err(denied(TOKEN_REQUIRED.into())),
            None => Ok(Caller::default()),
        }
    }

    /// Counts a connection in.
    pub(super) fn add_peer(&mut self, role: Role, now: Moment) -> PeerId {
        let id = self.next_peer;
        self.next_peer += 1;
        self.peers.insert(id, Peer::new(role, now));
        id
    }

    /// A connection ended: its calls are cancelled, and calls that it ran have failed.
    pub fn disconnect(&mut self, id: PeerId, now: Moment) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        self.gateways.retain(|gateway| *gateway != id);
        let gone = match peer.role {
            Role::Node(node) => self.remove_nodes([node], id),
            Role::Remote(_) => {
                let theirs = self.nodes.iter().filter(|(_, (owner, _))| *owner == id);
                let theirs: Vec<String> = theirs.map(|(node, _)| node.clone()).collect();
                self.remove_nodes(theirs, id)
            }
            _ => Vec::new(),
        };
        for node in gone {
            self.withdraw(&node);
        }
        for call in peer.calls.into_values() {
            self.lose(call, id, now);
        }
        self.serve_waiting(now);
    }

    /// Removes nodes that belong to this connection; which of them were connected here.
    fn remove_nodes(&mut self, ids: impl IntoIterator<Item = String>, peer: PeerId) -> Vec<String> {
        let mut here = Vec::new();
        for id in ids {
            if self.nodes.get(&id).is_some_and(|(owner, _)| *owner == peer)
                && let Some((_, node)) = self.nodes.remove(&id)
                && node.gateway.is_none()
            {
                here.push(id);
            }
        }
        here
    }

    /// Bytes that the body of a frame from this peer may have: only nodes describe much, and only
    /// gateways describe nodes.
    pub fn most_body(&self, id: PeerId) -> usize {
        match self.peers.get(&id).map(|peer| &peer.role) {
            None | Some(Role::New(_) | Role::Client) => MAX_BODY_BYTES,
            Some(Role::Node(_)) => MAX_CONTROL_BYTES,
            Some(Role::Gateway(_) | Role::Front | Role::Remote(_)) => usize::MAX,
        }
    }

    /// A frame came.
    pub fn receive(&mut self, id: PeerId, frame: Frame, now: Moment) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.heard = now;
        let new = matches!(peer.role, Role::New(_));
        if new && frame.kind == Kind::Hello {
            if let Err(Goodbye { reason, retry }) = self.hello(id, &frame.head, now) {
                self.dismiss(id, reason, retry, now);
            }
            return;
        }
        let result = match (frame.kind, new) {
            (_, true) => Err("say hello first".to_owned()),
            (Kind::Register, _) => self.register(id, &frame.body, now),
            (Kind::Load, _) => self.load(id, &frame.head, now),
            (Kind::Ping, _) => {
                self.send(id, Frame::bare(Kind::Pong, 0));
                Ok(())
            }
            (Kind::Pong, _) => {
                self.pong(id, now);
                Ok(())
            }
            (Kind::Ask, _) => self.answer(id, &frame, now),
            (Kind::Call, _) => self.call(id, frame, now),
            (
                Kind::Data
                | Kind::Credit
                | Kind::Cancel
                | Kind::Progress
                | Kind::Failed
                | Kind::Queued
                | Kind::Started,
                _,
            ) => {
                self.pass_on(id, frame, now);
                Ok(())
            }
            (Kind::Offer | Kind::Withdraw | Kind::State | Kind::Used, _) => {
                self.hear_of(id, &frame, now)
            }
            (kind, _) => Err(format!("a frame of kind {kind:?} is not for a broker")),
        };
        if let Err(reason) = result {
            self.dismiss(id, reason, false, now);
        }
    }

    fn node_of(&mut self, peer: PeerId) -> Result<&mut Node, String> {
        let Some(Role::Node(id)) = self.peers.get(&peer).map(|peer| &peer.role) else {
            return Err("only a node has functions and load".into());
        };
        let node = self.nodes.get_mut(id).filter(|(owner, _)| *owner == peer);
        node.map(|(_, node)| node)
            .ok_or_else(|| "the node is not registered".into())
    }

    fn register(&mut self, peer: PeerId, body: &[u8], now: Moment) -> Result<(), String> {
        let list: Register = rmp_serde::from_slice(body)
            .map_err(|error| format!("the list of functions is not valid: {error}"))?;
        self.check_prices(&list.functions)?;
        let number = self.number_registration();
        let node = self.node_of(peer)?;
        node.offer(list.functions, number)?;
        let id = node.id.clone();
        self.offer_to_gateways(&id);
        self.send(peer, Frame::bare(Kind::Registered, 0));
        self.serve_waiting(now);
        Ok(())
    }

    fn load(&mut self, peer: PeerId, head: &[u8], now: Moment) -> Result<(), String> {
        let load = Load::decode(head).map_err(|error| error.to_string())?;
        let node = self.node_of(peer)?;
        node.load = load;
        let id = node.id.clone();
        self.changed(&id);
        self.serve_waiting(now);
        Ok(())
    }

    fn pong(&mut self, id: PeerId, now: Moment) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.ponged = now;
        let Some(asked) = peer.pinged.take() else {
            return;
        };
        peer.rested = now;
        let took = now.micros_after(asked);
        peer.latency_us = Some(took);
        if let Ok(node) = self.node_of(id) {
            node.add_latency(took);
        }
    }

    fn answer(&mut self, id: PeerId, frame: &Frame, now: Moment) -> Result<(), String> {
        let ask = Ask::decode(&frame.head).map_err(|error| error.to_string())?;
        let Some(peer) = self.peers.get(&id) else {
            return Ok(());
        };
        let page = match ask.question {
            Question::Nodes => page(self.node_views_after(ask.after_node.as_deref())),
            Question::Functions => {
                let after = (ask.after_node.as_deref(), ask.after_function.as_deref());
                page(self.function_views_after(after, &peer.user, &peer.groups, now))
            }
        };
        let (body, flags) = page.map_err(|error| error.to_string())?;
        let frame = Frame {
            body,
            flags,
            ..Frame::bare(Kind::Answer, frame.call)
        };
        self.send(id, frame);
        Ok(())
    }
}

/// The first entries of a list as a MessagePack array, as many as one answer may have, and whether they
/// are all.
fn page<T: Serialize>(
    entries: impl Iterator<Item = T>,
) -> Result<(Bytes, Flags), rmp_serde::encode::Error> {
    let (mut count, mut body, mut flags) = (0u32, Vec::new(), Flags::LAST);
    for entry in entries {
        if body.len() >= PAGE_BYTES {
            flags = Flags::ITEM;
            break;
        }
        rmp_serde::encode::write_named(&mut body, &entry)?;
        count += 1;
    }
    let mut page = Vec::with_capacity(body.len() + 5);
    rmp::encode::write_array_len(&mut page, count)?;
    page.extend_from_slice(&body);
    Ok((page.into(), flags))
}
