//! An audit of a package: what was asked, and what panel, miner and court have said.

use super::limits::{MAX_AUDITED, MAX_OPENINGS, MAX_PANEL};
use super::{Outcome, Phase};
use crate::commitment::Work;
use crate::wire::List;
use crate::{Address, Amount, Cid, Hash, Hasher, Time, schema, wire_enum};

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

schema! {
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

    /// A vote in court.
    pub struct CourtVote {
        /// The disputed miner.
        1 => miner: Address,
        /// Who votes.
        2 => validator: Address,
        /// What it computed.
        3 => verdict: Verdict,
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
