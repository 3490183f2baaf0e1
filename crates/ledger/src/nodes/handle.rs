//! What messages about nodes do.

use r3mes_types::nodes::{
    MsgAppeal, MsgLeave, MsgRegister, MsgUnjail, MsgUpdate, Node, NodeSpec, NodeStatus,
    NodesMessage,
};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Address, Amount, Role, Time};

use super::state::{NODES, PARAMS, require, save};
use super::{events, slash, stake, validators};
use crate::bank::{self, Module};
use crate::coded_errors;
use crate::error::LedgerError;
use crate::store::Context;

coded_errors! {
    /// Why something about nodes is refused.
    pub enum NodesError in "nodes" {
        /// The node never registered, or left.
        #[error("{address} is not a registered node: register it first")]
        1 => Unknown {
            /// The account.
            address: Address,
        },
        /// The node is registered with another declaration.
        #[error("{address} is registered already: change what it declares with MsgUpdate")]
        2 => AlreadyRegistered {
            /// The account.
            address: Address,
        },
        /// The declaration contradicts itself.
        #[error("{field}: {why}")]
        3 => Spec {
            /// Which part of the declaration.
            field: &'static str,
            /// What is wrong, and what to do.
            why: String,
        },
        /// Too little stake for the roles.
        #[error("a stake of {stake} is below the {minimum} that these roles need")]
        4 => Stake {
            /// The stake declared.
            stake: Amount,
            /// The least that will do.
            minimum: Amount,
        },
        /// The jail term is not over.
        #[error("jailed until {until:?}: {reason}")]
        5 => Jailed {
            /// End of the term.
            until: Time,
            /// Why the node was jailed.
            reason: String,
        },
        /// There is no such slash, it is not this node's, or it is final.
        #[error("slash {slash} cannot be appealed by this node, or not any more")]
        6 => Appeal {
            /// Its number.
            slash: u64,
        },
        /// Another node has this consensus key.
        #[error("this consensus key belongs to the node {operator}")]
        7 => ConsensusKey {
            /// Whose it is.
            operator: Address,
        },
        /// Too many nodes.
        #[error("{max} nodes with the role {role} take part already")]
        8 => Full {
            /// The role.
            role: Role,
            /// Most nodes.
            max: usize,
        },
    }
}

/// Does what a message says.
pub(crate) fn execute(ctx: &mut Context<'_>, message: &NodesMessage) -> Result<(), LedgerError> {
    match message {
        NodesMessage::Register(message) => register(ctx, message),
        NodesMessage::Update(message) => update(ctx, message),
        NodesMessage::Leave(message) => leave(ctx, message),
        NodesMessage::Unjail(message) => unjail(ctx, message),
        NodesMessage::Appeal(message) => appeal(ctx, message),
    }
}

pub(super) fn register(ctx: &mut Context<'_>, message: &MsgRegister) -> Result<(), LedgerError> {
    let MsgRegister { address, spec } = message;
    let before = NODES.get(ctx, address)?;
    if let Some(node) = &before {
        if node.status != NodeStatus::Left {
            if node.spec == *spec {
                return Ok(());
            }
            return Err(NodesError::AlreadyRegistered { address: *address }.into());
        }
        out_of_jail(ctx, node)?;
    }
    check_stake(ctx, spec)?;
    validators::claim_key(ctx, address, spec)?;
    bank::transfer(ctx, *address, Module::Stake, spec.stake)?;
    let fresh = Node {
        address: *address,
        spec: spec.clone(),
        status: NodeStatus::Active,
        bonded: spec.stake,
        locked: Amount::ZERO,
        locks: 0,
        disputes: 0,
        unbonding: List::default(),
        registered_at: ctx.now(),
        jailed_until: Time::default(),
        jail_reason: Text::default(),
    };
    // What a node left behind when it left is still its own.
    let node = match before.clone() {
        None => fresh,
        Some(Node {
            locked,
            locks,
            disputes,
            unbonding,
            ..
        }) => Node {
            locked,
            locks,
            disputes,
            unbonding,
            ..fresh
        },
    };
    save(ctx, before.as_ref(), &node)?;
    ctx.emit(events::registered(&node));
    Ok(())
}

/// Refuses while a jail term lasts.
fn out_of_jail(ctx: &Context<'_>, node: &Node) -> Result<(), NodesError> {
    if ctx.now() < node.jailed_until {
        let reason = node.jail_reason.to_string();
        return Err(NodesError::Jailed {
            until: node.jailed_until,
            reason,
        });
    }
    Ok(())
}

fn update(ctx: &mut Context<'_>, message: &MsgUpdate) -> Result<(), LedgerError> {
    let MsgUpdate { address, spec } = message;
    let before = require(ctx, address)?;
    if before.status == NodeStatus::Left {
        return Err(NodesError::Unknown { address: *address }.into());
    }
    if before.spec == *spec && before.bonded == spec.stake {
        return Ok(());
    }
    check_stake(ctx, spec)?;
    validators::claim_key(ctx, address, spec)?;
    let mut node = Node {
        spec: spec.clone(),
        ..before.clone()
    };
    if let Some(more) = spec.stake.checked_sub(before.bonded) {
        bank::transfer(ctx, *address, Module::Stake, more)?;
        node.bonded = spec.stake;
    } else {
        stake::unbond(ctx, &mut node, before.bonded.saturating_sub(spec.stake))?;
    }
    save(ctx, Some(&before), &node)?;
    ctx.emit(events::updated(&node));
    Ok(())
}

fn leave(ctx: &mut Context<'_>, message: &MsgLeave) -> Result<(), LedgerError> {
    let before = require(ctx, &message.address)?;
    if before.status == NodeStatus::Left {
        return Ok(());
    }
    let mut node = Node {
        status: NodeStatus::Left,
        ..before.clone()
    };
    let all = node.bonded;
    stake::unbond(ctx, &mut node, all)?;
    save(ctx, Some(&before), &node)?;
    ctx.emit(events::left(&node.address));
    Ok(())
}

fn unjail(ctx: &mut Context<'_>, message: &MsgUnjail) -> Result<(), LedgerError> {
    let before = require(ctx, &message.address)?;
    match before.status {
        NodeStatus::Active => return Ok(()),
        NodeStatus::Left => {
            return Err(NodesError::Unknown {
                address: before.address,
            }
            .into());
        }
        NodeStatus::Jailed => {}
    }
    out_of_jail(ctx, &before)?;
    let minimum = PARAMS.require(ctx)?.minimum_stake(before.spec.roles);
    if before.bonded < minimum {
        return Err(NodesError::Stake {
            stake: before.bonded,
            minimum,
        }
        .into());
    }
    let node = Node {
        status: NodeStatus::Active,
        ..before.clone()
    };
    save(ctx, Some(&before), &node)?;
    ctx.emit(events::unjailed(&node.address));
    Ok(())
}

fn appeal(ctx: &mut Context<'_>, message: &MsgAppeal) -> Result<(), LedgerError> {
    slash::appeal(ctx, &message.address, message.slash, &message.statement)
}

fn check_stake(ctx: &Context<'_>, spec: &NodeSpec) -> Result<(), LedgerError> {
    let minimum = PARAMS.require(ctx)?.minimum_stake(spec.roles);
    if spec.stake < minimum {
        return Err(NodesError::Stake {
            stake: spec.stake,
            minimum,
        }
        .into());
    }
    Ok(())
}
