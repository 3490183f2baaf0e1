//! What is told about nodes.

use r3mes_types::nodes::{Node, Slash};
use r3mes_types::{Address, Amount, Event, Time};

fn about(kind: &'static str, node: &Address) -> Event {
    Event::new(kind).with("node", node)
}

fn declared(kind: &'static str, node: &Node) -> Event {
    let roles: Vec<String> = node
        .spec
        .roles
        .iter()
        .map(|role| role.number().to_string())
        .collect();
    about(kind, &node.address)
        .with("roles", roles.join(","))
        .with("stake", node.bonded)
}

pub(super) fn registered(node: &Node) -> Event {
    declared("nodes.registered", node)
}

pub(super) fn updated(node: &Node) -> Event {
    declared("nodes.updated", node)
}

pub(super) fn left(node: &Address) -> Event {
    about("nodes.left", node)
}

pub(super) fn unbonding(node: &Address, amount: Amount, release_at: Time) -> Event {
    about("nodes.unbonding", node)
        .with("amount", amount)
        .with("release_at", release_at.nanos())
}

pub(super) fn released(node: &Address, amount: Amount) -> Event {
    about("nodes.released", node).with("amount", amount)
}

pub(super) fn slashed(slash: &Slash) -> Event {
    about("nodes.slashed", &slash.node)
        .with("slash", slash.id)
        .with("amount", slash.amount)
        .with("reason", &slash.reason)
}

pub(super) fn appealed(node: &Address, slash: u64) -> Event {
    about("nodes.appealed", node).with("slash", slash)
}

pub(super) fn settled(slash: &Slash) -> Event {
    about("nodes.slash_settled", &slash.node)
        .with("slash", slash.id)
        .with("amount", slash.amount)
        .with("status", slash.status)
}

pub(super) fn jailed(node: &Address, until: Time, reason: &str) -> Event {
    about("nodes.jailed", node)
        .with("until", until.nanos())
        .with("reason", reason)
}

pub(super) fn unjailed(node: &Address) -> Event {
    about("nodes.unjailed", node)
}
