//! Second audits: before stake that a miner takes back is paid out, a random share of its accepted
//! packages that are still kept in full is audited again, by another panel.
//!
//! Whoever begins to take stake back stands on the list of `nodes::leavers`. From there it is taken
//! over here, first in, first out, with the validators of that block, and a dispute holds its stake.
//! [`DRAW_DELAY`] blocks later the beacon draws, package by package, whether there is a second audit,
//! its panel and its steps. Who has no package that could be drawn is let go at once; who takes more
//! back meanwhile stands at the end of the list when the draw is over.
//! A second audit has the phases of the first, from serve to court, with the same windows; before them
//! it stands in the phase of the draw while no validator has stake free for a seat. It is closed when
//! nobody contradicts the miner or the court has spoken. The validators are paid by the treasury.

use r3mes_types::training::{Member, Outcome, Phase, Reaudit, Run, Seat};
use r3mes_types::{Address, Amount, Hash, Role, Time};

use super::answers::{Asked, Case};
use super::court::{Claims, Comparison, Power, Ruling, judge};
use super::draw::{Audits, PackageDraw};
use super::events;
use super::open;
use super::pay::weight;
use super::phases::{self, DRAW_DELAY};
use super::runs;
use super::settle::{
    DOES_NOT_RECOMPUTE, SERVED_ANOTHER_STATE, must_serve, new_audit, seat_is_open,
};
use super::state::{
    self, FEEDBACK, JUDGES, Judges, LEAVERS, Leaver, PACKAGES, REAUDITS, RoundId, SECOND_VOTES,
    put_entry,
};
use crate::bank::{self, Module};
use crate::beacon;
use crate::error::{Fault, LedgerError};
use crate::nodes;
use crate::rewards::{self, Deed};
use crate::store::{Context, View};

/// Second audits that are open at the same time; more have to wait.
pub const MAX_REAUDITS: usize = 16;
/// Miners whose second audits are being drawn at the same time; more have to wait.
pub const MAX_LEAVERS: usize = 16;
/// Nodes that take stake back looked at in one block. More than [`MAX_LEAVERS`], so that those whose
/// draw is under way never fill it.
const MAX_SEEN_PER_BLOCK: usize = 64;
/// Packages looked at in one block.
const MAX_DRAWS_PER_BLOCK: usize = 64;

/// Draws, takes over who leaves, and moves every second audit on.
pub(super) fn advance(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    draw(ctx)?;
    take_over(ctx)?;
    for ((id, miner), _) in REAUDITS.range(ctx, None, MAX_REAUDITS)? {
        Hearing::find(ctx, id, &miner)?.advance()?;
    }
    Ok(())
}

/// Begins every open second audit anew at `now`, for a chain that goes on from this state: what was not
/// answered before the deadlines of this one is no fault of anybody's there.
pub(crate) fn begin_anew(ctx: &mut Context<'_>, now: Time) -> Result<(), LedgerError> {
    for ((id, miner), _) in REAUDITS.range(ctx, None, MAX_REAUDITS)? {
        Hearing::find(ctx, id, &miner)?.begin_anew(now)?;
    }
    Ok(())
}

/// Tries to seat the panels of second audits that have none yet.
pub(super) fn seat(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    for ((id, miner), _) in REAUDITS.range(ctx, None, MAX_REAUDITS)? {
        let hearing = Hearing::find(ctx, id, &miner)?;
        if hearing.case.asked.round.phase == Phase::Draw {
            hearing.advance()?;
        }
    }
    Ok(())
}

/// The next block time at which a second audit moves on by itself, or one is drawn.
///
/// A block is asked for at once only while each block brings the draws nearer to their end: one that
/// waits for its mix does so for [`DRAW_DELAY`] blocks, and after that packages are done with for good.
pub(super) fn next_deadline(view: &dyn View) -> Result<Option<Time>, LedgerError> {
    let open = REAUDITS.range(view, None, MAX_REAUDITS)?;
    let drawing = !LEAVERS.range(view, None, 1)?.is_empty() || !nodes::leavers(view, 1)?.is_empty();
    if open.len() < MAX_REAUDITS && drawing {
        return Ok(Some(Time::from_nanos(0)));
    }
    let mut next = None;
    for ((id, miner), _) in open {
        let reaudit = state::entry(view, id, &miner)?.reaudit;
        next = next
            .into_iter()
            .chain(reaudit.map(|reaudit| reaudit.deadline))
            .min();
    }
    Ok(next)
}

/// Whether a round must stay: a package of it is being audited again, or one of a miner that takes
/// stake back was not drawn for yet.
pub(super) fn is_needed(view: &dyn View, id: RoundId) -> Result<bool, LedgerError> {
    if state::is_reaudited(view, id)? {
        return Ok(true);
    }
    for miner in &state::members(view, id)?.miners {
        let leaves = nodes::is_leaver(view, miner)? || LEAVERS.contains(view, miner)?;
        if leaves && PACKAGES.contains(view, &(*miner, id))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes over nodes that have begun to take stake back, as far as there is room, and lets those go that
/// nothing can be drawn for.
fn take_over(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    let mut room = MAX_LEAVERS - LEAVERS.range(ctx, None, MAX_LEAVERS)?.len();
    for miner in nodes::leavers(ctx, MAX_SEEN_PER_BLOCK)? {
        if LEAVERS.contains(ctx, &miner)? {
            // It has its turn again when the draw that is under way is over.
            continue;
        }
        if PACKAGES.range_of(ctx, &miner, None, 1)?.is_empty() {
            nodes::leaver_seen(ctx, &miner)?;
        } else if room > 0 {
            room -= 1;
            nodes::leaver_seen(ctx, &miner)?;
            nodes::dispute_opened(ctx, &miner)?;
            await_draw(ctx, &miner)?;
        }
    }
    Ok(())
}

/// Fixes who can be drawn, before the beacon's mix that draws is known.
fn await_draw(ctx: &mut Context<'_>, miner: &Address) -> Result<(), LedgerError> {
    let mut validators = nodes::active(ctx, Role::Validator)?;
    validators.retain(|node| node.address != *miner);
    let leaver = Leaver {
        draw_height: ctx.height() + DRAW_DELAY,
        draw: None,
        validators: open::members(validators),
        run: 0,
        round: 0,
    };
    LEAVERS.put(ctx, miner, &leaver)
}

/// Draws for the packages of those who leave, up to a number per block.
fn draw(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    let mut left = MAX_DRAWS_PER_BLOCK;
    for (miner, mut leaver) in LEAVERS.range(ctx, None, MAX_LEAVERS)? {
        if ctx.height() < leaver.draw_height {
            continue;
        }
        let mix = match leaver.draw {
            Some(mix) => mix,
            None => *leaver.draw.insert(mix_at(ctx, leaver.draw_height)?),
        };
        if draw_packages(ctx, &miner, &mut leaver, &mix, &mut left)? {
            LEAVERS.remove(ctx, &miner)?;
            nodes::dispute_closed(ctx, &miner)?;
            nodes::leaver_last(ctx, &miner)?;
        } else {
            LEAVERS.put(ctx, &miner, &leaver)?;
        }
    }
    Ok(())
}

fn mix_at(view: &dyn View, height: u64) -> Result<Hash, LedgerError> {
    let missing = || Fault::Damaged {
        table: beacon::MIXES.prefix(),
        why: format!("there is no mix of height {height}"),
    };
    Ok(beacon::mix_at(view, height)?.ok_or_else(missing)?)
}

/// Draws for a miner's packages from where the last block stopped; `false` when there are more left
/// than this block takes.
fn draw_packages(
    ctx: &mut Context<'_>,
    miner: &Address,
    leaver: &mut Leaver,
    mix: &Hash,
    left: &mut usize,
) -> Result<bool, LedgerError> {
    loop {
        let last = RoundId {
            run: leaver.run,
            round: leaver.round,
        };
        let found = PACKAGES.range_of(ctx, miner, Some(&(*miner, last)), 1)?;
        let Some(((_, id), accepted)) = found.into_iter().next() else {
            return Ok(true);
        };
        if *left == 0 || REAUDITS.range(ctx, None, MAX_REAUDITS)?.len() >= MAX_REAUDITS {
            return Ok(false);
        }
        *left -= 1;
        // Whoever knows the mix knows which packages are safe.
        if accepted <= leaver.draw_height {
            let draw = PackageDraw {
                mix,
                id,
                miner,
                audits: Audits::Second,
            };
            draw_package(ctx, &draw, leaver)?;
        }
        leaver.run = id.run;
        leaver.round = id.round;
    }
}

/// Draws for one package, for good.
fn draw_package(
    ctx: &mut Context<'_>,
    draw: &PackageDraw<'_>,
    leaver: &Leaver,
) -> Result<(), LedgerError> {
    let (id, miner) = (draw.id, *draw.miner);
    PACKAGES.remove(ctx, &(miner, id))?;
    let run = Asked::find(ctx, id.run, id.round)?.run;
    let mut entry = state::entry(ctx, id, &miner)?;
    let mut reaudit = Reaudit {
        phase: Phase::Closed,
        deadline: ctx.now(),
        pending: 0,
        audit: None,
        outcome: None,
        slashed: Amount::ZERO,
        paid: Amount::ZERO,
    };
    if draw.is_audited(run.params.reaudited_share) {
        let steps = draw.steps(run.params.steps, run.params.drawn_steps);
        reaudit.phase = Phase::Draw;
        // Long enough for the round that is open to end and set its locks free.
        reaudit.deadline = ctx.now().after(phases::all_windows(&run));
        reaudit.audit = Some(new_audit(steps, Vec::new()));
        let judges = Judges {
            members: leaver.validators.clone(),
            mix: *draw.mix,
        };
        nodes::dispute_opened(ctx, &miner)?;
        REAUDITS.put(ctx, &(id, miner), &true)?;
        JUDGES.put(ctx, &(id, miner), &judges)?;
    }
    entry.reaudit = Some(reaudit);
    put_entry(ctx, id, &entry)
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

/// One second audit, on its way.
struct Hearing<'h, 'c> {
    ctx: &'h mut Context<'c>,
    id: RoundId,
    case: Case,
    judges: Judges,
}

impl<'h, 'c> Hearing<'h, 'c> {
    fn find(ctx: &'h mut Context<'c>, id: RoundId, miner: &Address) -> Result<Self, LedgerError> {
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

    /// Back to before the panel was seated.
    fn begin_anew(mut self, now: Time) -> Result<(), LedgerError> {
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
    fn advance(mut self) -> Result<(), LedgerError> {
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
