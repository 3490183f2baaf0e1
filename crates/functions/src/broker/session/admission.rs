//! A peer says who it is, and is let in or not.

use ed25519_consensus::{Signature, VerificationKey};

use super::Role;
use crate::{
    Moment,
    broker::{Action, Broker, PeerId},
    registry::{Index, Node, is_node_id},
    wire::{
        Frame, Kind,
        messages::{Caller, Goodbye, Head, Hello, NodeHello, PROTOCOL, Welcome, node_proof},
    },
};

impl Broker {
    /// A peer says who it is.
    pub(super) fn hello(&mut self, id: PeerId, head: &[u8], now: Moment) -> Result<(), Goodbye> {
        let hello = Hello::decode(head).map_err(|error| error.to_string())?;
        if hello.protocol == 0 {
            return Err("version 0 of the protocol does not exist".to_owned().into());
        }
        let Caller { user, groups, .. } = self
            .identify(hello.token.as_deref(), now)
            .map_err(|failure| failure.message)?;
        let role = match hello.node {
            None => Role::Client,
            Some(node) => {
                let name = node.id.clone();
                self.admit(id, node, now)?;
                Role::Node(name)
            }
        };
        let token_end = hello.token.as_deref();
        let token_end = token_end.and_then(|token| self.tokens.end(token));
        if let Some(peer) = self.peers.get_mut(&id) {
            (peer.role, peer.user, peer.groups) = (role, user, groups);
            (peer.token, peer.token_end) = (hello.token, token_end);
        }
        let welcome = Welcome {
            protocol: hello.protocol.min(PROTOCOL),
            silence_ms: self.limits.silence_us / 1000,
            max_calls: self.limits.calls_per_peer,
        };
        self.say(id, Kind::Welcome, 0, &welcome);
        Ok(())
    }

    /// Admits a node that holds the key that its id belongs to.
    fn admit(&mut self, peer: PeerId, node: NodeHello, now: Moment) -> Result<(), Goodbye> {
        let id = &node.id;
        if !is_node_id(id) {
            return Err(format!(
                "{id:?} cannot be a node's id: use letters, digits, '-', '_' and '.', at most 64"
            )
            .into());
        }
        if node.max_concurrent == 0 {
            return Err("a node must run at least one call at a time"
                .to_owned()
                .into());
        }
        let Some(Role::New(nonce)) = self.peers.get(&peer).map(|peer| &peer.role) else {
            return Ok(());
        };
        let signed = VerificationKey::try_from(node.key)
            .and_then(|key| key.verify(&Signature::from(node.signature), &node_proof(nonce, id)));
        signed.map_err(|_| format!("the signature of node {id:?} is not by its key"))?;
        match self.owners.get(id) {
            Some(owner) if *owner != node.key => {
                return Err(format!(
                    "the id {id:?} belongs to another key: start the node with the key that took it, \
                     or choose another id"
                )
                .into());
            }
            Some(_) => {}
            None if self.owners.len() >= self.limits.owners => {
                return Err(format!(
                    "this broker knows {} nodes already and takes no new id",
                    self.owners.len()
                )
                .into());
            }
            None => {
                self.owners.insert(id.clone(), node.key);
                self.actions.push(Action::Own {
                    id: id.clone(),
                    key: node.key,
                });
            }
        }
        if let Some((other, _)) = self
            .nodes
            .get(id)
            .filter(|(_, node)| node.gateway.is_none())
        {
            self.dispute(*other, id, now)?;
        }
        let entry = Node {
            index: Index::new(&node.capabilities, &node.resources),
            capabilities: node.capabilities,
            resources: node.resources,
            max_concurrent: node.max_concurrent,
            ..Node::new(id, now)
        };
        self.nodes.insert(node.id, (peer, entry));
        Ok(())
    }

    /// A node comes whose key and id another connection has: as long as that one lives, only that one.
    /// One that does not answer is given up, so that a node whose network was cut comes back.
    fn dispute(&mut self, other: PeerId, id: &str, now: Moment) -> Result<(), Goodbye> {
        let patience = self.limits.silence_us / 3;
        let Some(first) = self.peers.get_mut(&other) else {
            return Ok(());
        };
        let asked = first.disputed.map(|asked| {
            let late = now.micros_after(asked) >= patience;
            (first.ponged > asked, late)
        });
        let lives = match asked {
            // What it answered long ago says nothing of now.
            None | Some((true, true)) => {
                first.disputed = Some(now);
                self.send(other, Frame::bare(Kind::Ping, 0));
                false
            }
            Some((answered, false)) => answered,
            Some((false, true)) => {
                let words = "the node came again, and you did not answer";
                self.dismiss(other, words.into(), true, now);
                return Ok(());
            }
        };
        Err(Goodbye {
            reason: format!("node {id:?} is connected already"),
            retry: !lives,
        })
    }
}
