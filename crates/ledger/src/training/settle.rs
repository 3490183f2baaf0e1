//! What the end of each phase means for one miner or validator.

use r3mes_types::training::{
    Audit, Duty, Entry, Member, Members, Outcome, Phase, Round, Run, Seat,
};
use r3mes_types::wire::List;
use r3mes_types::{Address, Amount, Hash, Role};

use super::court::{Claims, Comparison, Power, Ruling, is_quorum, judge};
use super::draw::{self, Audits, Draw, PackageDraw};
use super::events;
use super::pay::{self, weight};
use super::runs;
use super::stake::Bond;
use super::state::{self, DUTIES, ENTRIES, RoundId, duty, put_duty, put_entry};
use crate::beacon;
use crate::data;
use crate::error::{Fault, LedgerError};
use crate::rewards::{self, Deed};
use crate::store::Context;

/// Why a miner is slashed that served a state that it had not committed to.
pub(super) const SERVED_ANOTHER_STATE: &str = "it served a state that it had not committed to";
/// Why a miner is slashed against which the court has decided.
pub(super) const DOES_NOT_RECOMPUTE: &str = "its work does not recompute";

/// Settles one miner at the end of the round's phase.
pub(super) fn miner(
    ctx: &mut Context<'_>,
    run: &Run,
    round: &mut Round,
    members: &Members,
    miner: Address,
) -> Result<(), LedgerError> {
    let id = RoundId::of(round);
    if round.phase == Phase::Assign {
        return assign(ctx, run, round, miner);
    }
    let mut entry = state::entry(ctx, id, &miner)?;
    if round.phase == Phase::Pay {
        return pay::miner(ctx, run, round, entry);
    }
    if entry.outcome.is_some() {
        return Ok(());
    }
    let mut turn = Turn {
        ctx,
        run,
        round,
        members,
        id,
    };
    match turn.round.phase {
        Phase::Commit if entry.commitment.is_none() => turn.end(&mut entry, Outcome::Absent)?,
        Phase::Reveal if entry.package.is_none() => turn.end(&mut entry, Outcome::Unrevealed)?,
        Phase::Commit => turn.round.pending += 1,
        Phase::Availability if !is_quorum(entry.held, turn.round.total_power) => {
            turn.end(&mut entry, Outcome::Unavailable)?;
        }
        Phase::Draw => turn.draw(&mut entry)?,
        Phase::Serve | Phase::Verify | Phase::Verdict => turn.count(&entry),
        Phase::Open => turn.compare(&mut entry)?,
        Phase::Court => turn.rule(&mut entry)?,
        _ => {}
    }
    put_entry(turn.ctx, id, &entry)
}

/// Settles one validator at the end of the phases that concern all of them.
pub(super) fn validator(
    ctx: &mut Context<'_>,
    run: &Run,
    round: &mut Round,
    member: &Member,
) -> Result<(), LedgerError> {
    let id = RoundId::of(round);
    if round.phase == Phase::Pay {
        let duty = duty(ctx, id, &member.validator)?;
        return pay::validator(ctx, run, round, duty);
    }
    let amount = run.params.penalties.validator;
    let bond = Bond {
        id,
        role: Role::Validator,
        node: member.validator,
    };
    let locked = bond.lock(ctx, amount)?;
    let owed = weight::AVAILABILITY + weight::AGGREGATE;
    round.duties += owed;
    let duty = Duty {
        validator: member.validator,
        power: member.power,
        held: None,
        owed,
        done: 0,
        aggregate: None,
        slashed: Amount::ZERO,
        paid: Amount::ZERO,
        locked: if locked { amount } else { Amount::ZERO },
    };
    put_duty(ctx, id, &duty)
}

/// Ranks the proposers by the draw and locks their stake. A round without packages needs none.
pub(super) fn rank_proposers(
    ctx: &mut Context<'_>,
    run: &Run,
    round: &mut Round,
) -> Result<(), LedgerError> {
    let Some(mix) = round.draw else {
        return Ok(());
    };
    let id = RoundId::of(round);
    let candidates = state::members(ctx, id)?.proposers;
    let mut ranked = draw::proposers(&mix, id, &candidates, run.params.proposers);
    let amount = run.params.penalties.proposer;
    let mut able = Vec::new();
    for proposer in ranked.drain(..) {
        if (Bond {
            id,
            role: Role::Proposer,
            node: proposer,
        })
        .lock(ctx, amount)?
        {
            able.push(proposer);
        }
    }
    round.proposers = List::new(able).expect("a run ranks no more proposers than a list holds");
    Ok(())
}

/// Assigns a shard and locks stake.
fn assign(
    ctx: &mut Context<'_>,
    run: &Run,
    round: &mut Round,
    miner: Address,
) -> Result<(), LedgerError> {
    let id = RoundId::of(round);
    let amount = run.params.penalties.miner;
    let locked = Bond {
        id,
        role: Role::Miner,
        node: miner,
    }
    .lock(ctx, amount)?;
    let shards = data::adopted(ctx, run.params.dataset)?.map_or(1, |dataset| dataset.shards);
    let offset = Draw::new(&round.beacon, id, "shards", &[]).below(u64::from(shards));
    let shard = (offset + u64::from(round.cursor)) % u64::from(shards.max(1));
    let mut entry = Entry {
        miner,
        shard: shard as u32,
        feedback: state::feedback(ctx, id, &miner)?,
        commitment: None,
        package: None,
        held: 0,
        audit: None,
        outcome: None,
        paid: Amount::ZERO,
        locked: if locked { amount } else { Amount::ZERO },
        reaudit: None,
    };
    if locked {
        round.pending += 1;
    } else {
        // Its stake went elsewhere since the round opened.
        entry.outcome = Some(Outcome::Absent);
        round.standing -= 1;
    }
    ENTRIES.put(ctx, &(id, miner), &entry)
}

/// One miner's turn in the settlement of a phase.
struct Turn<'t, 'c> {
    ctx: &'t mut Context<'c>,
    run: &'t Run,
    round: &'t mut Round,
    members: &'t Members,
    id: RoundId,
}

impl Turn<'_, '_> {
    /// The miner's work has found its end without being accepted.
    fn end(&mut self, entry: &mut Entry, outcome: Outcome) -> Result<(), LedgerError> {
        entry.outcome = Some(outcome);
        self.round.standing -= 1;
        let deed = match outcome {
            Outcome::Absent | Outcome::Unrevealed | Outcome::Unavailable => Deed::Missed,
            Outcome::Fraudulent => Deed::Broken,
            Outcome::Accepted | Outcome::Undecided => return self.tell(entry, outcome),
        };
        rewards::note(self.ctx, &entry.miner, deed)?;
        self.tell(entry, outcome)
    }

    fn tell(&mut self, entry: &Entry, outcome: Outcome) -> Result<(), LedgerError> {
        self.ctx
            .emit(events::outcome(self.id, &entry.miner, outcome));
        Ok(())
    }

    /// Draws whether the miner is audited, and if so by whom and where.
    fn draw(&mut self, entry: &mut Entry) -> Result<(), LedgerError> {
        let mix = match self.round.draw {
            Some(mix) => mix,
            None => {
                let mix = beacon::mix_at(self.ctx, self.round.draw_height)?;
                *self.round.draw.insert(mix.ok_or_else(|| self.no_mix())?)
            }
        };
        let (params, miner) = (&self.run.params, &entry.miner);
        let draw = PackageDraw {
            mix: &mix,
            id: self.id,
            miner,
            audits: Audits::First,
        };
        if !draw.is_audited(params.audited_share) {
            return Ok(());
        }
        let panel = draw.panel(&self.members.validators, params.panel);
        if panel.is_empty() {
            // The only validator is the miner itself.
            return Ok(());
        }
        for member in &panel {
            self.owe(member, weight::VERDICT)?;
        }
        let steps = draw.steps(params.steps, params.drawn_steps);
        let audit = new_audit(steps, panel);
        if must_serve(&audit, entry.feedback) {
            self.round.pending += 1;
        }
        self.round.audited += 1;
        entry.audit = Some(audit);
        Ok(())
    }

    fn no_mix(&self) -> Fault {
        let why = format!("there is no mix of height {}", self.round.draw_height);
        Fault::Damaged {
            table: beacon::MIXES.prefix(),
            why,
        }
    }

    /// A validator owes something more.
    fn owe(&mut self, validator: &Address, weight: u64) -> Result<(), LedgerError> {
        let mut duty = duty(self.ctx, self.id, validator)?;
        duty.owed += weight;
        self.round.duties += weight;
        put_duty(self.ctx, self.id, &duty)
    }

    /// Counts the answers that the next phase waits for.
    fn count(&mut self, entry: &Entry) {
        let Some(audit) = &entry.audit else { return };
        let seats = audit.panel.iter();
        self.round.pending += match self.round.phase {
            Phase::Serve => seats.count() as u32,
            Phase::Verify => seats.filter(|seat| seat.commitment.is_some()).count() as u32,
            _ => 1,
        };
    }

    /// Compares what the miner opened with the verdicts.
    fn compare(&mut self, entry: &mut Entry) -> Result<(), LedgerError> {
        let (start, steps) = (self.round.start.state, self.run.params.steps);
        let Some((claims, audit)) = Claims::of(entry, start, steps).zip(entry.audit.as_ref())
        else {
            return Ok(());
        };
        match claims.compare(audit) {
            Comparison::Confirmed => return Ok(()),
            Comparison::ServedAnotherState => return self.convict(entry, SERVED_ANOTHER_STATE),
            Comparison::Disputed => {}
        }
        if let Some(audit) = entry.audit.as_mut() {
            audit.disputed = true;
        }
        self.round.disputed += 1;
        for member in &self.members.validators {
            if member.validator != entry.miner {
                self.owe(&member.validator, weight::COURT)?;
                self.round.pending += 1;
            }
        }
        self.ctx
            .emit(events::answer("training.dispute", self.id, &entry.miner));
        Ok(())
    }

    /// Closes the case of a disputed miner.
    fn rule(&mut self, entry: &mut Entry) -> Result<(), LedgerError> {
        let (start, steps) = (self.round.start.state, self.run.params.steps);
        let Some((claims, audit)) = Claims::of(entry, start, steps).zip(entry.audit.as_ref())
        else {
            return Ok(());
        };
        if !audit.disputed {
            return Ok(());
        }
        let validators = self.members.validators.iter();
        let power = Power::of(validators.filter(|m| m.validator != entry.miner));
        let votes = state::votes(self.ctx, self.id, &entry.miner, false)?;
        match judge(&claims, audit, &votes, &power) {
            Ruling::Undecided => self.end(entry, Outcome::Undecided),
            Ruling::SplitByBackend => {
                let why = "verdicts differ by back end";
                runs::pause(self.ctx, self.run.id, why)?;
                self.end(entry, Outcome::Undecided)
            }
            Ruling::Decided {
                honest,
                refuted,
                upheld,
            } => {
                for voter in &upheld {
                    self.credit(voter, weight::COURT)?;
                }
                if !honest {
                    for seat in audit.panel.clone().iter().filter(|seat| seat_is_open(seat)) {
                        self.credit(&seat.validator, weight::VERDICT)?;
                    }
                }
                for validator in &refuted {
                    self.slash_validator(validator)?;
                }
                if honest {
                    return Ok(());
                }
                self.convict(entry, DOES_NOT_RECOMPUTE)
            }
        }
    }

    fn credit(&mut self, validator: &Address, weight: u64) -> Result<(), LedgerError> {
        let Some(mut duty) = DUTIES.get(self.ctx, &(self.id, *validator))? else {
            return Ok(());
        };
        duty.done += weight;
        put_duty(self.ctx, self.id, &duty)
    }

    fn convict(&mut self, entry: &mut Entry, reason: &'static str) -> Result<(), LedgerError> {
        let bond = Bond {
            id: self.id,
            role: Role::Miner,
            node: entry.miner,
        };
        let taken = bond.forfeit(self.ctx, entry.locked, reason)?;
        entry.locked = Amount::ZERO;
        self.round.slashed = self.round.slashed.saturating_add(taken);
        self.ctx
            .emit(events::slashed(self.id, &entry.miner, taken, reason));
        self.end(entry, Outcome::Fraudulent)
    }

    fn slash_validator(&mut self, validator: &Address) -> Result<(), LedgerError> {
        let mut duty = duty(self.ctx, self.id, validator)?;
        duty.done = 0;
        if !duty.locked.is_zero() {
            let reason = "the court refutes its verdict";
            let bond = Bond {
                id: self.id,
                role: Role::Validator,
                node: *validator,
            };
            let taken = bond.forfeit(self.ctx, duty.locked, reason)?;
            duty.locked = Amount::ZERO;
            duty.slashed = duty.slashed.saturating_add(taken);
            self.round.slashed = self.round.slashed.saturating_add(taken);
            rewards::note(self.ctx, validator, Deed::Broken)?;
            self.ctx
                .emit(events::slashed(self.id, validator, taken, reason));
        }
        put_duty(self.ctx, self.id, &duty)
    }
}

/// An audit in which nothing was answered yet.
pub(super) fn new_audit(steps: Vec<u32>, panel: Vec<Address>) -> Audit {
    let seats = panel.into_iter().map(|validator| Seat {
        validator,
        commitment: None,
        verdict: None,
    });
    let bounded = "the parameters are checked against these bounds";
    Audit {
        steps: List::new(steps).expect(bounded),
        panel: List::new(seats.collect()).expect(bounded),
        served: None,
        opened: List::default(),
        disputed: false,
    }
}

/// Whether the miner has something to serve: a state that is not public, or error feedback.
pub(super) fn must_serve(audit: &Audit, feedback: Option<Hash>) -> bool {
    !audit.served_steps().is_empty() || feedback.is_some()
}

/// Whether a verdict left the packaging open because the error feedback was withheld.
pub(super) fn seat_is_open(seat: &Seat) -> bool {
    seat.verdict
        .as_ref()
        .is_some_and(|verdict| verdict.feedback_withheld)
}
