//! A round: who takes part, what was answered, and what is owed.

use std::collections::BTreeMap;

use r3mes_types::task::AdapterRef;
use r3mes_types::training::{
    ObligationKind as Kind, Outcome, Package, Phase, Served, Verdict, served_steps,
};
use r3mes_types::{Address, Hash};

/// A place in a panel.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat {
    pub(super) commitment: Option<Hash>,
    pub(super) verdict: Option<Verdict>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Audit {
    /// Ascending; the last is the packaging.
    pub(super) steps: Vec<u32>,
    pub(super) panel: BTreeMap<Address, Seat>,
    pub(super) served: Option<Served>,
    /// By leaf.
    pub(super) opened: BTreeMap<u32, Hash>,
    pub(super) disputed: bool,
    pub(super) votes: BTreeMap<Address, Verdict>,
}

/// A miner's part.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) feedback: Option<Hash>,
    pub(super) commitment: Option<Hash>,
    pub(super) package: Option<Package>,
    /// Power of those who hold the package.
    pub(super) held: u64,
    pub(super) audit: Option<Audit>,
    pub(super) outcome: Option<Outcome>,
    pub(super) paid: u64,
}

impl Entry {
    /// Whether there is something that only the miner has: a state, or its old feedback.
    pub(super) fn must_serve(&self, audit: &Audit) -> bool {
        !served_steps(&audit.steps).is_empty() || self.feedback.is_some()
    }
}

/// A validator's part.
#[derive(Clone, Debug, Default)]
pub(super) struct Duty {
    pub(super) power: u64,
    pub(super) held: Option<Vec<Address>>,
    pub(super) aggregate: Option<AdapterRef>,
    /// What its answers weigh.
    pub(super) done: u64,
    pub(super) refuted: bool,
    pub(super) paid: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) number: u32,
    pub(super) phase: Phase,
    pub(super) deadline: u64,
    pub(super) start: AdapterRef,
    pub(super) entries: BTreeMap<Address, Entry>,
    pub(super) duties: BTreeMap<Address, Duty>,
    /// What all duties of all validators weigh.
    pub(super) owed: u64,
    pub(super) draw_height: u64,
    /// In drawn order.
    pub(super) proposers: Vec<Address>,
    pub(super) attempt: usize,
    pub(super) proposal: Option<(Address, AdapterRef)>,
    /// Proposers that posted something else than the quorum computed.
    pub(super) wrong: Vec<Address>,
    pub(super) aggregate: Option<AdapterRef>,
    pub(super) paid: u64,
    pub(super) slashed: u64,
}

impl Round {
    pub(super) fn all_power(&self) -> u64 {
        self.duties.values().map(|duty| duty.power).sum()
    }

    /// The judges of a miner's work and their power: all validators but itself.
    pub(super) fn court(&self, miner: &Address) -> BTreeMap<Address, u64> {
        let others = self.duties.iter().filter(|(who, _)| *who != miner);
        others.map(|(who, duty)| (*who, duty.power)).collect()
    }

    pub(super) fn standing(&self) -> usize {
        let accepted = |entry: &&Entry| matches!(entry.outcome, None | Some(Outcome::Accepted));
        self.entries.values().filter(accepted).count()
    }

    pub(super) fn audited(&self) -> usize {
        let entries = self.entries.values();
        entries.filter(|entry| entry.audit.is_some()).count()
    }

    pub(super) fn disputed(&self) -> usize {
        let audits = self
            .entries
            .values()
            .filter_map(|entry| entry.audit.as_ref());
        audits.filter(|audit| audit.disputed).count()
    }

    /// Whose turn it is to propose.
    pub(super) fn turn(&self) -> Option<Address> {
        let open = self.proposal.is_none() && self.aggregate.is_none();
        self.proposers.get(self.attempt).copied().filter(|_| open)
    }

    /// What a node owes now, and about whom.
    pub(super) fn owed_by(&self, who: &Address) -> Vec<(Kind, Option<Address>)> {
        let mut owed = Vec::new();
        let standing = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.outcome.is_none());
        for (miner, entry) in standing {
            if let Some(kind) = self.owed_about(who, miner, entry) {
                owed.push((kind, Some(*miner)));
            }
        }
        let duty = self.duties.get(who);
        if self.phase == Phase::Availability && duty.is_some_and(|duty| duty.held.is_none()) {
            owed.push((Kind::AttestPackages, None));
        }
        if self.phase == Phase::Aggregate {
            if self.turn() == Some(*who) {
                owed.push((Kind::Propose, None));
            }
            let known = self.proposal.is_some() || self.aggregate.is_some();
            if known && duty.is_some_and(|duty| duty.aggregate.is_none()) {
                owed.push((Kind::AttestAggregate, None));
            }
        }
        owed
    }

    fn owed_about(&self, who: &Address, miner: &Address, entry: &Entry) -> Option<Kind> {
        let mine = who == miner;
        let audit = entry.audit.as_ref();
        let seat = audit.and_then(|audit| audit.panel.get(who));
        match self.phase {
            Phase::Commit => (mine && entry.commitment.is_none()).then_some(Kind::Commit),
            Phase::Reveal => (mine && entry.package.is_none()).then_some(Kind::Reveal),
            Phase::Serve => {
                let audit = audit?;
                let owes = mine && audit.served.is_none() && entry.must_serve(audit);
                owes.then_some(Kind::Serve)
            }
            Phase::Verify => seat?.commitment.is_none().then_some(Kind::CommitVerdict),
            Phase::Verdict => {
                let seat = seat?;
                let owes = seat.commitment.is_some() && seat.verdict.is_none();
                owes.then_some(Kind::RevealVerdict)
            }
            Phase::Open => (mine && audit?.opened.is_empty()).then_some(Kind::Open),
            Phase::Court => {
                let audit = audit?;
                let judges = self.court(miner).contains_key(who);
                let owes = audit.disputed && judges && !audit.votes.contains_key(who);
                owes.then_some(Kind::Court)
            }
            _ => None,
        }
    }

    /// Whether all who owe something have answered.
    pub(super) fn is_answered(&self) -> bool {
        if self.phase == Phase::Aggregate && self.standing() > 0 {
            // The validators wait for a proposal.
            let known = self.proposal.is_some() || self.aggregate.is_some();
            return known && self.duties.values().all(|duty| duty.aggregate.is_some());
        }
        if self.phase == Phase::Availability && self.standing() == 0 {
            return true;
        }
        let nodes = self.entries.keys().chain(self.duties.keys());
        nodes.into_iter().all(|who| self.owed_by(who).is_empty())
    }
}
