//! Several gateways of one network: each gives calls to nodes that are connected to another.
//!
//! Between two gateways there are two links, one for each direction. The one that calls keeps the other
//! as [`Role::Remote`], whose nodes it knows from `Offer`, `Withdraw` and `State`; the one that serves
//! keeps the other as [`Role::Gateway`], which it believes whose a call is. A call goes over one such
//! link at most: where it arrives, only nodes that are connected there count.

use bytes::Bytes;

use super::{Broker, PeerId, session::Role};
use crate::{
    Moment,
    registry::{Index, Node},
    wire::{
        Frame, Kind,
        messages::{Head, NodeState, OfferedNode, Used, Withdraw},
    },
};

impl Broker {
    /// Another gateway will call here. It is told of the nodes that are connected.
    pub fn connect_gateway(&mut self, gateway: impl Into<String>, now: Moment) -> PeerId {
        let peer = self.add_peer(Role::Gateway(gateway.into()), now);
        self.gateways.push(peer);
        let here: Vec<String> = self.here().collect();
        for id in here {
            self.offer_to(&[peer], &id);
            self.changed.insert(id);
        }
        peer
    }

    /// Another gateway takes calls from here. Its nodes are those it tells of.
    pub fn connect_remote(&mut self, gateway: impl Into<String>, now: Moment) -> PeerId {
        self.add_peer(Role::Remote(gateway.into()), now)
    }

    /// Tells other gateways how busy nodes are whose state has changed. To be called some times a
    /// second.
    pub fn tell_states(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        let gateways = self.gateways.clone();
        for id in changed {
            let Some((_, node)) = self
                .nodes
                .get(&id)
                .filter(|(_, node)| node.gateway.is_none())
            else {
                continue;
            };
            let state = NodeState {
                id,
                running: node.running,
                load: node.load.clone(),
                latency_us: node.latency_us,
            };
            for &peer in &gateways {
                self.say(peer, Kind::State, 0, &state);
            }
        }
    }

    /// A node's id belongs to this key, as another gateway found first. A node that is connected here
    /// under the id with another key is sent away.
    pub fn set_owner(&mut self, id: &str, key: [u8; 32], now: Moment) {
        if self
            .owners
            .insert(id.to_owned(), key)
            .is_none_or(|known| known == key)
        {
            return;
        }
        let connected = self
            .nodes
            .get(id)
            .filter(|(_, node)| node.gateway.is_none());
        if let Some(&(peer, _)) = connected {
            let reason = format!(
                "the id {id:?} belongs to another key: start the node with the key that took it, or \
                 choose another id"
            );
            self.dismiss(peer, reason, false, now);
        }
    }

    /// Whether a peer is a gateway that calls here.
    pub(super) fn is_gateway(&self, peer: PeerId) -> bool {
        self.gateways.contains(&peer)
    }

    /// Whether a peer is a gateway that serves calls from here.
    pub(super) fn is_remote(&self, peer: PeerId) -> bool {
        let peer = self.peers.get(&peer);
        peer.is_some_and(|peer| matches!(peer.role, Role::Remote(_)))
    }

    /// Marks a node whose state is to be told, if there is anybody to tell.
    pub(super) fn changed(&mut self, id: &str) {
        if !self.gateways.is_empty() && !self.changed.contains(id) {
            self.changed.insert(id.to_owned());
        }
    }

    /// Tells every gateway of a node that came or changed.
    pub(super) fn offer_to_gateways(&mut self, id: &str) {
        let gateways = self.gateways.clone();
        self.offer_to(&gateways, id);
    }

    /// Tells every gateway of a node that went.
    pub(super) fn withdraw(&mut self, id: &str) {
        for peer in self.gateways.clone() {
            self.say(peer, Kind::Withdraw, 0, &Withdraw { id: id.into() });
        }
    }

    /// Tells every gateway what was used of a quota here.
    pub(super) fn tell_used(&mut self, used: &Used) {
        for peer in self.gateways.clone() {
            self.say(peer, Kind::Used, 0, used);
        }
    }

    /// Another gateway tells of its nodes, or of what was used there.
    pub(super) fn hear_of(
        &mut self,
        peer: PeerId,
        frame: &Frame,
        now: Moment,
    ) -> Result<(), String> {
        let gateway = match self.peers.get(&peer).map(|peer| &peer.role) {
            Some(Role::Remote(gateway)) => gateway.clone(),
            _ => return Err("only a gateway tells of other nodes".into()),
        };
        let invalid = |error: &dyn std::fmt::Display| error.to_string();
        match frame.kind {
            Kind::Offer => {
                let node: OfferedNode = rmp_serde::from_slice(&frame.body)
                    .map_err(|error| format!("the description of a node is not valid: {error}"))?;
                self.hear_offer(peer, gateway, node)?;
            }
            Kind::Withdraw => {
                let Withdraw { id } = Withdraw::decode(&frame.head).map_err(|e| invalid(&e))?;
                if self.nodes.get(&id).is_some_and(|(owner, _)| *owner == peer) {
                    self.nodes.remove(&id);
                }
            }
            Kind::State => {
                let state = NodeState::decode(&frame.head).map_err(|e| invalid(&e))?;
                let link_us = self.peers.get(&peer).and_then(|peer| peer.latency_us);
                if let Some((owner, node)) = self.nodes.get_mut(&state.id)
                    && *owner == peer
                {
                    let whole = |us| us + link_us.unwrap_or_default() as f64;
                    (node.running, node.load) = (state.running, state.load);
                    node.latency_us = state.latency_us.map(whole);
                }
            }
            _ => {
                let used = Used::decode(&frame.head).map_err(|e| invalid(&e))?;
                self.usage.add(&used, now);
            }
        }
        self.serve_waiting(now);
        Ok(())
    }

    fn hear_offer(
        &mut self,
        peer: PeerId,
        gateway: String,
        offered: OfferedNode,
    ) -> Result<(), String> {
        let id = offered.id;
        if self
            .nodes
            .get(&id)
            .is_some_and(|(_, node)| node.gateway.is_none())
        {
            // It was there before it came here, and its gateway will find that out.
            return Ok(());
        }
        // Whose an id is, the record of all gateways decides, and not who tells of a node last.
        if *self.owners.entry(id.clone()).or_insert(offered.key) != offered.key {
            tracing::warn!(id, gateway, "functions.broker.other_key");
            return Ok(());
        }
        let mut node = Node {
            index: Index::new(&offered.capabilities, &offered.resources),
            capabilities: offered.capabilities,
            resources: offered.resources,
            gateway: Some(gateway),
            max_concurrent: offered.max_concurrent,
            ..Node::new(&id, Moment(offered.registered_at_us))
        };
        if let Some((owner, known)) = self.nodes.remove(&id)
            && owner == peer
        {
            (node.running, node.load) = (known.running, known.load);
            (node.latency_us, node.functions) = (known.latency_us, known.functions);
            (node.moved_bytes, node.earned_uremes) = (known.moved_bytes, known.earned_uremes);
        }
        node.offer(offered.functions, self.number_registration())?;
        self.nodes.insert(id, (peer, node));
        Ok(())
    }

    /// Nodes that are connected here.
    fn here(&self) -> impl Iterator<Item = String> {
        let nodes = self.nodes.iter();
        nodes
            .filter(|(_, (_, node))| node.gateway.is_none())
            .map(|(id, _)| id.clone())
    }

    fn offer_to(&mut self, gateways: &[PeerId], id: &str) {
        let (Some((_, node)), Some(&key)) = (self.nodes.get(id), self.owners.get(id)) else {
            return;
        };
        let functions = node.functions.values();
        let offered = OfferedNode {
            id: id.to_owned(),
            key,
            capabilities: node.capabilities.clone(),
            resources: node.resources.clone(),
            max_concurrent: node.max_concurrent,
            registered_at_us: node.registered_at.0,
            functions: functions.map(|offer| offer.info.clone()).collect(),
        };
        // Maps with text as keys are always encoded.
        let body = Bytes::from(rmp_serde::to_vec_named(&offered).unwrap_or_default());
        for &peer in gateways {
            let frame = Frame {
                body: body.clone(),
                ..Frame::bare(Kind::Offer, 0)
            };
            self.send(peer, frame);
        }
    }
}
