//! What messages of governance do.

use r3mes_types::governance::{GovernanceMessage, MsgPropose, MsgVote, Proposal, ProposalStatus};
use r3mes_types::wire::Wire;
use r3mes_types::{Address, Hash, Time};

use super::apply::apply;
use super::events;
use super::state::{DUE, NEXT, OPEN, PARAMS, PROPOSALS, VOTES, is_authority};
use crate::block::BlockInput;
use crate::coded_errors;
use crate::error::LedgerError;
use crate::store::{Context, View};
use crate::votes::{self, Tally};

/// Most votes that one block ends.
const MAX_DUE: usize = 16;

coded_errors! {
    /// Why governance refuses.
    pub enum GovernanceError in "governance" {
        /// Only validators and the authority propose and vote.
        #[error("{account} is not an active validator")]
        1 => NotValidator {
            /// Who sent it.
            account: Address,
        },
        /// There is no such proposal, or the vote is over.
        #[error("there is no vote on proposal {proposal}")]
        2 => NoVote {
            /// Its number.
            proposal: u64,
        },
        /// The vote was cast already, the other way.
        #[error("{voter} has voted already, the other way")]
        3 => Voted {
            /// Who.
            voter: Address,
        },
        /// The parameters would not work.
        #[error("these parameters are not allowed: {why}")]
        4 => Params {
            /// Which, why, and what would do.
            why: String,
        },
    }
}

/// Does what a message says.
pub(crate) fn execute(
    ctx: &mut Context<'_>,
    message: &GovernanceMessage,
) -> Result<(), LedgerError> {
    match message {
        GovernanceMessage::Propose(message) => propose(ctx, message),
        GovernanceMessage::Vote(message) => vote(ctx, message),
    }
}

fn propose(ctx: &mut Context<'_>, message: &MsgPropose) -> Result<(), LedgerError> {
    let account = message.proposer;
    if is_authority(ctx, &account)? {
        return decide_alone(ctx, message);
    }
    if !votes::may_vote(ctx, &account)? {
        return Err(GovernanceError::NotValidator { account }.into());
    }
    let content = Hash::of(&message.encode());
    if OPEN.contains(ctx, &content)? {
        return Ok(());
    }
    let proposal = record(ctx, message, content, ProposalStatus::Open)?;
    OPEN.put(ctx, &content, &proposal.id)?;
    DUE.put(ctx, &(proposal.voting_ends_at, proposal.id), &true)
}

/// The authority's proposals are done at once, or refused with the reason why they cannot be.
fn decide_alone(ctx: &mut Context<'_>, message: &MsgPropose) -> Result<(), LedgerError> {
    apply(ctx, &message.change)?;
    let content = Hash::of(&message.encode());
    record(ctx, message, content, ProposalStatus::Passed)?;
    Ok(())
}

fn record(
    ctx: &mut Context<'_>,
    message: &MsgPropose,
    content: Hash,
    status: ProposalStatus,
) -> Result<Proposal, LedgerError> {
    let voting = PARAMS.require(ctx)?.voting;
    let proposal = Proposal {
        id: NEXT.next(ctx)?,
        content,
        proposer: message.proposer,
        title: message.title.clone(),
        change: message.change.clone(),
        status,
        voting_ends_at: ctx.now().after(voting),
    };
    PROPOSALS.put(ctx, &proposal.id, &proposal)?;
    ctx.emit(events::proposal(&proposal));
    Ok(proposal)
}

fn vote(ctx: &mut Context<'_>, message: &MsgVote) -> Result<(), LedgerError> {
    let MsgVote {
        voter,
        proposal: id,
        approve,
    } = *message;
    if !votes::may_vote(ctx, &voter)? {
        return Err(GovernanceError::NotValidator { account: voter }.into());
    }
    let proposal = PROPOSALS.get(ctx, &id)?;
    let proposal = proposal.filter(|proposal| proposal.status == ProposalStatus::Open);
    let proposal = proposal.ok_or(GovernanceError::NoVote { proposal: id })?;
    match VOTES.get(ctx, &(id, voter))? {
        Some(earlier) if earlier == approve => return Ok(()),
        Some(_) => return Err(GovernanceError::Voted { voter }.into()),
        None => VOTES.put(ctx, &(id, voter), &approve)?,
    }
    ctx.emit(events::voted(id, &voter, approve));
    match votes::tally(ctx, &VOTES, id)? {
        Tally::Passed => accept(ctx, proposal),
        Tally::Rejected => close(ctx, proposal, ProposalStatus::Rejected),
        Tally::Open => Ok(()),
    }
}

/// Does what an accepted proposal says; if that cannot be done, the proposal has failed.
fn accept(ctx: &mut Context<'_>, proposal: Proposal) -> Result<(), LedgerError> {
    let status = match ctx.attempt(|inner| apply(inner, &proposal.change)) {
        Ok(()) => ProposalStatus::Passed,
        Err(LedgerError::Fault(fault)) => return Err(fault.into()),
        Err(LedgerError::Tx(out_of_gas)) => return Err(out_of_gas.into()),
        Err(_) => ProposalStatus::Failed,
    };
    close(ctx, proposal, status)
}

fn close(
    ctx: &mut Context<'_>,
    mut proposal: Proposal,
    status: ProposalStatus,
) -> Result<(), LedgerError> {
    proposal.status = status;
    DUE.remove(ctx, &(proposal.voting_ends_at, proposal.id))?;
    OPEN.remove(ctx, &proposal.content)?;
    votes::forget(ctx, &VOTES, proposal.id)?;
    PROPOSALS.put(ctx, &proposal.id, &proposal)?;
    ctx.emit(events::proposal(&proposal));
    Ok(())
}

/// Ends votes whose time is over, up to a number per block.
pub(crate) fn end_block(ctx: &mut Context<'_>, _: &BlockInput) -> Result<(), LedgerError> {
    for ((at, id), _) in DUE.range(ctx, None, MAX_DUE)? {
        if at > ctx.now() {
            break;
        }
        if let Some(proposal) = PROPOSALS.get(ctx, &id)? {
            close(ctx, proposal, ProposalStatus::Rejected)?;
        }
    }
    Ok(())
}

/// When the next vote ends.
pub(crate) fn next_deadline(view: &dyn View) -> Result<Option<Time>, LedgerError> {
    Ok(DUE.range(view, None, 1)?.first().map(|((at, _), _)| *at))
}
