//! What a validator does about what it owes.

use r3mes_types::Address;
use r3mes_types::training::{
    MAX_MINERS, MinerPackage, MsgAttestAggregate, MsgAttestPackages, MsgCommitVerdict,
    MsgRevealVerdict, MsgVoteCourt, Obligation,
};
use r3mes_types::wire::List;

use super::facts::{AuditKey, Facts, Fetched, RoundKey};
use super::{Action, send};

/// Fetch all packages, then say which are held.
pub(super) fn attest_packages(facts: &Facts, owed: &Obligation) -> Action {
    let round = RoundKey::of(owed);
    let nothing = Fetched::default();
    let fetched = facts.fetched.get(&round).unwrap_or(&nothing);
    let missing: Vec<MinerPackage> = owed
        .packages
        .iter()
        .filter(|package| {
            !fetched.held.contains(&package.miner) && !fetched.given_up.contains(&package.miner)
        })
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Action::Fetch {
            round,
            packages: missing,
        };
    }
    let held: Vec<Address> = owed
        .packages
        .iter()
        .map(|package| package.miner)
        .filter(|miner| fetched.held.contains(miner))
        .collect();
    send(MsgAttestPackages {
        validator: facts.address,
        run: owed.run,
        round: owed.round,
        held: List::<_, MAX_MINERS>::new(held)
            .expect("no more packages are held than the obligation lists"),
    })
}

/// Re-run the audited steps, then commit to the verdict.
pub(super) fn commit_verdict(facts: &Facts, owed: &Obligation) -> Option<Action> {
    let work = owed.task.as_ref()?.work();
    let Some(verdict) = facts.verdicts.get(&AuditKey::of(owed)?) else {
        return Some(Action::Audit(Box::new(owed.clone())));
    };
    let nonce = facts.nonce(&work, owed.second);
    Some(send(MsgCommitVerdict {
        validator: facts.address,
        run: owed.run,
        round: owed.round,
        miner: work.miner,
        commitment: verdict.commitment(&work, &facts.address, &nonce),
        second: owed.second,
    }))
}

/// Reveal the verdict. One that was lost is computed again; if it then differs from the commitment,
/// there is nothing honest left to reveal.
pub(super) fn reveal_verdict(facts: &Facts, owed: &Obligation) -> Option<Action> {
    let work = owed.task.as_ref()?.work();
    let Some(verdict) = facts.verdicts.get(&AuditKey::of(owed)?) else {
        return Some(Action::Audit(Box::new(owed.clone())));
    };
    let nonce = facts.nonce(&work, owed.second);
    let commitment = verdict.commitment(&work, &facts.address, &nonce);
    if owed.commitment != Some(commitment) {
        return None;
    }
    Some(send(MsgRevealVerdict {
        validator: facts.address,
        run: owed.run,
        round: owed.round,
        miner: work.miner,
        nonce,
        verdict: verdict.clone(),
        second: owed.second,
    }))
}

/// Replay from the public start, then vote.
pub(super) fn vote(facts: &Facts, owed: &Obligation) -> Option<Action> {
    let miner = owed.task.as_ref()?.miner;
    let Some(verdict) = facts.replays.get(&AuditKey::of(owed)?) else {
        return Some(Action::Replay(Box::new(owed.clone())));
    };
    Some(send(MsgVoteCourt {
        validator: facts.address,
        run: owed.run,
        round: owed.round,
        miner,
        verdict: verdict.clone(),
        second: owed.second,
    }))
}

/// Aggregate, then say what came out.
pub(super) fn attest_aggregate(facts: &Facts, owed: &Obligation) -> Action {
    let Some(aggregate) = facts.aggregates.get(&RoundKey::of(owed)) else {
        return Action::Aggregate(Box::new(owed.clone()));
    };
    send(MsgAttestAggregate {
        validator: facts.address,
        run: owed.run,
        round: owed.round,
        aggregate: aggregate.clone(),
    })
}
