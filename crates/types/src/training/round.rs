//! A round: its phase, and each node's part in it.

use super::limits::{MAX_MINERS, MAX_PROPOSERS, MAX_VALIDATORS};
use super::{Audit, Reaudit};
use crate::task::{AdapterRef, F32Bits};
use crate::wire::List;
use crate::{Address, Amount, Cid, Hash, Time, schema, wire_enum};

wire_enum! {
    /// Where a round stands. Phases follow one another in this order; those without work are skipped.
    pub enum Phase {
        /// Shards are assigned and stake is locked.
        Assign = 1 => "assign",
        /// Miners train and commit to their states.
        Commit = 2 => "commit",
        /// Miners publish their packages.
        Reveal = 3 => "reveal",
        /// Validators attest which packages they hold.
        Availability = 4 => "availability",
        /// Waiting for the beacon that names the audits.
        Draw = 5 => "draw",
        /// Audited miners serve the states before the drawn steps.
        Serve = 6 => "serve",
        /// Panels re-run and commit to verdicts.
        Verify = 7 => "verify",
        /// Panels reveal their verdicts.
        Verdict = 8 => "verdict",
        /// Audited miners open the salted leaves.
        Open = 9 => "open",
        /// All validators replay the disputed miners and vote.
        Court = 10 => "court",
        /// A proposer aggregates, validators attest.
        Aggregate = 11 => "aggregate",
        /// Rewards are paid and stake is released.
        Pay = 12 => "pay",
        /// Done.
        Closed = 13 => "closed",
    }
}

wire_enum! {
    /// What became of a miner's work in a round.
    pub enum Outcome {
        /// In the aggregate, and paid.
        Accepted = 1 => "accepted",
        /// Nothing committed: not paid.
        Absent = 2 => "absent",
        /// Committed, but no package revealed: not paid.
        Unrevealed = 3 => "unrevealed",
        /// Too few validators held the package: not paid.
        Unavailable = 4 => "unavailable",
        /// Does not recompute: slashed.
        Fraudulent = 5 => "fraudulent",
        /// Disputed without a decision: not paid, nobody slashed.
        Undecided = 6 => "undecided",
    }
}

schema! {
    /// A validator at the moment the round opened.
    pub struct Member {
        /// Its account.
        1 => validator: Address,
        /// Its power.
        2 => power: u64,
    }

    /// Who takes part, fixed when the round opens: every later draw is over these lists. Ascending by
    /// address.
    pub struct Members {
        /// The miners.
        1 => miners: List<Address, MAX_MINERS>,
        /// The validators.
        2 => validators: List<Member, MAX_VALIDATORS>,
        /// The proposers.
        3 => proposers: List<Address, MAX_MINERS>,
    }

    /// What a proposer posted.
    pub struct Proposal {
        /// Who.
        1 => proposer: Address,
        /// The aggregate.
        2 => aggregate: AdapterRef,
    }

    /// The head of a round.
    pub struct Round {
        /// Its run.
        1 => run: u64,
        /// Its number, from 0.
        2 => round: u32,
        /// Where it stands.
        3 => phase: Phase,
        /// Block time at which it opened.
        4 => opened_at: Time,
        /// Block time at which the phase ends at the latest.
        5 => deadline: Time,
        /// The beacon's mix when it opened; data windows are drawn from it.
        6 => beacon: Hash,
        /// What every miner starts from.
        7 => start: AdapterRef,
        /// The round's learning rate.
        8 => learning_rate: F32Bits,
        /// Miners assigned.
        9 => assigned: u32,
        /// The validators' power together.
        10 => total_power: u64,
        /// Answers that the phase still waits for.
        11 => pending: u32,
        /// Whether the phase is over and its entries are being settled.
        12 => settling: bool,
        /// The next entry to settle.
        13 => cursor: u32,
        /// No draw before this height.
        14 => draw_height: u64,
        /// The beacon's mix that named the audits.
        15 => draw: Option<Hash>,
        /// Packages that are audited.
        16 => audited: u32,
        /// Packages before the court.
        17 => disputed: u32,
        /// Miners whose work still stands; once the round is closed: packages accepted.
        18 => standing: u32,
        /// The drawn proposer and its backups, in order; each has stake locked.
        19 => proposers: List<Address, MAX_PROPOSERS>,
        /// Whose turn it is among them.
        20 => attempt: u32,
        /// What it posted.
        21 => proposal: Option<Proposal>,
        /// The attested aggregate.
        22 => aggregate: Option<AdapterRef>,
        /// The verification duties owed by all validators, in weights.
        23 => duties: u64,
        /// What is left of the reward while it is being paid.
        24 => unpaid: Amount,
        /// Paid so far.
        25 => paid: Amount,
        /// Slashed in this round.
        26 => slashed: Amount,
        /// Bytes of all accepted packages.
        27 => package_bytes: u64,
        /// Block time at which it closed.
        28 => closed_at: Time,
        /// The aggregates that validators computed, in the order they first appeared.
        29 => tallies: List<Tally, MAX_VALIDATORS>,
        /// Proposers that posted a wrong aggregate.
        30 => slashed_proposers: List<Address, MAX_PROPOSERS>,
    }

    /// An aggregate with the power of the validators that computed it.
    pub struct Tally {
        /// What they computed.
        1 => aggregate: AdapterRef,
        /// Their power together.
        2 => power: u64,
    }

    /// A published package.
    pub struct Package {
        /// Where to get it.
        1 => cid: Cid,
        /// BLAKE3 of its bytes.
        2 => hash: Hash,
        /// Length of its bytes.
        3 => bytes: u64,
        /// BLAKE3 of the new error feedback.
        4 => feedback: Hash,
    }

    /// One miner's part in a round.
    pub struct Entry {
        /// Who.
        1 => miner: Address,
        /// Index of the assigned shard in the dataset.
        2 => shard: u32,
        /// Hash of the error feedback that it starts from; absent: zero.
        3 => feedback: Option<Hash>,
        /// Merkle root over its states.
        4 => commitment: Option<Hash>,
        /// What it published.
        5 => package: Option<Package>,
        /// Power of the validators that hold the package.
        6 => held: u64,
        /// Its audit, if it was drawn.
        7 => audit: Option<Audit>,
        /// What became of it.
        8 => outcome: Option<Outcome>,
        /// What it was paid.
        9 => paid: Amount,
        /// Stake locked for this round.
        10 => locked: Amount,
        /// The second audit of the accepted package, once it was drawn whether there is one.
        11 => reaudit: Option<Reaudit>,
    }

    /// One validator's part in a round.
    pub struct Duty {
        /// Who.
        1 => validator: Address,
        /// Its power.
        2 => power: u64,
        /// The packages it attested to hold; absent: it has not answered.
        3 => held: Option<Held>,
        /// Weight of what it owed.
        4 => owed: u64,
        /// Weight of what it did.
        5 => done: u64,
        /// The aggregate it computed.
        6 => aggregate: Option<AdapterRef>,
        /// What it was slashed.
        7 => slashed: Amount,
        /// What it was paid.
        8 => paid: Amount,
        /// Stake locked for this round.
        9 => locked: Amount,
    }

    /// The packages that a validator holds.
    pub struct Held {
        /// Their miners, ascending.
        1 => miners: List<Address, MAX_MINERS>,
    }

    /// What is kept of a round for good.
    pub struct RoundSummary {
        /// Its run.
        1 => run: u64,
        /// Its number.
        2 => round: u32,
        /// Block time at which it opened.
        3 => opened_at: Time,
        /// Block time at which it closed.
        4 => closed_at: Time,
        /// Miners assigned.
        5 => assigned: u32,
        /// Packages accepted.
        6 => accepted: u32,
        /// Packages audited.
        7 => audited: u32,
        /// Packages disputed.
        8 => disputed: u32,
        /// The adapter after it.
        9 => adapter: AdapterRef,
        /// Paid to miners, validators and proposer.
        10 => paid: Amount,
        /// Slashed.
        11 => slashed: Amount,
        /// Bytes of all accepted packages.
        12 => package_bytes: u64,
    }
}
