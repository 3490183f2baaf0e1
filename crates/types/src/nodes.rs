//! Nodes: who takes part, in which roles, with how much at stake.

use crate::query::{MAX_PAGE, MAX_PAGE_KEY, PageRequest};
use crate::wire::{Blob, List, Text};
use crate::{
    Address, Allocation, Amount, ConsensusKey, Hash, Millis, Ppm, Resources, Role, RoleSet, Time,
    messages, queries, schema, wire_enum,
};

/// Longest name of a node, in bytes.
pub const MAX_MONIKER: usize = 64;
/// Longest base URL, in bytes.
pub const MAX_URL: usize = 256;
/// Longest reason or statement, in bytes.
pub const MAX_REASON: usize = 256;
/// Most endpoints: one per role.
pub const MAX_ENDPOINTS: usize = 4;
/// Most parts of a stake that can be unbonding at once.
pub const MAX_UNBONDING: usize = 16;

messages! {
    /// Messages about nodes.
    pub enum NodesMessage {
        "/r3mes.nodes.v1.MsgRegister" => Register(MsgRegister) by address,
        "/r3mes.nodes.v1.MsgUpdate" => Update(MsgUpdate) by address,
        "/r3mes.nodes.v1.MsgLeave" => Leave(MsgLeave) by address,
        "/r3mes.nodes.v1.MsgUnjail" => Unjail(MsgUnjail) by address,
        "/r3mes.nodes.v1.MsgAppeal" => Appeal(MsgAppeal) by address,
    }
}

wire_enum! {
    /// Where a node stands.
    pub enum NodeStatus {
        /// Takes part.
        Active = 1 => "active",
        /// Does not take part until it asks back in.
        Jailed = 2 => "jailed",
        /// Takes part no more; its stake is unbonding or paid back.
        Left = 3 => "left",
    }
}

wire_enum! {
    /// What becomes of a slashed amount.
    pub enum SlashStatus {
        /// In escrow until the appeal window ends.
        Held = 1 => "held",
        /// In escrow until governance decides on the appeal.
        Appealed = 2 => "appealed",
        /// Given to the treasury.
        Final = 3 => "final",
        /// Given back.
        Reverted = 4 => "reverted",
    }
}

schema! {
    /// Where one role of a node is reached.
    pub struct Endpoint {
        /// The role that answers there.
        1 => role: Role,
        /// Base URL of its blob store.
        2 => blobs: Text<MAX_URL>,
        /// Base URL of its API; empty if it has none.
        3 => api: Text<MAX_URL>,
    }

    /// Everything a node declares about itself.
    pub struct NodeSpec {
        /// A name for people.
        1 => moniker: Text<MAX_MONIKER>,
        /// What it does; at least one role.
        2 => roles: RoleSet,
        /// The role that goes first where roles compete for the machine.
        3 => primary_role: Option<Role>,
        /// How much it puts at stake.
        4 => stake: Amount,
        /// What the machine has.
        5 => resources: Resources,
        /// How the roles divide it; at most one per role, ascending.
        6 => allocations: List<Allocation, MAX_ENDPOINTS>,
        /// Where its roles are reached; at most one per role, ascending.
        7 => endpoints: List<Endpoint, MAX_ENDPOINTS>,
        /// The key it signs blocks with; needed by validators who want to.
        8 => consensus_key: Option<ConsensusKey>,
    }

    /// Joins the network, or joins it again after having left.
    pub struct MsgRegister {
        /// The node's account; pays the stake.
        1 => address: Address,
        /// What it declares.
        2 => spec: NodeSpec,
    }

    /// Replaces everything a node declares. More stake is paid at once; less is unbonding first.
    pub struct MsgUpdate {
        /// The node's account.
        1 => address: Address,
        /// What it declares from now on.
        2 => spec: NodeSpec,
    }

    /// Leaves the network; the stake is unbonding.
    #[derive(Copy)]
    pub struct MsgLeave {
        /// The node's account.
        1 => address: Address,
    }

    /// Asks back in after a jail term.
    #[derive(Copy)]
    pub struct MsgUnjail {
        /// The node's account.
        1 => address: Address,
    }

    /// Asks governance to undo a slash.
    pub struct MsgAppeal {
        /// The node's account.
        1 => address: Address,
        /// Number of the slash.
        2 => slash: u64,
        /// Why it was wrong, for people.
        3 => statement: Text<MAX_REASON>,
    }

    /// Parameters of the nodes.
    pub struct NodesParams {
        /// Least stake of a node with a role. A node's minimum is the largest over its roles.
        1 => minimum_stakes: List<RoleStake, 4>,
        /// How long stake stays slashable after it was taken back. Not under the time for which
        /// evidence against block validators is accepted.
        2 => unbonding: Millis,
        /// How long a slashed amount is held so that its owner can appeal.
        3 => appeal_window: Millis,
        /// How long a node stays jailed at least.
        4 => jail: Millis,
        /// Most block validators.
        5 => max_block_validators: u32,
        /// Share of a block validator's stake slashed when it signs two blocks of one height.
        6 => double_sign_slash: Ppm,
    }

    /// Least stake of a role.
    #[derive(Copy)]
    pub struct RoleStake {
        /// The role.
        1 => role: Role,
        /// The least stake.
        2 => minimum: Amount,
    }

    /// A node as the ledger keeps it.
    pub struct Node {
        /// Its account.
        1 => address: Address,
        /// What it declares. Its stake is [`Node::bonded`].
        2 => spec: NodeSpec,
        /// Where it stands.
        3 => status: NodeStatus,
        /// What is at stake now.
        4 => bonded: Amount,
        /// The part of it that open obligations lock.
        5 => locked: Amount,
        /// How many locks there are.
        6 => locks: u32,
        /// How many open disputes it is a party of. Nothing is paid out during one.
        7 => disputes: u32,
        /// What it takes back, oldest first.
        8 => unbonding: List<Unbonding, MAX_UNBONDING>,
        /// When it registered.
        9 => registered_at: Time,
        /// Until when it is jailed.
        10 => jailed_until: Time,
        /// Why, for people.
        11 => jail_reason: Text<MAX_REASON>,
    }

    /// A part of the stake on its way back.
    #[derive(Copy)]
    pub struct Unbonding {
        /// How much.
        1 => amount: Amount,
        /// When it was taken back.
        2 => started_at: Time,
        /// When it can be paid out.
        3 => release_at: Time,
    }

    /// What an open obligation locks of a node's stake.
    #[derive(Copy)]
    pub struct Lock {
        /// How much.
        1 => amount: Amount,
        /// Since when.
        2 => since: Time,
    }

    /// A slashed amount.
    pub struct Slash {
        /// Its number.
        1 => id: u64,
        /// Whose it was.
        2 => node: Address,
        /// How much.
        3 => amount: Amount,
        /// Why, for people.
        4 => reason: Text<MAX_REASON>,
        /// What becomes of it.
        5 => status: SlashStatus,
        /// When it happened.
        6 => at: Time,
        /// When it becomes final without an appeal.
        7 => final_at: Time,
        /// What the node said against it.
        8 => statement: Text<MAX_REASON>,
    }

    /// Asks for a node.
    #[derive(Copy)]
    pub struct QueryNode {
        /// Whose.
        1 => address: Address,
    }

    /// The answer to [`QueryNode`].
    pub struct NodeAnswer {
        /// The node, if it ever registered.
        1 => node: Option<Node>,
    }

    /// Asks for nodes, ascending by address bytes.
    #[derive(Default)]
    pub struct QueryNodes {
        /// Only those with this role.
        1 => role: Option<Role>,
        /// Which part.
        2 => page: Option<PageRequest>,
    }

    /// A page of nodes.
    pub struct Nodes {
        /// The nodes.
        1 => nodes: List<Node, MAX_PAGE>,
        /// Where the next page begins; empty at the end.
        2 => next: Blob<MAX_PAGE_KEY>,
    }

    /// Asks for slashes, oldest first.
    #[derive(Default)]
    pub struct QuerySlashes {
        /// Only those of this node.
        1 => node: Option<Address>,
        /// Which part.
        2 => page: Option<PageRequest>,
    }

    /// A page of slashes.
    pub struct Slashes {
        /// The slashes.
        1 => slashes: List<Slash, MAX_PAGE>,
        /// Where the next page begins; empty at the end.
        2 => next: Blob<MAX_PAGE_KEY>,
    }
}

queries! {
    "/r3mes.nodes.v1.Query/Node" => QueryNode: NodeAnswer,
    "/r3mes.nodes.v1.Query/Nodes" => QueryNodes: Nodes,
    "/r3mes.nodes.v1.Query/Slashes" => QuerySlashes: Slashes,
}

impl Node {
    /// Whether the node takes part with this role now.
    pub fn is_active(&self, role: Role) -> bool {
        self.status == NodeStatus::Active && self.spec.roles.contains(role)
    }

    /// What no open obligation locks.
    pub const fn free(&self) -> Amount {
        self.bonded.saturating_sub(self.locked)
    }

    /// Where one of its roles is reached.
    pub fn endpoint(&self, role: Role) -> Option<&Endpoint> {
        self.spec
            .endpoints
            .iter()
            .find(|endpoint| endpoint.role == role)
    }
}

impl NodesParams {
    /// Least stake of a node with these roles: the largest over them.
    pub fn minimum_stake(&self, roles: RoleSet) -> Amount {
        self.minimum_stakes
            .iter()
            .filter(|entry| roles.contains(entry.role))
            .map(|entry| entry.minimum)
            .max()
            .unwrap_or(Amount::ZERO)
    }
}

/// Names one obligation of one node: a hash that the domain which creates it chooses.
pub type ObligationId = Hash;
