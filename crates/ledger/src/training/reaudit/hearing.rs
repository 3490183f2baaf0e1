//! One second audit, from the seating of its panel to its close.

use r3mes_types::training::{Member, Outcome, Phase, Run, Seat};
use r3mes_types::{Address, Amount, Time};

use crate::bank::{self, Module};
use crate::error::{Fault, LedgerError};
use crate::nodes;
use crate::rewards::{self, Deed};
use crate::store::Context;
use crate::training::answers::{Asked, Case};
use crate::training::court::{Claims, Comparison, Power, Ruling, judge};
use crate::training::draw::{Audits, PackageDraw};
use crate::training::pay::weight;
use crate::training::settle::{
    DOES_NOT_RECOMPUTE, SERVED_ANOTHER_STATE, must_serve, new_audit, seat_is_open,
};
use crate::training::state::{self, FEEDBACK, JUDGES, Judges, REAUDITS, RoundId, SECOND_VOTES};
use crate::training::{events, phases, runs};

/// One second audit, on its way.
pub(super) struct Hearing<'h, 'c> {
    ctx: &'h mut Context<'c>,
    id: RoundId,
    case: Case,
    judges: Judges,
}

impl<'h, 'c> Hearing<'h, 'c> {
    /// The second audit of a package of which there is one.
    pub(super) fn find(
        ctx: &'h mut Context<'c>,
        id: RoundId,
        miner: &Address,
    ) -> Result<Self, LedgerError> {
        let missing = || Fault::Damaged {
            table: REAUDITS.prefix(),
            why: "it names a package without a second audit".to_owned(),
        };
        let entry = state::entry(ctx, id, miner)?;
        let asked = Asked::find(ctx, id.run, id.round)?;
        let case = Case::second(asked, entry).ok_or_else(missing)?;
        let judges = JUDGES.get(ctx, &(id, *miner))?.ok_or_else(missing)?;
        Ok(Self {
            ctx,
            id,
            case,
            judges,
        })
    }

    /// Whether its panel is not seated yet.
    pub(super) fn is_unseated(&self) -> bool {
        self.case.asked.round.phase == Phase::Draw
    }

    /// Back to before the panel was seated.
    pub(super) fn begin_anew(mut self, now: Time) -> Result<(), LedgerError> {
        let miner = self.case.entry.miner;
        let Some(audit) = self.case.entry.audit.take() else {
            return Ok(());
        };
        for seat in audit.panel.iter() {
            let name = self.id.second_lock(&miner, &seat.validator);
            nodes::unlock(self.ctx, &seat.validator, name)?;
        }
        for vote in state::votes(self.ctx, self.id, &miner, true)? {
            SECOND_VOTES.remove(self.ctx, &(self.id, miner, vote.validator))?;
        }
        self.case.entry.audit = Some(new_audit(audit.steps.to_vec(), Vec::new()));
        self.begin(Phase::Draw, 0);
        let windows = phases::all_windows(&self.case.asked.run);
        self.case.asked.round.deadline = now.after(windows);
        self.case.put(self.ctx)
    }

    /// Goes as far as it can.
    pub(super) fn advance(mut self) -> Result<(), LedgerError> {
        let before = self.case.asked.round.phase;
        while self.case.asked.round.phase != Phase::Closed && self.is_over() {
            match self.case.asked.round.phase {
                Phase::Draw => {
                    if !self.seat()? {
                        break;
                    }
                }
                Phase::Serve => self.enter(Phase::Verify, |_| true),
                Phase::Verify => self.enter(Phase::Verdict, |seat| seat.commitment.is_some()),
                // One answer opens all leaves.
                Phase::Verdict => self.begin(Phase::Open, 1),
                Phase::Open => self.compare()?,
                _ => self.rule()?,
            }
        }
        if self.case.asked.round.phase != before {
            self.case.put(self.ctx)?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let round = &self.case.asked.round;
        round.pending == 0 || self.ctx.now() >= round.deadline
    }

    /// Seats the panel, or gives up at the deadline; `false` while it has to be tried again.
    fn seat(&mut self) -> Result<bool, LedgerError> {
        let miner = self.case.entry.miner;
        let draw = PackageDraw {
            mix: &self.judges.mix,
            id: self.id,
            miner: &miner,
            audits: Audits::Second,
        };
        let run = &self.case.asked.run;
        let first = self.case.first_panel();
        let panel = seat_panel(self.ctx, run, &draw, &self.judges.members, first)?;
        if panel.is_empty() {
            if self.ctx.now() < self.case.asked.round.deadline {
                return Ok(false);
            }
            self.case.entry.audit = None;
            self.ctx.emit(events::reaudit_unseated(self.id, &miner));
            self.end()?;
            return Ok(true);
        }
        let steps = self.case.entry.audit.as_ref().map(|audit| &audit.steps);
        let audit = new_audit(steps.into_iter().flatten().copied().collect(), panel);
        let owed = usize::from(must_serve(&audit, self.case.entry.feedback));
        self.case.entry.audit = Some(audit);
        self.begin(Phase::Serve, owed);
        Ok(true)
    }

    /// Begins a phase that waits for an answer from each seat that `owes` one.
    fn enter(&mut self, phase: Phase, owes: impl Fn(&Seat) -> bool) {
        let audit = self.case.entry.audit.as_ref();
        let seats = audit.map_or(0, |audit| audit.panel.iter().filter(|s| owes(s)).count());
        self.begin(phase, seats);
    }

    fn begin(&mut self, phase: Phase, pending: usize) {
        let window = phases::window(&self.case.asked.run, phase);
        let round = &mut self.case.asked.round;
        round.phase = phase;
        round.deadline = self.ctx.now().after(window);
        round.pending = pending as u32;
        let event = events::reaudit(self.id, &self.case.entry.miner, phase);
        self.ctx.emit(event);
    }

    /// Compares what the miner opened with the verdicts.
    fn compare(&mut self) -> Result<(), LedgerError> {
        let (start, steps) = (
            self.case.asked.round.start.state,
            self.case.asked.run.params.steps,
        );
        let entry = &self.case.entry;
        let Some((claims, audit)) = Claims::of(entry, start, steps).zip(entry.audit.as_ref())
        else {
            return self.close(Outcome::Undecided, &[], &[]);
        };
        match claims.compare(audit) {
            Comparison::Confirmed => return self.close(Outcome::Accepted, &[], &[]),
            Comparison::ServedAnotherState => {
                self.convict(SERVED_ANOTHER_STATE)?;
                return self.close(Outcome::Fraudulent, &[], &[]);
            }
            Comparison::Disputed => {}
        }
        if let Some(audit) = self.case.entry.audit.as_mut() {
            audit.disputed = true;
        }
        self.begin(Phase::Court, self.judges.members.len());
        Ok(())
    }

    /// Closes a disputed case by the court's votes.
    fn rule(&mut self) -> Result<(), LedgerError> {
        let (start, steps) = (
            self.case.asked.round.start.state,
            self.case.asked.run.params.steps,
        );
        let entry = &self.case.entry;
        let Some((claims, audit)) = Claims::of(entry, start, steps).zip(entry.audit.as_ref())
        else {
            return self.close(Outcome::Undecided, &[], &[]);
        };
        let power = Power::of(self.judges.members.iter());
        let votes = state::votes(self.ctx, self.id, &entry.miner, true)?;
        match judge(&claims, audit, &votes, &power) {
            Ruling::Undecided => self.close(Outcome::Undecided, &[], &[]),
            Ruling::SplitByBackend => {
                runs::pause(self.ctx, self.id.run, "verdicts differ by back end")?;
                self.close(Outcome::Undecided, &[], &[])
            }
            Ruling::Decided {
                honest,
                refuted,
                upheld,
            } => {
                for validator in &refuted {
                    self.slash_validator(validator)?;
                }
                if honest {
                    return self.close(Outcome::Accepted, &refuted, &upheld);
                }
                self.convict(DOES_NOT_RECOMPUTE)?;
                self.close(Outcome::Fraudulent, &refuted, &upheld)
            }
        }
    }

    fn convict(&mut self, reason: &'static str) -> Result<(), LedgerError> {
        let miner = self.case.entry.miner;
        self.slash(&miner, self.case.asked.run.params.penalties.miner, reason)?;
        // What the package left behind is no more to be trusted than the package.
        let key = (self.id.run, miner);
        if FEEDBACK
            .get(self.ctx, &key)?
            .is_some_and(|kept| kept.round == self.id.round)
        {
            FEEDBACK.remove(self.ctx, &key)?;
        }
        Ok(())
    }

    fn slash_validator(&mut self, validator: &Address) -> Result<(), LedgerError> {
        let name = self.id.second_lock(&self.case.entry.miner, validator);
        nodes::unlock(self.ctx, validator, name)?;
        let penalty = self.case.asked.run.params.penalties.validator;
        self.slash(validator, penalty, "the court refutes its verdict")
    }

    fn slash(
        &mut self,
        node: &Address,
        amount: Amount,
        reason: &'static str,
    ) -> Result<(), LedgerError> {
        let taken = nodes::slash(self.ctx, node, amount, reason)?;
        nodes::jail(self.ctx, node, reason)?;
        rewards::note(self.ctx, node, Deed::Broken)?;
        self.ctx.emit(events::slashed(self.id, node, taken, reason));
        if let Some(reaudit) = self.case.reaudit() {
            reaudit.slashed = reaudit.slashed.saturating_add(taken);
        }
        Ok(())
    }

    /// Ends the second audit: locks, pay, and the hold on the miner's stake.
    fn close(
        &mut self,
        outcome: Outcome,
        refuted: &[Address],
        upheld: &[Address],
    ) -> Result<(), LedgerError> {
        let miner = self.case.entry.miner;
        let panel = self
            .case
            .entry
            .audit
            .as_ref()
            .map(|audit| audit.panel.clone());
        for seat in panel.iter().flatten() {
            if refuted.contains(&seat.validator) {
                continue;
            }
            let name = self.id.second_lock(&miner, &seat.validator);
            nodes::unlock(self.ctx, &seat.validator, name)?;
            let useful = !seat_is_open(seat) || outcome == Outcome::Fraudulent;
            let deed = match &seat.verdict {
                Some(_) if useful => {
                    self.pay(&seat.validator, weight::VERDICT)?;
                    Deed::Kept
                }
                Some(_) => Deed::Kept,
                None => Deed::Missed,
            };
            rewards::note(self.ctx, &seat.validator, deed)?;
        }
        for validator in upheld.iter().filter(|v| !refuted.contains(v)) {
            self.pay(validator, weight::COURT)?;
        }
        if let Some(reaudit) = self.case.reaudit() {
            reaudit.outcome = Some(outcome);
        }
        self.end()?;
        self.ctx
            .emit(events::outcome(self.id, &miner, outcome).with("second", true));
        Ok(())
    }

    /// Takes it off the list and ends its hold on the miner's stake.
    fn end(&mut self) -> Result<(), LedgerError> {
        let miner = self.case.entry.miner;
        self.begin(Phase::Closed, 0);
        REAUDITS.remove(self.ctx, &(self.id, miner))?;
        nodes::dispute_closed(self.ctx, &miner)
    }

    /// Pays a validator from the treasury what the same work was worth in the package's round, as far
    /// as the treasury has it.
    fn pay(&mut self, validator: &Address, weight: u64) -> Result<(), LedgerError> {
        let Asked { run, round, .. } = &self.case.asked;
        let pool = run.params.reward.share(run.params.split.validators);
        let worth = pool.mul_div(weight, round.duties).unwrap_or(Amount::ZERO);
        let amount = worth.min(bank::balance(self.ctx, &Module::Treasury.address())?);
        if amount.is_zero() {
            return Ok(());
        }
        rewards::pay(self.ctx, Module::Treasury, validator, amount)?;
        self.ctx
            .emit(events::reaudit_paid(self.id, validator, amount));
        if let Some(reaudit) = self.case.reaudit() {
            reaudit.paid = reaudit.paid.saturating_add(amount);
        }
        Ok(())
    }
}

/// The panel of a second audit, ascending by address: validators in drawn order with enough free stake,
/// which is locked. Those who sat in the first panel come last.
fn seat_panel(
    ctx: &mut Context<'_>,
    run: &Run,
    draw: &PackageDraw<'_>,
    judges: &[Member],
    first: &[Seat],
) -> Result<Vec<Address>, LedgerError> {
    let sat = |validator: &Address| first.iter().any(|seat| seat.validator == *validator);
    let (used, fresh): (Vec<Member>, Vec<Member>) = judges
        .iter()
        .cloned()
        .partition(|member| sat(&member.validator));
    let mut order = draw.order(&fresh, fresh.len());
    order.extend(draw.order(&used, used.len()));
    let mut panel = Vec::new();
    for validator in order {
        if panel.len() == run.params.panel as usize {
            break;
        }
        let name = draw.id.second_lock(draw.miner, &validator);
        if nodes::lock(ctx, &validator, name, run.params.penalties.validator)? {
            panel.push(validator);
        }
    }
    panel.sort();
    Ok(panel)
}
