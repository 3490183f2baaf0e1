//! What a miner does about what it owes.

use r3mes_types::training::{
    Audit, MsgCommitStates, MsgOpenLeaves, MsgRevealPackage, MsgServeStates, Obligation, Opening,
    Served, ServedState,
};
use r3mes_types::wire::List;

use super::facts::{Facts, RoundKey, Trained};
use super::{Action, send};

/// Train, then commit.
pub(super) fn commit(facts: &Facts, owed: &Obligation) -> Option<Action> {
    let trained = match trained(facts, owed) {
        Ok(trained) => trained,
        Err(instead) => return instead,
    };
    Some(send(MsgCommitStates {
        miner: facts.address,
        run: owed.run,
        round: owed.round,
        root: trained.commitment.root(),
        feedback_lost: trained.feedback_lost,
    }))
}

/// Publish the package with the leaves of the start and of the package.
pub(super) fn reveal(facts: &Facts, owed: &Obligation) -> Option<Action> {
    let trained = match trained(facts, owed) {
        Ok(trained) => trained,
        Err(instead) => return instead,
    };
    let end = trained.commitment.states().len().checked_sub(1)?;
    Some(send(MsgRevealPackage {
        miner: facts.address,
        run: owed.run,
        round: owed.round,
        package: trained.package.clone(),
        start: trained.commitment.opening(0)?,
        end: trained.commitment.opening(end as u32)?,
    }))
}

/// Publish the states that the panel needs, then say where they are.
pub(super) fn serve(facts: &Facts, owed: &Obligation) -> Option<Action> {
    let trained = match trained(facts, owed) {
        Ok(trained) => trained,
        Err(instead) => return instead,
    };
    let wanted = audit(owed).served_steps();
    let steps: Vec<u32> = wanted
        .iter()
        .copied()
        .filter(|step| !trained.served.contains_key(step))
        .collect();
    let begins_with_feedback = owed.task.as_ref()?.feedback.is_some();
    let feedback = begins_with_feedback && trained.feedback_cid.is_none();
    if !steps.is_empty() || feedback {
        return Some(Action::Publish {
            round: RoundKey::of(owed),
            steps,
            feedback,
        });
    }
    let states = wanted
        .iter()
        .map(|&step| {
            Some(ServedState {
                step,
                state: *trained.commitment.states().get(step as usize)?,
                cid: *trained.served.get(&step)?,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(send(MsgServeStates {
        miner: facts.address,
        run: owed.run,
        round: owed.round,
        served: Served {
            states: List::new(states).ok()?,
            feedback: trained.feedback_cid.filter(|_| begins_with_feedback),
        },
        second: owed.second,
    }))
}

/// Open the leaves around the audited steps.
pub(super) fn open(facts: &Facts, owed: &Obligation) -> Option<Action> {
    let trained = match trained(facts, owed) {
        Ok(trained) => trained,
        Err(instead) => return instead,
    };
    let openings: Vec<Opening> = audit(owed)
        .leaves()
        .into_iter()
        .map(|leaf| trained.commitment.opening(leaf))
        .collect::<Option<_>>()?;
    Some(send(MsgOpenLeaves {
        miner: facts.address,
        run: owed.run,
        round: owed.round,
        openings: List::new(openings).ok()?,
        second: owed.second,
    }))
}

/// The round as this machine trained it, or what to do without it. A machine that lost its round trains
/// it again: the same task gives the same states. Where it gives others than the ledger has the root of,
/// something that they depend on is lost too, and the round cannot be saved.
fn trained<'f>(facts: &'f Facts, owed: &Obligation) -> Result<&'f Trained, Option<Action>> {
    let round = RoundKey::of(owed);
    if facts.given_up.contains(&round) {
        return Err(None);
    }
    let Some(trained) = facts.trained.get(&round) else {
        let task = owed.task.clone();
        return Err(task.map(|task| Action::Train(Box::new(task))));
    };
    let root = trained.commitment.root();
    if owed.commitment.is_none_or(|committed| committed == root) {
        return Ok(trained);
    }
    Err(Some(Action::GiveUp { round }))
}

/// The audit as far as it says which leaves and states are wanted.
fn audit(owed: &Obligation) -> Audit {
    Audit {
        steps: owed.steps.clone(),
        panel: List::default(),
        served: None,
        opened: List::default(),
        disputed: false,
    }
}
