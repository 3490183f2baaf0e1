//! The turns of the training roles: ask what is owed, plan, act.

use r3mes_training::agent::{Action, Facts, plan};
use r3mes_types::{
    Role,
    training::{Obligation, ObligationKind, QueryObligations},
};
use tracing::Instrument;

use super::{
    turns::{self, Failed},
    workshop::Workshop,
};

/// Answers what the node owes in one role until shutdown. The ledger is asked before each plan, so
/// nothing is sent twice.
pub(super) async fn follow(mut workshop: Workshop, mut facts: Facts, role: Role) {
    super::ready();
    let shutdown = workshop.agent.shutdown.clone();
    let mut height = 0;
    let next = async || turn(&mut workshop, &mut facts, role, &mut height).await;
    turns::repeat(&shutdown, next).await;
}

/// Asks, plans and acts once; waits for a block when nothing is owed. One action that fails does not
/// hold up the others.
async fn turn(
    workshop: &mut Workshop,
    facts: &mut Facts,
    role: Role,
    height: &mut u64,
) -> Result<(), Failed> {
    let owed = owed(workshop, facts, role).await;
    let actions = plan(facts, &owed.map_err(|error| turns::tell(&error))?);
    if actions.is_empty() {
        let waited = workshop.agent.chain.wait_height(*height).await;
        *height = waited.map_err(|error| turns::tell(&error.into()))?;
        return Ok(());
    }
    let mut outcome = Ok(());
    for action in actions {
        let (name, about) = (name(&action), action.round());
        let (run, round) = (about.map(|it| it.run), about.map(|it| it.round.into()));
        let acting = async {
            let done = workshop.execute(facts, action).await;
            done.map_err(|error| turns::tell(&error.context(format!("cannot {name}"))))
        };
        let done = acting
            .instrument(turns::action(role, name, run, round))
            .await;
        outcome = outcome.and(done);
    }
    outcome
}

/// What the node owes in a role.
async fn owed(workshop: &Workshop, facts: &Facts, role: Role) -> anyhow::Result<Vec<Obligation>> {
    let question = QueryObligations {
        address: facts.address,
    };
    let all = workshop.agent.chain.query(&question).await?.obligations;
    let ours = all.into_iter().filter(|owed| owed_by(owed.kind) == role);
    Ok(ours.collect())
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
