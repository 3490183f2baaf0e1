//! A round: its phase, and what each node has said in it.

use super::limits::{
    MAX_AUDITED, MAX_MINERS, MAX_OPENINGS, MAX_PANEL, MAX_PROPOSERS, MAX_VALIDATORS,
};
use crate::commitment::Work;
use crate::task::{AdapterRef, F32Bits};
use crate::wire::List;
use crate::{Address, Amount, Cid, Hash, Hasher, Time, schema, wire_enum};

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
    /// The arithmetic back end that computed a verdict: a split along it is a kernel's fault, not a
    /// validator's.
    pub enum Backend {
        /// The scalar definition.
        Scalar = 1 => "scalar",
        /// x86-64 with AVX2.
        Avx2 = 2 => "avx2",
        /// x86-64 with AVX-512 VNNI.
        Avx512 = 3 => "avx512",
        /// 64-bit ARM.
        Neon = 4 => "neon",
        /// NVIDIA GPUs.
        Cuda = 5 => "cuda",
        /// x86-64 with AVX-512 and AMX int8 tiles.
        Amx = 6 => "amx",
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

    /// The state before one step, as a miner serves it.
    pub struct ServedState {
        /// The step it stands before.
        1 => step: u32,
        /// Its state hash (BLAKE3 of the file).
        2 => state: Hash,
        /// Where to get the file.
        3 => cid: Cid,
    }

    /// What an audited miner serves to its panel.
    pub struct Served {
        /// States before audited steps, ascending.
        1 => states: List<ServedState, MAX_AUDITED>,
        /// The error feedback it started from, if it was not zero.
        2 => feedback: Option<Cid>,
    }

    /// One re-run step.
    pub struct StepVerdict {
        /// Which step; step H is the packaging.
        1 => step: u32,
        /// State hash before it.
        2 => before: Hash,
        /// State hash after it, computed by the voter.
        3 => after: Hash,
    }

    /// A revealed verdict.
    pub struct Verdict {
        /// What computed it.
        1 => backend: Backend,
        /// The audited steps, ascending.
        2 => steps: List<StepVerdict, MAX_AUDITED>,
        /// The old error feedback could not be fetched, so that the packaging could not be judged; the
        /// state after it is then [`Hash::ZERO`].
        3 => feedback_withheld: bool,
    }

    /// One member of a panel.
    pub struct Seat {
        /// Who.
        1 => validator: Address,
        /// What it committed to.
        2 => commitment: Option<Hash>,
        /// What it revealed.
        3 => verdict: Option<Verdict>,
    }

    /// A leaf that a miner opened.
    pub struct OpenedLeaf {
        /// Its index.
        1 => index: u32,
        /// The state in it.
        2 => state: Hash,
    }

    /// The audit of one miner.
    pub struct Audit {
        /// The steps to re-run, ascending; the last is always H, the packaging.
        1 => steps: List<u32, MAX_AUDITED>,
        /// Who re-runs them.
        2 => panel: List<Seat, MAX_PANEL>,
        /// What the miner served.
        3 => served: Option<Served>,
        /// What the miner opened.
        4 => opened: List<OpenedLeaf, MAX_OPENINGS>,
        /// Whether the court is asked.
        5 => disputed: bool,
    }

    /// A second audit of an accepted package, because its miner takes stake back. It goes through the
    /// phases from serve to court by itself, while other rounds go on.
    pub struct Reaudit {
        /// Where it stands: draw while no validator has stake free for a seat; closed when the package
        /// was passed over.
        1 => phase: Phase,
        /// Block time at which the phase ends at the latest.
        2 => deadline: Time,
        /// Answers that the phase still waits for.
        3 => pending: u32,
        /// Steps, panel and answers; absent when the package was passed over: not drawn, or nobody had
        /// stake free for a seat in time.
        4 => audit: Option<Audit>,
        /// What it found.
        5 => outcome: Option<Outcome>,
        /// Slashed: the miner, or panel members.
        6 => slashed: Amount,
        /// Paid to validators.
        7 => paid: Amount,
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

    /// A vote in court.
    pub struct CourtVote {
        /// The disputed miner.
        1 => miner: Address,
        /// Who votes.
        2 => validator: Address,
        /// What it computed.
        3 => verdict: Verdict,
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

impl Verdict {
    /// What a panel member commits to before anybody reveals: the states it computed around each
    /// audited step. The nonce hides them, and the address keeps others from copying.
    pub fn commitment(&self, work: &Work, validator: &Address, nonce: &Hash) -> Hash {
        let head = Hasher::new("r3mes training verdict v1")
            .number(work.run)
            .number(work.round)
            .part(work.miner.as_ref())
            .part(validator.as_ref())
            .part(nonce.as_ref())
            .number(u64::from(self.backend.number()))
            .number(u64::from(self.feedback_withheld))
            .number(self.steps.len() as u64);
        self.steps
            .iter()
            .fold(head, |hasher, step| {
                hasher
                    .number(u64::from(step.step))
                    .part(step.before.as_ref())
                    .part(step.after.as_ref())
            })
            .finish()
    }
}

impl Audit {
    /// The leaves that the miner opens, ascending: see [`opened_leaves`].
    pub fn leaves(&self) -> Vec<u32> {
        opened_leaves(&self.steps)
    }

    /// The steps whose state before is served: see [`served_steps`].
    pub fn served_steps(&self) -> Vec<u32> {
        served_steps(&self.steps)
    }
}

/// The leaves that an audited miner opens, ascending: before and after each audited step, without
/// the first and the last, which were opened with the package. `steps` ascend and end with the
/// packaging.
pub fn opened_leaves(steps: &[u32]) -> Vec<u32> {
    let last = steps.last().copied().unwrap_or(0);
    let mut leaves: Vec<u32> = steps
        .iter()
        .flat_map(|&step| [step, step + 1])
        .filter(|&leaf| leaf > 0 && leaf <= last)
        .collect();
    leaves.dedup();
    leaves
}

/// The audited steps whose state before is served: it is neither public (step 0) nor what the panel
/// has just computed as the state after the step before, which must not be given away.
pub fn served_steps(steps: &[u32]) -> Vec<u32> {
    steps
        .iter()
        .copied()
        .filter(|&step| step > 0 && !steps.contains(&(step - 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(steps: &[u32]) -> Audit {
        Audit {
            steps: steps.to_vec().try_into().unwrap(),
            panel: List::default(),
            served: None,
            opened: List::default(),
            disputed: false,
        }
    }

    #[test]
    fn what_is_served_never_gives_away_what_a_panel_has_to_compute() {
        let cases: [(&[u32], &[u32], &[u32]); 4] = [
            (&[3, 8], &[3, 8], &[3, 4, 8]),
            (&[0, 8], &[8], &[1, 8]),
            (&[3, 4, 8], &[3, 8], &[3, 4, 5, 8]),
            (&[7, 8], &[7], &[7, 8]),
        ];
        for (steps, served, leaves) in cases {
            assert_eq!(audit(steps).served_steps(), served, "{steps:?}");
            assert_eq!(audit(steps).leaves(), leaves, "{steps:?}");
        }
    }

    #[test]
    fn the_verdict_commitment_is_pinned_and_binds_every_part() {
        let verdict = |backend, after: u8, feedback_withheld| Verdict {
            backend,
            steps: vec![StepVerdict {
                step: 3,
                before: Hash::from([1; 32]),
                after: Hash::from([after; 32]),
            }]
            .try_into()
            .unwrap(),
            feedback_withheld,
        };
        let work = Work {
            run: 1,
            round: 2,
            miner: Address::from([3; 20]),
        };
        let (validator, nonce) = (Address::from([4; 20]), Hash::from([5; 32]));
        let base = verdict(Backend::Avx2, 2, false).commitment(&work, &validator, &nonce);
        assert_eq!(
            base.to_string(),
            "8ccebdda9190bcc20a9187e9df7fff8975523e5094887412d645adc44febb079"
        );
        let others = [
            verdict(Backend::Neon, 2, false).commitment(&work, &validator, &nonce),
            verdict(Backend::Avx2, 9, false).commitment(&work, &validator, &nonce),
            verdict(Backend::Avx2, 2, true).commitment(&work, &validator, &nonce),
            verdict(Backend::Avx2, 2, false).commitment(&work, &work.miner, &nonce),
            verdict(Backend::Avx2, 2, false).commitment(&work, &validator, &base),
        ];
        assert!(others.iter().all(|other| *other != base));
    }
}
