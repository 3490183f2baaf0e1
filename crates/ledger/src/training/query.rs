//! What training answers.

use r3mes_types::query::{MAX_PAGE, Query};
use r3mes_types::task::{ShardRef, Task};
use r3mes_types::training::{
    Aggregation, Entry, MinerPackage, Obligation, ObligationKind, Obligations, Phase,
    QueryObligations, QueryRound, QueryRounds, QueryRun, QueryRuns, QueryTask, Round, RoundRecord,
    RoundSummaries, Run, Runs, Seat,
};
use r3mes_types::wire::{List, Value};
use r3mes_types::{Address, Hash};

use super::aggregate::turn;
use super::answers::{Asked, Case, phase_of};
use super::error::TrainingError;
use super::reaudit::MAX_REAUDITS;
use super::settle::must_serve;
use super::state::{
    self, DUTIES, ENTRIES, MEMBERS, REAUDITS, ROUNDS, RUNS, RoundId, SUMMARIES, votes_of,
};
use crate::data;
use crate::error::{Fault, LedgerError};
use crate::query::{Answer, reply};
use crate::store::View;

/// Answers a question of this domain; `None` when the path is of another.
pub(crate) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    Some(match path {
        QueryRun::PATH => reply(data, |query: QueryRun| {
            let unknown = TrainingError::UnknownRun { run: query.run };
            let run = RUNS.get(view, &query.run)?.ok_or(unknown)?;
            Ok((run, Some(RUNS.key(&query.run))))
        }),
        QueryRuns::PATH => reply(data, |query: QueryRuns| {
            let runs = RUNS.range(view, query.after.as_ref(), page_size(query.limit))?;
            let runs = runs.into_iter().map(|(_, run)| run).collect();
            Ok((
                Runs {
                    runs: bounded(runs)?,
                },
                None,
            ))
        }),
        QueryRound::PATH => reply(data, |query: QueryRound| {
            let id = RoundId {
                run: query.run,
                round: query.round,
            };
            Ok((record(view, id)?, Some(ROUNDS.key(&id))))
        }),
        QueryRounds::PATH => reply(data, |query: QueryRounds| {
            let after = query.after.map(|round| RoundId {
                run: query.run,
                round,
            });
            let limit = page_size(query.limit);
            let found = SUMMARIES.range_of(view, &query.run, after.as_ref(), limit)?;
            let rounds = found.into_iter().map(|(_, summary)| summary).collect();
            Ok((
                RoundSummaries {
                    rounds: bounded(rounds)?,
                },
                None,
            ))
        }),
        QueryTask::PATH => reply(data, |query: QueryTask| {
            let id = RoundId {
                run: query.run,
                round: query.round,
            };
            Ok((find_task(view, id, query.miner)?, None))
        }),
        QueryObligations::PATH => reply(data, |query: QueryObligations| {
            let obligations = obligations(view, query.address)?;
            Ok((
                Obligations {
                    obligations: bounded(obligations)?,
                },
                None,
            ))
        }),
        _ => return None,
    })
}

fn page_size(limit: u32) -> usize {
    match limit as usize {
        0 => MAX_PAGE,
        wanted => wanted.min(MAX_PAGE),
    }
}

fn bounded<T: Value, const MAX: usize>(values: Vec<T>) -> Result<List<T, MAX>, LedgerError> {
    let too_many = |error: r3mes_types::wire::DecodeError| Fault::Damaged {
        table: ROUNDS.prefix(),
        why: error.to_string(),
    };
    Ok(List::new(values).map_err(too_many)?)
}

fn record(view: &dyn View, id: RoundId) -> Result<RoundRecord, LedgerError> {
    let head = ROUNDS.get(view, &id)?;
    let summary = SUMMARIES.get(view, &id)?;
    if head.is_none() && summary.is_none() {
        let RoundId { run, round } = id;
        return Err(TrainingError::NotOpen { run, round }.into());
    }
    let votes = |second: bool| -> Result<_, LedgerError> {
        let table = votes_of(second);
        let found = table.range_of(view, &id, None, r3mes_types::training::MAX_COURT_VOTES)?;
        bounded(found.into_iter().map(|(_, vote)| vote).collect())
    };
    Ok(RoundRecord {
        summary,
        head,
        members: MEMBERS.get(view, &id)?,
        entries: bounded(state::entries(view, id)?)?,
        duties: bounded(state::duties(view, id)?)?,
        court: votes(false)?,
        second_court: votes(true)?,
    })
}

fn find_task(view: &dyn View, id: RoundId, miner: Address) -> Result<Task, LedgerError> {
    let RoundId { run, round } = id;
    let not_open = TrainingError::NotOpen { run, round };
    let (Some(run), Some(head)) = (RUNS.get(view, &run)?, ROUNDS.get(view, &id)?) else {
        return Err(not_open.into());
    };
    let kind = ObligationKind::Commit;
    let unknown = TrainingError::NotOwed {
        address: miner,
        kind,
    };
    let entry = ENTRIES.get(view, &(id, miner))?.ok_or(unknown)?;
    task(view, &run, &head, &entry)
}

/// A miner's task.
fn task(view: &dyn View, run: &Run, round: &Round, entry: &Entry) -> Result<Task, LedgerError> {
    let params = &run.params;
    let missing = || Fault::Damaged {
        table: ENTRIES.prefix(),
        why: "the assigned shard is not in the dataset".into(),
    };
    let shard = data::shard(view, params.dataset, entry.shard)?.ok_or_else(missing)?;
    let mut hyper = params.hyper.clone();
    hyper.learning_rate = round.learning_rate;
    Ok(Task {
        run: run.id,
        round: round.round,
        miner: entry.miner,
        model: params.model,
        exact_version: params.exact_version,
        adapter_seed: params.adapter_seed,
        start: round.start.clone(),
        shard: ShardRef {
            index: entry.shard,
            cid: shard.cid,
            tokens: shard.tokens,
        },
        steps: params.steps,
        hyper,
        beacon: round.beacon,
        feedback: entry.feedback,
    })
}

/// Everything an address owes now, in open rounds and then in second audits.
pub(super) fn obligations(
    view: &dyn View,
    address: Address,
) -> Result<Vec<Obligation>, LedgerError> {
    let mut found = Vec::new();
    for run in state::live_runs(view)? {
        if !run.open {
            continue;
        }
        let id = RoundId {
            run: run.id,
            round: run.round,
        };
        let round = state::round(view, id)?;
        if !round.settling {
            Desk {
                view,
                run: &run,
                round: &round,
                id,
                address,
                second: false,
            }
            .collect(&mut found)?;
        }
    }
    for ((id, miner), _) in REAUDITS.range(view, None, MAX_REAUDITS)? {
        let asked = Asked::find(view, id.run, id.round)?;
        if let Some(case) = Case::second(asked, state::entry(view, id, &miner)?) {
            let desk = Desk {
                view,
                run: &case.asked.run,
                round: &case.asked.round,
                id,
                address,
                second: true,
            };
            desk.about_package(&case.entry, &mut found)?;
        }
    }
    Ok(found)
}

/// One address's obligations in one round, or in the second audit of one of its packages.
struct Desk<'a> {
    view: &'a dyn View,
    run: &'a Run,
    round: &'a Round,
    id: RoundId,
    address: Address,
    second: bool,
}

impl Desk<'_> {
    fn collect(&self, found: &mut Vec<Obligation>) -> Result<(), LedgerError> {
        match self.round.phase {
            Phase::Commit | Phase::Reveal | Phase::Serve | Phase::Open => self.as_miner(found),
            Phase::Availability => self.as_holder(found),
            Phase::Verify | Phase::Verdict | Phase::Court => self.as_judge(found),
            Phase::Aggregate => self.as_aggregator(found),
            Phase::Assign | Phase::Draw | Phase::Pay | Phase::Closed => Ok(()),
        }
    }

    /// What is owed in a second audit of a package.
    fn about_package(&self, entry: &Entry, found: &mut Vec<Obligation>) -> Result<(), LedgerError> {
        if entry.miner == self.address {
            return self.of_miner(entry, found);
        }
        let court = self.round.phase == Phase::Court;
        if court
            && !state::judges(self.view, self.id, &entry.miner)?
                .iter()
                .any(|judge| judge.validator == self.address)
        {
            return Ok(());
        }
        self.of_judge(entry, found)
    }

    fn as_miner(&self, found: &mut Vec<Obligation>) -> Result<(), LedgerError> {
        match ENTRIES.get(self.view, &(self.id, self.address))? {
            Some(entry) => self.of_miner(&entry, found),
            None => Ok(()),
        }
    }

    fn of_miner(&self, entry: &Entry, found: &mut Vec<Obligation>) -> Result<(), LedgerError> {
        if entry.outcome.is_some() {
            return Ok(());
        }
        let audit = entry.audit.as_ref();
        let kind = match self.round.phase {
            Phase::Commit if entry.commitment.is_none() => ObligationKind::Commit,
            Phase::Reveal if entry.package.is_none() => ObligationKind::Reveal,
            Phase::Serve
                if audit.is_some_and(|audit| {
                    audit.served.is_none() && must_serve(audit, entry.feedback)
                }) =>
            {
                ObligationKind::Serve
            }
            Phase::Open if audit.is_some_and(|audit| audit.opened.is_empty()) => {
                ObligationKind::Open
            }
            _ => return Ok(()),
        };
        let mut obligation = self.about(kind, entry)?;
        obligation.commitment = entry.commitment;
        found.push(obligation);
        Ok(())
    }

    fn as_holder(&self, found: &mut Vec<Obligation>) -> Result<(), LedgerError> {
        let duty = DUTIES.get(self.view, &(self.id, self.address))?;
        if duty.is_some_and(|duty| duty.held.is_none()) {
            let mut obligation = self.bare(ObligationKind::AttestPackages);
            obligation.packages = self.packages()?;
            found.push(obligation);
        }
        Ok(())
    }

    fn as_judge(&self, found: &mut Vec<Obligation>) -> Result<(), LedgerError> {
        if !DUTIES.contains(self.view, &(self.id, self.address))? {
            return Ok(());
        }
        for entry in state::entries(self.view, self.id)? {
            self.of_judge(&entry, found)?;
        }
        Ok(())
    }

    fn of_judge(&self, entry: &Entry, found: &mut Vec<Obligation>) -> Result<(), LedgerError> {
        let Some(audit) = entry.audit.as_ref().filter(|_| entry.outcome.is_none()) else {
            return Ok(());
        };
        let seat = audit
            .panel
            .iter()
            .find(|seat| seat.validator == self.address);
        if let Some(kind) = self.owed_about(entry, audit.disputed, seat)? {
            let mut obligation = self.about(kind, entry)?;
            obligation.commitment = seat.and_then(|seat| seat.commitment);
            found.push(obligation);
        }
        Ok(())
    }

    fn owed_about(
        &self,
        entry: &Entry,
        disputed: bool,
        seat: Option<&Seat>,
    ) -> Result<Option<ObligationKind>, LedgerError> {
        Ok(match (self.round.phase, seat) {
            (Phase::Verify, Some(seat)) if seat.commitment.is_none() => {
                Some(ObligationKind::CommitVerdict)
            }
            (Phase::Verdict, Some(seat)) if seat.commitment.is_some() && seat.verdict.is_none() => {
                Some(ObligationKind::RevealVerdict)
            }
            (Phase::Court, _) if disputed && entry.miner != self.address => {
                let key = (self.id, entry.miner, self.address);
                let voted = votes_of(self.second).contains(self.view, &key)?;
                (!voted).then_some(ObligationKind::Court)
            }
            _ => None,
        })
    }

    fn as_aggregator(&self, found: &mut Vec<Obligation>) -> Result<(), LedgerError> {
        let mut kinds = Vec::new();
        if turn(self.round) == Some(self.address) {
            kinds.push(ObligationKind::Propose);
        }
        let duty = DUTIES.get(self.view, &(self.id, self.address))?;
        let attested = duty.is_none_or(|duty| duty.aggregate.is_some());
        let known = self.round.proposal.is_some() || self.round.aggregate.is_some();
        if known && !attested {
            kinds.push(ObligationKind::AttestAggregate);
        }
        for kind in kinds {
            let mut obligation = self.bare(kind);
            obligation.packages = self.packages()?;
            obligation.aggregation = Some(self.aggregation());
            found.push(obligation);
        }
        Ok(())
    }

    fn aggregation(&self) -> Aggregation {
        let params = &self.run.params;
        let mut hyper = params.hyper.clone();
        hyper.learning_rate = self.round.learning_rate;
        Aggregation {
            start: self.round.start.clone(),
            model: params.model,
            exact_version: params.exact_version,
            adapter_seed: params.adapter_seed,
            hyper,
        }
    }

    /// The packages that still stand, ascending by miner.
    fn packages<const MAX: usize>(&self) -> Result<List<MinerPackage, MAX>, LedgerError> {
        let standing = state::entries(self.view, self.id)?
            .into_iter()
            .filter(|entry| entry.outcome.is_none())
            .filter_map(|entry| {
                let package = entry.package?;
                Some(MinerPackage {
                    miner: entry.miner,
                    package,
                })
            })
            .collect();
        bounded(standing)
    }

    fn about(&self, kind: ObligationKind, entry: &Entry) -> Result<Obligation, LedgerError> {
        let mut obligation = self.bare(kind);
        obligation.task = Some(task(self.view, self.run, self.round, entry)?);
        obligation.package = entry.package.clone();
        if let Some(audit) = &entry.audit {
            obligation.steps = audit.steps.clone();
            obligation.served = audit.served.clone();
        }
        Ok(obligation)
    }

    fn bare(&self, kind: ObligationKind) -> Obligation {
        debug_assert_eq!(phase_of(kind), self.round.phase);
        Obligation {
            kind,
            run: self.id.run,
            round: self.id.round,
            deadline: self.round.deadline,
            task: None,
            commitment: None::<Hash>,
            package: None,
            steps: List::default(),
            served: None,
            packages: List::default(),
            aggregation: None,
            second: self.second,
        }
    }
}
