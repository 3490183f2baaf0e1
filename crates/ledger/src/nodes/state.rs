//! What is kept of nodes.

use r3mes_types::nodes::{Lock, Node, NodeStatus, NodesParams, ObligationId, Slash};
use r3mes_types::{Address, ConsensusAddress, Role, Time, schema};

use super::handle::NodesError;
use crate::error::LedgerError;
use crate::store::{Context, Item, Map, View};

/// Most validators, and most proposers, that take part: votes and draws by power look at all of them.
pub const MAX_ELECTORS: usize = 4096;
/// Most miners, and most serving nodes, that take part: all of them are looked at when a round opens.
const MAX_WORKERS: usize = 1 << 17;
/// Most due entries that one block works through.
pub(super) const MAX_DUE: usize = 64;

/// Nodes, also those that left.
pub const NODES: Map<Address, Node> = Map::new("nodes/node/");
/// Stake locked by open obligations.
pub const LOCKS: Map<(Address, ObligationId), Lock> = Map::new("nodes/lock/");
/// Slashed amounts.
pub const SLASHES: Map<u64, Slash> = Map::new("nodes/slash/");
/// Parameters.
pub const PARAMS: Item<NodesParams> = Item::new("nodes/params");

/// Active nodes by role.
pub(super) const BY_ROLE: Map<(Role, Address), bool> = Map::new("nodes/by-role/");
/// How many nodes take part with a role.
pub(super) const ROLE_COUNT: Map<Role, u64> = Map::new("nodes/role-count/");
/// Slashed amounts by node.
pub(super) const SLASHES_OF: Map<(Address, u64), bool> = Map::new("nodes/slashes-of/");
/// Number of the next slash.
pub(super) const NEXT_SLASH: Item<u64> = Item::new("nodes/next-slash");
/// Appeal windows by their end.
pub(super) const FINAL_DUE: Map<(Time, u64), bool> = Map::new("nodes/final-due/");
/// Nodes by when a part of their stake may be released.
pub(super) const RELEASE_DUE: Map<(Time, Address), bool> = Map::new("nodes/release-due/");
/// Nodes that have begun to take stake back and wait to be looked at, by the height of the block since
/// which they wait: see [`super::leavers`].
pub(super) const LEAVERS: Map<(u64, Address), bool> = Map::new("nodes/leaver/");
/// The height under which each of them stands there.
pub(super) const LEAVER_SINCE: Map<Address, u64> = Map::new("nodes/leaver-since/");
/// Who operates a block validator.
pub(super) const OPERATOR_OF: Map<ConsensusAddress, Address> = Map::new("nodes/operator-of/");
/// Those who sign blocks now.
pub(super) const BLOCK_VALIDATORS: Map<ConsensusAddress, BlockValidator> =
    Map::new("nodes/block-validator/");
/// Set while the block validators have to be determined anew.
pub(super) const VALIDATORS_CHANGED: Item<bool> = Item::new("nodes/validators-changed");

schema! {
    /// One who signs blocks.
    #[derive(Copy)]
    pub struct BlockValidator {
        /// The key.
        1 => key: r3mes_types::ConsensusKey,
        /// Its voting power.
        2 => power: u64,
    }
}

/// A node, if it ever registered.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn get(view: &dyn View, address: &Address) -> Result<Option<Node>, LedgerError> {
    NODES.get(view, address)
}

/// A node that must be registered.
pub(super) fn require(view: &dyn View, address: &Address) -> Result<Node, LedgerError> {
    Ok(get(view, address)?.ok_or(NodesError::Unknown { address: *address })?)
}

/// Most nodes that take part with a role; more cannot register.
pub const fn max_nodes(role: Role) -> usize {
    match role {
        Role::Miner | Role::Serving => MAX_WORKERS,
        Role::Validator | Role::Proposer => MAX_ELECTORS,
    }
}

/// How many nodes take part with a role now.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn count(view: &dyn View, role: Role) -> Result<u64, LedgerError> {
    Ok(ROLE_COUNT.get(view, &role)?.unwrap_or(0))
}

/// All nodes that take part with a role now, ascending by address bytes; at most [`max_nodes`].
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn active(view: &dyn View, role: Role) -> Result<Vec<Node>, LedgerError> {
    BY_ROLE
        .range_of(view, &role, None, max_nodes(role))?
        .into_iter()
        .map(|((_, address), _)| require(view, &address))
        .collect()
}

/// Writes a node, and keeps the indexes in step. `before` is the node as it was.
pub(super) fn save(
    ctx: &mut Context<'_>,
    before: Option<&Node>,
    node: &Node,
) -> Result<(), LedgerError> {
    for role in Role::ALL.iter().copied() {
        let was = before.is_some_and(|before| before.is_active(role));
        let is = node.is_active(role);
        if was == is {
            continue;
        }
        let count = count(ctx, role)?;
        if is {
            let max = max_nodes(role);
            if count >= max as u64 {
                return Err(NodesError::Full { role, max }.into());
            }
            ROLE_COUNT.put(ctx, &role, &(count + 1))?;
            BY_ROLE.put(ctx, &(role, node.address), &true)?;
        } else {
            ROLE_COUNT.put(ctx, &role, &count.saturating_sub(1))?;
            BY_ROLE.remove(ctx, &(role, node.address))?;
        }
    }
    if signs(node) || before.is_some_and(signs) {
        VALIDATORS_CHANGED.put(ctx, &true)?;
    }
    NODES.put(ctx, &node.address, node)
}

/// Whether the node wants to sign blocks and takes part.
fn signs(node: &Node) -> bool {
    node.status == NodeStatus::Active && node.spec.consensus_key.is_some()
}
