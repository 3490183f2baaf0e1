//! What an accepted change does.

use r3mes_types::governance::{Change, Params};

use super::handle::GovernanceError;
use super::params::check_all;
use super::state::PARAMS;
use crate::bank::Module;
use crate::error::LedgerError;
use crate::store::{Context, View};
use crate::{auth, bank, data, models, nodes, rewards, training};

/// The parameters of all domains.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn params(view: &dyn View) -> Result<Params, LedgerError> {
    Ok(Params {
        bank: bank::PARAMS.require(view)?,
        auth: auth::PARAMS.require(view)?,
        nodes: nodes::PARAMS.require(view)?,
        data: data::PARAMS.require(view)?,
        governance: PARAMS.require(view)?,
        rewards: rewards::PARAMS.require(view)?,
    })
}

/// Does what a change says.
pub(super) fn apply(ctx: &mut Context<'_>, change: &Change) -> Result<(), LedgerError> {
    let mut new = params(ctx)?;
    match change {
        Change::Model(spec) => return models::register(ctx, spec),
        Change::Slash(decision) => return nodes::decide(ctx, decision),
        Change::Spend(spend) => {
            return bank::transfer(ctx, Module::Treasury, spend.to, spend.amount);
        }
        Change::Bank(params) => new.bank = *params,
        Change::Auth(params) => new.auth = *params,
        Change::Nodes(params) => new.nodes = params.clone(),
        Change::Data(params) => new.data = *params,
        Change::Governance(params) => new.governance = *params,
        Change::Rewards(params) => new.rewards = *params,
        Change::Run(params) => return training::start(ctx, params.clone()).map(|_| ()),
        Change::RunSwitch(switch) => return training::switch(ctx, switch),
        Change::RunEnd(end) => return training::end(ctx, end.run),
    }
    check_all(&new).map_err(|why| GovernanceError::Params { why })?;
    put(ctx, &new)
}

fn put(ctx: &mut Context<'_>, new: &Params) -> Result<(), LedgerError> {
    bank::PARAMS.put(ctx, &new.bank)?;
    auth::PARAMS.put(ctx, &new.auth)?;
    nodes::PARAMS.put(ctx, &new.nodes)?;
    nodes::changed(ctx)?;
    data::PARAMS.put(ctx, &new.data)?;
    rewards::PARAMS.put(ctx, &new.rewards)?;
    PARAMS.put(ctx, &new.governance)
}
