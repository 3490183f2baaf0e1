//! How one chain's state becomes another's beginning.
//!
//! An exported genesis carries the state entry by entry: whatever a domain keeps goes on as it is, under
//! another chain id, from the next height. Four things do not: rounds that are open (they are aborted,
//! or the export is refused), second audits that are open (they begin anew, since their deadlines may
//! pass before the next chain begins), the block validators, and their hash chains for the beacon, of
//! which elements are known already.

use r3mes_state::{Delta, Read};
use r3mes_types::tx::MAX_CHAIN_ID;
use r3mes_types::wire::{Blob, List, Text};
use r3mes_types::{Time, schema};

use crate::beacon;
use crate::error::{Fault, LedgerError};
use crate::genesis::{Genesis, GenesisValidator};
use crate::invariants::{self, Violation};
use crate::store::{Block, Committed, Context};
use crate::{CHAIN_ID, LAST_HEIGHT, LAST_TIME, governance, nodes, training};

/// Most entries of an exported state.
pub const MAX_STATE_ENTRIES: usize = 1 << 22;
/// Entries read at once.
const PAGE: usize = 4096;

schema! {
    /// The state that a chain goes on from.
    pub struct Continued {
        /// Height of its first block: one more than the last of the chain before.
        1 => initial_height: u64,
        /// The state, ascending by key.
        2 => state: List<StateEntry, MAX_STATE_ENTRIES>,
    }

    /// One entry of the state.
    pub struct StateEntry {
        /// Its key.
        1 => key: Blob<{ r3mes_state::MAX_KEY_BYTES }>,
        /// Its value.
        2 => value: Blob<{ r3mes_state::MAX_VALUE_BYTES }>,
    }
}

/// What becomes of rounds that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenRounds {
    /// There may be none.
    Refuse,
    /// They are forgotten, and the stake locked for them is free again. The run opens the same round
    /// anew, from the same adapter.
    Abort,
}

/// What the new chain is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name: another than the old one, which every signature binds.
    pub chain_id: String,
    /// When it begins; moved behind the old chain's last block if it is not after that.
    pub time: Time,
    /// Who signs its blocks at first, with new hash chains.
    pub validators: Vec<GenesisValidator>,
    /// What becomes of open rounds.
    pub open_rounds: OpenRounds,
}

/// A state cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The new chain would have the old one's name.
    #[error(
        "the new chain needs another id than {chain_id:?}: signatures of the old one would be valid on it"
    )]
    SameChain {
        /// The id.
        chain_id: String,
    },
    /// A round is open.
    #[error(
        "round {round} of run {run} is open: export when it is closed, or abort it, which sets the stake of all who take part free and forgets their work in it"
    )]
    OpenRound {
        /// The run.
        run: u64,
        /// The round.
        round: u32,
    },
    /// A round is being paid.
    #[error(
        "round {round} of run {run} is being paid out: let the chain make a few more blocks, then export"
    )]
    Paying {
        /// The run.
        run: u64,
        /// The round.
        round: u32,
    },
    /// Something is too large.
    #[error("the new genesis cannot hold it: {why}")]
    TooLarge {
        /// What.
        why: String,
    },
    /// The state has a mistake.
    #[error("the state contradicts itself")]
    Broken(#[from] Violation),
    /// The state cannot be read.
    #[error("the state cannot be read")]
    Unreadable(#[from] LedgerError),
}

/// The genesis of a chain that goes on from this state.
///
/// # Errors
/// [`ExportError`] says what stands in the way.
pub fn export(state: &dyn Read, plan: &Plan) -> Result<Genesis, ExportError> {
    let view = Committed(state);
    let old = CHAIN_ID.require(&view)?;
    if *old == *plan.chain_id {
        return Err(ExportError::SameChain {
            chain_id: plan.chain_id.clone(),
        });
    }
    let (height, last) = (LAST_HEIGHT.require(&view)?, LAST_TIME.require(&view)?);
    let block = Block { height, time: last };
    let mut ctx = Context::new(state, block);
    let time = plan.time.max(Time::from_nanos(last.nanos() + 1));
    training::end_rounds(&mut ctx, plan.open_rounds)?;
    training::begin_reaudits_anew(&mut ctx, time)?;
    nodes::forget_validators(&mut ctx)?;
    beacon::forget_chains(&mut ctx)?;
    let params = governance::params(&ctx)?;
    let mut after = Delta::new(state);
    after.apply(ctx.finish().0);
    invariants::check(&after)?;
    let too_large = |error: r3mes_types::wire::DecodeError| ExportError::TooLarge {
        why: error.to_string(),
    };
    let continued = Continued {
        initial_height: height + 1,
        state: List::new(entries(&after)?).map_err(too_large)?,
    };
    Ok(Genesis {
        chain_id: Text::<MAX_CHAIN_ID>::new(plan.chain_id.as_str()).map_err(too_large)?,
        time,
        params,
        balances: List::default(),
        validators: List::new(plan.validators.clone()).map_err(too_large)?,
        nodes: List::default(),
        models: List::default(),
        datasets: List::default(),
        runs: List::default(),
        continued: Some(continued),
    })
}

/// Every entry that the new chain takes over.
fn entries(state: &dyn Read) -> Result<Vec<StateEntry>, ExportError> {
    let anew = [CHAIN_ID.key(), LAST_HEIGHT.key(), LAST_TIME.key()];
    let mut all = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = state.scan(b"", after.as_deref(), PAGE);
        let page = page.map_err(|error| LedgerError::from(Fault::Read(error)))?;
        let Some((last, _)) = page.last() else {
            return Ok(all);
        };
        after = Some(last.clone());
        for (key, value) in page {
            if anew.iter().any(|name| name.as_bytes() == key) {
                continue;
            }
            let bounded = "the state holds no larger keys and values";
            all.push(StateEntry {
                key: Blob::new(key).expect(bounded),
                value: Blob::new(value).expect(bounded),
            });
        }
    }
}

/// Takes an exported state over. The validators and the beacon begin anew.
pub(crate) fn take_over(
    ctx: &mut Context<'_>,
    genesis: &Genesis,
    continued: &Continued,
) -> Result<(), LedgerError> {
    for entry in &continued.state {
        ctx.restore(entry.key.to_vec(), entry.value.to_vec());
    }
    let params = governance::params(ctx)?;
    if params != genesis.params {
        return Err(refused(
            "its parameters are not those of the state it carries",
        ));
    }
    CHAIN_ID.put(ctx, &genesis.chain_id)?;
    LAST_HEIGHT.put(ctx, &(continued.initial_height - 1))?;
    LAST_TIME.put(ctx, &genesis.time)?;
    crate::app::FIRST_HEIGHT.put(ctx, &continued.initial_height)?;
    beacon::init(ctx, genesis)?;
    nodes::begin_validators(ctx, genesis)?;
    invariants::check(ctx.state()).map_err(|violation| refused(&violation.to_string()))
}

fn refused(why: &str) -> LedgerError {
    Fault::Genesis {
        why: why.to_owned(),
    }
    .into()
}
