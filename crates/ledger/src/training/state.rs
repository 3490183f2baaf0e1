//! The tables of training.

use r3mes_types::training::{
    CourtVote, Duty, Entry, MAX_MINERS, MAX_VALIDATORS, Member, Members, Round, RoundSummary, Run,
};
use r3mes_types::wire::List;
use r3mes_types::{Address, Hash, Hasher, Role, schema};

use crate::error::{Fault, LedgerError};
use crate::store::{Context, Item, Key, Map, View};

schema! {
    /// The error feedback that a miner's newest accepted package left.
    pub struct Feedback {
        /// The round of that package.
        1 => round: u32,
        /// BLAKE3 of the feedback.
        2 => hash: Hash,
    }

    /// A miner that takes stake back and waits for the draw of its second audits. A dispute holds its
    /// stake.
    pub struct Leaver {
        /// No draw before this height, and none of packages that were accepted after it.
        1 => draw_height: u64,
        /// The beacon's mix of that height.
        2 => draw: Option<Hash>,
        /// The validators before it. Ascending by address.
        3 => validators: List<Member, MAX_VALIDATORS>,
        /// The run of the package that was looked at last; 0 before the first.
        4 => run: u64,
        /// The round of it.
        5 => round: u32,
    }

    /// What seats the panel of a second audit.
    pub struct Judges {
        /// Those among whom the panel is drawn and who sit in the court, with their power. Ascending by
        /// address.
        1 => members: List<Member, MAX_VALIDATORS>,
        /// The beacon's mix that draws.
        2 => mix: Hash,
    }
}

/// Names one round of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoundId {
    /// Number of the run.
    pub run: u64,
    /// Number of the round.
    pub round: u32,
}

/// Runs by number.
pub const RUNS: Map<u64, Run> = Map::new("training/run/");
/// Runs that may still do something by themselves: all but those that are finished and keep no round in
/// full.
pub(super) const LIVE: Map<u64, bool> = Map::new("training/live/");
/// The next run's number.
pub(super) const NEXT_RUN: Item<u64> = Item::new("training/next_run");
/// Heads of rounds that are kept in full.
pub const ROUNDS: Map<RoundId, Round> = Map::new("training/round/");
/// Who takes part in them.
pub const MEMBERS: Map<RoundId, Members> = Map::new("training/members/");
/// The miners' parts.
pub const ENTRIES: Map<(RoundId, Address), Entry> = Map::new("training/entry/");
/// The validators' parts.
pub const DUTIES: Map<(RoundId, Address), Duty> = Map::new("training/duty/");
/// Votes in court, by miner and validator.
pub const VOTES: Map<(RoundId, Address, Address), CourtVote> = Map::new("training/vote/");
/// Votes in the courts of second audits, by miner and validator.
pub(super) const SECOND_VOTES: Map<(RoundId, Address, Address), CourtVote> =
    Map::new("training/second-vote/");
/// Miners whose second audits have to be drawn.
pub(super) const LEAVERS: Map<Address, Leaver> = Map::new("training/leaver/");
/// Accepted packages of runs with second audits that are kept in full and were not drawn for yet, by
/// miner, with the height of the block that accepted them.
pub(super) const PACKAGES: Map<(Address, RoundId), u64> = Map::new("training/package/");
/// Second audits that are not over, by round and miner.
pub(super) const REAUDITS: Map<(RoundId, Address), bool> = Map::new("training/reaudit/");
/// The validators and the mixes of second audits.
pub(super) const JUDGES: Map<(RoundId, Address), Judges> = Map::new("training/judges/");
/// What each miner's newest accepted package left, by run and miner.
pub(super) const FEEDBACK: Map<(u64, Address), Feedback> = Map::new("training/feedback/");
/// Summaries of closed rounds.
pub const SUMMARIES: Map<RoundId, RoundSummary> = Map::new("training/summary/");

impl Key for RoundId {
    fn write(&self, out: &mut Vec<u8>) {
        self.run.write(out);
        self.round.write(out);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            run: u64::read(bytes)?,
            round: u32::read(bytes)?,
        })
    }
}

impl RoundId {
    /// The round of this head.
    pub const fn of(round: &Round) -> Self {
        Self {
            run: round.run,
            round: round.round,
        }
    }

    /// Names the lock on a validator's stake for its seat in the panel of a second audit.
    pub fn second_lock(self, miner: &Address, validator: &Address) -> Hash {
        Hasher::new("r3mes training second audit v1")
            .number(self.run)
            .number(u64::from(self.round))
            .part(miner.as_ref())
            .part(validator.as_ref())
            .finish()
    }

    /// Names the lock on a node's stake for what it owes in this round with one role.
    pub fn lock(self, role: Role, address: &Address) -> Hash {
        Hasher::new("r3mes training obligation v1")
            .number(self.run)
            .number(u64::from(self.round))
            .number(u64::from(role.number()))
            .part(address.as_ref())
            .finish()
    }
}

/// What must be there because this ledger wrote it.
fn required<K, V>(table: &Map<K, V>, found: Option<V>) -> Result<V, LedgerError>
where
    K: Key,
    V: r3mes_types::wire::Value,
{
    let why = "a record of an open round is missing".to_owned();
    let table = table.prefix();
    Ok(found.ok_or(Fault::Damaged { table, why })?)
}

/// Most runs that are [`LIVE`]: a block looks at all of them.
pub(super) const MAX_LIVE_RUNS: usize = 64;

/// The runs that may still do something by themselves, in order.
pub(super) fn live_runs(view: &dyn View) -> Result<Vec<Run>, LedgerError> {
    let live = LIVE.range(view, None, MAX_LIVE_RUNS)?;
    let runs = live.into_iter().map(|(id, _)| {
        let run = RUNS.get(view, &id)?;
        required(&RUNS, run)
    });
    runs.collect()
}

/// The head of an open round.
pub(super) fn round(view: &dyn View, id: RoundId) -> Result<Round, LedgerError> {
    required(&ROUNDS, ROUNDS.get(view, &id)?)
}

/// Who takes part in an open round.
pub(super) fn members(view: &dyn View, id: RoundId) -> Result<Members, LedgerError> {
    required(&MEMBERS, MEMBERS.get(view, &id)?)
}

/// The part of a miner of an open round, once it is assigned.
pub(super) fn entry(view: &dyn View, id: RoundId, miner: &Address) -> Result<Entry, LedgerError> {
    required(&ENTRIES, ENTRIES.get(view, &(id, *miner))?)
}

/// The part of a validator of an open round.
pub(super) fn duty(view: &dyn View, id: RoundId, validator: &Address) -> Result<Duty, LedgerError> {
    required(&DUTIES, DUTIES.get(view, &(id, *validator))?)
}

/// Writes the head of a round.
pub(super) fn put_round(ctx: &mut Context<'_>, round: &Round) -> Result<(), LedgerError> {
    ROUNDS.put(ctx, &RoundId::of(round), round)
}

/// Writes a miner's part.
pub(super) fn put_entry(
    ctx: &mut Context<'_>,
    id: RoundId,
    entry: &Entry,
) -> Result<(), LedgerError> {
    ENTRIES.put(ctx, &(id, entry.miner), entry)
}

/// Writes a validator's part.
pub(super) fn put_duty(ctx: &mut Context<'_>, id: RoundId, duty: &Duty) -> Result<(), LedgerError> {
    DUTIES.put(ctx, &(id, duty.validator), duty)
}

/// All miners' parts, ascending by address.
pub(super) fn entries(view: &dyn View, id: RoundId) -> Result<Vec<Entry>, LedgerError> {
    let found = ENTRIES.range_of(view, &id, None, MAX_MINERS)?;
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

/// All validators' parts, ascending by address.
pub(super) fn duties(view: &dyn View, id: RoundId) -> Result<Vec<Duty>, LedgerError> {
    let found = DUTIES.range_of(view, &id, None, MAX_VALIDATORS)?;
    Ok(found.into_iter().map(|(_, duty)| duty).collect())
}

/// The table of votes in the courts of the rounds, or of second audits.
pub(super) const fn votes_of(second: bool) -> &'static Map<(RoundId, Address, Address), CourtVote> {
    if second { &SECOND_VOTES } else { &VOTES }
}

/// The votes about one miner, ascending by validator.
pub(super) fn votes(
    view: &dyn View,
    id: RoundId,
    miner: &Address,
    second: bool,
) -> Result<Vec<CourtVote>, LedgerError> {
    let found = votes_of(second).range_of(view, &(id, *miner), None, MAX_VALIDATORS)?;
    Ok(found.into_iter().map(|(_, vote)| vote).collect())
}

/// The validators of a second audit, ascending by address; none without one.
pub(super) fn judges(
    view: &dyn View,
    id: RoundId,
    miner: &Address,
) -> Result<Vec<Member>, LedgerError> {
    let judges = JUDGES.get(view, &(id, *miner))?;
    Ok(judges.map_or_else(Vec::new, |judges| judges.members.to_vec()))
}

/// Whether a second audit of a package of this round is not over.
pub(super) fn is_reaudited(view: &dyn View, id: RoundId) -> Result<bool, LedgerError> {
    Ok(!REAUDITS.range_of(view, &id, None, 1)?.is_empty())
}

/// What a miner's accepted package of the round just before left; nothing means zero.
pub(super) fn feedback(
    view: &dyn View,
    id: RoundId,
    miner: &Address,
) -> Result<Option<Hash>, LedgerError> {
    let kept = FEEDBACK.get(view, &(id.run, *miner))?;
    let fresh = kept.filter(|kept| kept.round.checked_add(1) == Some(id.round));
    Ok(fresh.map(|kept| kept.hash))
}
