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
    let Some(trained) = trained(facts, owed) else {
        return train(owed);
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
    let Some(trained) = trained(facts, owed) else {
        return train(owed);
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
    let Some(trained) = trained(facts, owed) else {
        return train(owed);
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
    }))
}

/// Open the leaves around the audited steps.
pub(super) fn open(facts: &Facts, owed: &Obligation) -> Option<Action> {
    let Some(trained) = trained(facts, owed) else {
        return train(owed);
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
    }))
}

/// The round as this machine trained it, if it is the one the ledger has the root of.
fn trained<'f>(facts: &'f Facts, owed: &Obligation) -> Option<&'f Trained> {
    let trained = facts.trained.get(&RoundKey::of(owed))?;
    let same = owed
        .commitment
        .is_none_or(|root| root == trained.commitment.root());
    same.then_some(trained)
}

/// A machine that lost its round trains it again: the same task gives the same states.
fn train(owed: &Obligation) -> Option<Action> {
    Some(Action::Train(Box::new(owed.task.clone()?)))
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
