//! Stake behind what is owed in a round: one lock for each role of a node.

use r3mes_types::{Address, Amount, Role};

use super::state::RoundId;
use crate::error::LedgerError;
use crate::nodes;
use crate::store::Context;

/// A node's stake behind one of its roles in one round.
#[derive(Clone, Copy)]
pub(super) struct Bond {
    pub(super) id: RoundId,
    pub(super) role: Role,
    pub(super) node: Address,
}

impl Bond {
    /// Locks the stake; `false` when not enough is free.
    pub(super) fn lock(self, ctx: &mut Context<'_>, amount: Amount) -> Result<bool, LedgerError> {
        nodes::lock(ctx, &self.node, self.name(), amount)
    }

    /// Sets the stake free.
    pub(super) fn release(self, ctx: &mut Context<'_>) -> Result<(), LedgerError> {
        nodes::unlock(ctx, &self.node, self.name())
    }

    /// Ends the lock by taking the stake, and jails the node. Returns what was taken.
    pub(super) fn forfeit(
        self,
        ctx: &mut Context<'_>,
        amount: Amount,
        reason: &str,
    ) -> Result<Amount, LedgerError> {
        nodes::unlock(ctx, &self.node, self.name())?;
        let taken = nodes::slash(ctx, &self.node, amount, reason)?;
        nodes::jail(ctx, &self.node, reason)?;
        Ok(taken)
    }

    fn name(self) -> r3mes_types::nodes::ObligationId {
        self.id.lock(self.role, &self.node)
    }
}
