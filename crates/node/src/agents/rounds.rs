//! The loop of the training roles: ask what is owed, plan, act.

use std::time::Duration;

use r3mes_training::agent::{Action, Facts, plan};
use r3mes_types::{
    Role,
    training::{Obligation, ObligationKind, QueryObligations},
};

use super::workshop::Workshop;

/// First pause after something failed; doubles with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after something failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Answers what the node owes in one role until shutdown. The ledger is asked before each plan, so
/// nothing is sent twice; what fails is planned again after a pause.
pub(super) async fn follow(
    mut workshop: Workshop,
    mut facts: Facts,
    role: Role,
) -> anyhow::Result<()> {
    super::ready();
    let shutdown = workshop.agent.shutdown.clone();
    let mut height = 0;
    let mut pause = FIRST_PAUSE;
    while !shutdown.is_cancelled() {
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            outcome = turn(&mut workshop, &mut facts, role, &mut height) => outcome,
        };
        if let Err(error) = outcome {
            tracing::warn!("will try again: {error:#}");
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        } else {
            pause = FIRST_PAUSE;
        }
    }
    Ok(())
}

/// Asks, plans and acts once; waits for a block when nothing is owed. One action that fails does not
/// hold up the others.
async fn turn(
    workshop: &mut Workshop,
    facts: &mut Facts,
    role: Role,
    height: &mut u64,
) -> anyhow::Result<()> {
    let question = QueryObligations {
        address: facts.address,
    };
    let all = workshop.agent.chain.query(&question).await?.obligations;
    let ours: Vec<Obligation> = all
        .into_iter()
        .filter(|owed| owed_by(owed.kind) == role)
        .collect();
    let actions = plan(facts, &ours);
    if actions.is_empty() {
        *height = workshop.agent.chain.wait_height(*height).await?;
        return Ok(());
    }
    let mut failed = None;
    for action in actions {
        let name = name(&action);
        if let Err(error) = workshop.execute(facts, action).await {
            failed = Some(error.context(format!("cannot {name}")));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The role that owes an answer of a kind.
fn owed_by(kind: ObligationKind) -> Role {
    match kind {
        ObligationKind::Commit
        | ObligationKind::Reveal
        | ObligationKind::Serve
        | ObligationKind::Open => Role::Miner,
        ObligationKind::AttestPackages
        | ObligationKind::CommitVerdict
        | ObligationKind::RevealVerdict
        | ObligationKind::Court
        | ObligationKind::AttestAggregate => Role::Validator,
        ObligationKind::Propose => Role::Proposer,
    }
}

fn name(action: &Action) -> &'static str {
    match action {
        Action::Send(_) => "send an answer",
        Action::Train(_) => "train",
        Action::GiveUp { .. } => "give a round up",
        Action::Publish { .. } => "publish what an audit needs",
        Action::Fetch { .. } => "fetch packages",
        Action::Audit(_) => "verify",
        Action::Replay(_) => "replay for the court",
        Action::Aggregate(_) => "aggregate",
    }
}
