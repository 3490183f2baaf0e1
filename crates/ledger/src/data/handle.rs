//! What messages about datasets do.

use r3mes_types::data::{
    DataMessage, Dataset, DatasetSpec, DatasetStatus, MsgProposeDataset, MsgVoteDataset,
};
use r3mes_types::wire::Wire;
use r3mes_types::{Address, Hash, Time};

use super::events;
use super::state::{BY_CONTENT, DATASETS, DUE, NEXT, PARAMS, SHARDS, VOTES};
use crate::block::BlockInput;
use crate::coded_errors;
use crate::error::LedgerError;
use crate::governance;
use crate::store::{Context, View};
use crate::votes::{self, Tally};

/// Most votes that one block ends.
const MAX_DUE: usize = 16;

coded_errors! {
    /// Why something about datasets is refused.
    pub enum DataError in "data" {
        /// Only validators and the authority propose and vote.
        #[error("{account} is not an active validator")]
        1 => NotValidator {
            /// Who sent it.
            account: Address,
        },
        /// There is no such dataset, or no vote on it.
        #[error("there is no vote on dataset {dataset}")]
        2 => NoVote {
            /// Its number.
            dataset: u64,
        },
        /// The vote was cast already, the other way.
        #[error("{voter} has voted already, the other way")]
        3 => Voted {
            /// Who.
            voter: Address,
        },
        /// The description contradicts itself.
        #[error("{field}: {why}")]
        4 => Spec {
            /// Which part.
            field: &'static str,
            /// What is wrong, and what to do.
            why: &'static str,
        },
    }
}

/// Does what a message says.
pub(crate) fn execute(ctx: &mut Context<'_>, message: &DataMessage) -> Result<(), LedgerError> {
    match message {
        DataMessage::ProposeDataset(message) => propose(ctx, message),
        DataMessage::VoteDataset(message) => vote(ctx, message),
    }
}

fn propose(ctx: &mut Context<'_>, message: &MsgProposeDataset) -> Result<(), LedgerError> {
    let account = message.proposer;
    let decides = governance::is_authority(ctx, &account)?;
    if !decides && !votes::may_vote(ctx, &account)? {
        return Err(DataError::NotValidator { account }.into());
    }
    let status = if decides {
        DatasetStatus::Adopted
    } else {
        DatasetStatus::Proposed
    };
    add(ctx, account, &message.spec, status)
}

/// Adds a dataset; does nothing if this very dataset is proposed or adopted.
pub(super) fn add(
    ctx: &mut Context<'_>,
    proposer: Address,
    spec: &DatasetSpec,
    status: DatasetStatus,
) -> Result<(), LedgerError> {
    let content = Hash::of(&spec.encode());
    if BY_CONTENT.contains(ctx, &content)? {
        return Ok(());
    }
    let id = NEXT.next(ctx)?;
    let voting_ends_at = ctx.now().after(PARAMS.require(ctx)?.voting);
    for (index, shard) in (0u32..).zip(&spec.shards) {
        SHARDS.put(ctx, &(id, index), shard)?;
    }
    let dataset = Dataset {
        id,
        content,
        name: spec.name.clone(),
        licence: spec.licence.clone(),
        source: spec.source.clone(),
        tokenizer_hash: spec.tokenizer_hash,
        shards: spec.shards.len() as u32,
        tokens: spec
            .shards
            .iter()
            .map(|shard| shard.tokens)
            .fold(0, u64::saturating_add),
        held_out: spec.held_out,
        proposer,
        status,
        voting_ends_at,
    };
    DATASETS.put(ctx, &id, &dataset)?;
    BY_CONTENT.put(ctx, &content, &id)?;
    if status == DatasetStatus::Proposed {
        DUE.put(ctx, &(voting_ends_at, id), &true)?;
    }
    ctx.emit(events::dataset(&dataset));
    Ok(())
}

fn vote(ctx: &mut Context<'_>, message: &MsgVoteDataset) -> Result<(), LedgerError> {
    let MsgVoteDataset {
        voter,
        dataset: id,
        approve,
    } = *message;
    if !votes::may_vote(ctx, &voter)? {
        return Err(DataError::NotValidator { account: voter }.into());
    }
    let dataset = DATASETS.get(ctx, &id)?;
    let dataset = dataset.filter(|dataset| dataset.status == DatasetStatus::Proposed);
    let dataset = dataset.ok_or(DataError::NoVote { dataset: id })?;
    match VOTES.get(ctx, &(id, voter))? {
        Some(earlier) if earlier == approve => return Ok(()),
        Some(_) => return Err(DataError::Voted { voter }.into()),
        None => VOTES.put(ctx, &(id, voter), &approve)?,
    }
    ctx.emit(events::voted(id, &voter, approve));
    match votes::tally(ctx, &VOTES, id)? {
        Tally::Passed => close(ctx, dataset, DatasetStatus::Adopted),
        Tally::Rejected => close(ctx, dataset, DatasetStatus::Rejected),
        Tally::Open => Ok(()),
    }
}

fn close(
    ctx: &mut Context<'_>,
    mut dataset: Dataset,
    status: DatasetStatus,
) -> Result<(), LedgerError> {
    dataset.status = status;
    DUE.remove(ctx, &(dataset.voting_ends_at, dataset.id))?;
    votes::forget(ctx, &VOTES, dataset.id)?;
    if status == DatasetStatus::Rejected {
        BY_CONTENT.remove(ctx, &dataset.content)?;
        for index in 0..dataset.shards {
            SHARDS.remove(ctx, &(dataset.id, index))?;
        }
    }
    DATASETS.put(ctx, &dataset.id, &dataset)?;
    ctx.emit(events::dataset(&dataset));
    Ok(())
}

/// Ends votes whose time is over, up to a number per block.
pub(crate) fn end_block(ctx: &mut Context<'_>, _: &BlockInput) -> Result<(), LedgerError> {
    for ((at, id), _) in DUE.range(ctx, None, MAX_DUE)? {
        if at > ctx.now() {
            break;
        }
        if let Some(dataset) = DATASETS.get(ctx, &id)? {
            close(ctx, dataset, DatasetStatus::Rejected)?;
        }
    }
    Ok(())
}

/// When the next vote ends.
pub(crate) fn next_deadline(view: &dyn View) -> Result<Option<Time>, LedgerError> {
    Ok(DUE.range(view, None, 1)?.first().map(|((at, _), _)| *at))
}
