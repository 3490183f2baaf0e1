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

/// What became of a package when its miner took stake back.
#[derive(Clone, Debug)]
pub(super) struct Second {
    pub(super) phase: Phase,
    pub(super) deadline: u64,
    /// The panel is empty until it is seated.
    pub(super) audit: Option<Audit>,
    /// Who may sit in the panel and sits in the court, with their power.
    pub(super) judges: BTreeMap<Address, u64>,
    pub(super) outcome: Option<Outcome>,
    pub(super) slashed: u64,
    pub(super) paid: u64,
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
    /// The height of the block that accepted it.
    pub(super) accepted: Option<u64>,
    /// Once it was drawn for.
    pub(super) second: Option<Second>,
}

impl Entry {
    /// Whether there is something that only the miner has: a state, or its old feedback.
    pub(super) fn must_serve(&self, audit: &Audit) -> bool {
        !served_steps(&audit.steps).is_empty() || self.feedback.is_some()
    }

    pub(super) fn audit(&self, second: bool) -> Option<&Audit> {
        if second {
            self.second.as_ref()?.audit.as_ref()
        } else {
            self.audit.as_ref()
        }
    }

    pub(super) fn audit_mut(&mut self, second: bool) -> Option<&mut Audit> {
        if second {
            self.second.as_mut()?.audit.as_mut()
        } else {
            self.audit.as_mut()
        }
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
    pub(super) opened: u64,
    pub(super) closed: u64,
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
        match self.phase {
            Phase::Commit => (mine && entry.commitment.is_none()).then_some(Kind::Commit),
            Phase::Reveal => (mine && entry.package.is_none()).then_some(Kind::Reveal),
            phase => {
                let judges = self.court(miner).contains_key(who);
                owed_in_audit(phase, who, (miner, entry), entry.audit.as_ref()?, judges)
            }
        }
    }

    /// What a node owes now in second audits of packages of this round, and about whom.
    pub(super) fn owed_again_by(&self, who: &Address) -> Vec<(Kind, Address)> {
        let owed = self.entries.iter().filter_map(|(miner, entry)| {
            let second = entry.second.as_ref()?;
            let judges = second.judges.contains_key(who);
            let audit = second.audit.as_ref()?;
            let kind = owed_in_audit(second.phase, who, (miner, entry), audit, judges)?;
            Some((kind, *miner))
        });
        owed.collect()
    }

    /// The miners of this round with second audits that are not over.
    pub(super) fn heard(&self) -> Vec<Address> {
        let open = |entry: &Entry| {
            let second = entry.second.as_ref();
            second.is_some_and(|second| second.phase != Phase::Closed)
        };
        let open = self.entries.iter().filter(|(_, entry)| open(entry));
        open.map(|(miner, _)| *miner).collect()
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

/// What a node owes about an audit in this phase of it.
fn owed_in_audit(
    phase: Phase,
    who: &Address,
    (miner, entry): (&Address, &Entry),
    audit: &Audit,
    judges: bool,
) -> Option<Kind> {
    let mine = who == miner;
    let seat = audit.panel.get(who);
    let (owes, kind) = match phase {
        Phase::Serve => {
            let owes = mine && audit.served.is_none() && entry.must_serve(audit);
            (owes, Kind::Serve)
        }
        Phase::Verify => {
            let owes = seat.is_some_and(|seat| seat.commitment.is_none());
            (owes, Kind::CommitVerdict)
        }
        Phase::Verdict => {
            let said = |seat: &Seat| seat.commitment.is_some() && seat.verdict.is_none();
            (seat.is_some_and(said), Kind::RevealVerdict)
        }
        Phase::Open => (mine && audit.opened.is_empty(), Kind::Open),
        Phase::Court => {
            let owes = audit.disputed && judges && !audit.votes.contains_key(who);
            (owes, Kind::Court)
        }
        _ => return None,
    };
    owes.then_some(kind)
}
