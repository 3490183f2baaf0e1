//! Votes of the validators, weighed by their stake.

use r3mes_types::nodes::Node;
use r3mes_types::{Address, Amount, Role};

use crate::error::LedgerError;
use crate::governance;
use crate::nodes;
use crate::store::{Context, Map, View};

/// Where a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// More than the threshold is for it.
    Passed,
    /// The threshold cannot be reached any more.
    Rejected,
    /// Neither as yet.
    Open,
}

/// Whether an account may vote: an active validator.
pub(crate) fn may_vote(view: &dyn View, voter: &Address) -> Result<bool, LedgerError> {
    Ok(nodes::get(view, voter)?.is_some_and(|node: Node| node.is_active(Role::Validator)))
}

/// Adds up the votes on `subject` over the active validators; votes of others do not count.
pub(crate) fn tally(
    ctx: &Context<'_>,
    votes: &Map<(u64, Address), bool>,
    subject: u64,
) -> Result<Tally, LedgerError> {
    let (mut total, mut for_it, mut against) = (Amount::ZERO, Amount::ZERO, Amount::ZERO);
    for validator in nodes::active(ctx, Role::Validator)? {
        let stake = validator.bonded;
        total = total.saturating_add(stake);
        match votes.get(ctx, &(subject, validator.address))? {
            Some(true) => for_it = for_it.saturating_add(stake),
            Some(false) => against = against.saturating_add(stake),
            None => {}
        }
    }
    let needed = total.share(governance::PARAMS.require(ctx)?.threshold);
    Ok(if for_it > needed {
        Tally::Passed
    } else if total.saturating_sub(against) <= needed {
        Tally::Rejected
    } else {
        Tally::Open
    })
}

/// Forgets the votes on `subject`.
pub(crate) fn forget(
    ctx: &mut Context<'_>,
    votes: &Map<(u64, Address), bool>,
    subject: u64,
) -> Result<(), LedgerError> {
    loop {
        let page = votes.range_of(ctx, &subject, None, nodes::MAX_ELECTORS)?;
        if page.is_empty() {
            return Ok(());
        }
        for (key, _) in page {
            votes.remove(ctx, &key)?;
        }
    }
}
