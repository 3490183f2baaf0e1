//! Does what the plan says: the one place where a training role's actions meet model, disk and network.

use std::path::PathBuf;

use anyhow::Context as _;
use r3mes_blobs::PinName;
use r3mes_exact::Isa;
use r3mes_gateway::rpc::TxClient;
use r3mes_training::{
    agent::{Action, Facts, Fetched, RoundKey},
    state::StepState,
};
use r3mes_types::{
    Cid, Message, Ppm,
    task::AdapterRef,
    training::{Backend, MinerPackage, QueryRun, TrainingMessage},
};
use zeroize::Zeroizing;

use super::{
    aggregation::{self, PackageError},
    bench::Bench,
    context::Context,
    method::Method,
    workfiles,
};

/// A training role's tools.
pub(super) struct Workshop {
    /// Identity, ledger, blobs.
    pub(super) agent: Context,
    /// Model, shards and memory.
    pub(super) bench: Bench,
    /// Where work is kept between restarts.
    pub(super) root: PathBuf,
    /// Whether work is flushed to the disk before it counts as kept.
    pub(super) durable: bool,
    /// What commitment salts derive from.
    pub(super) secret: Zeroizing<[u8; 32]>,
    /// How a miner comes by its states.
    pub(super) method: Method,
    /// What the kernels run on.
    pub(super) isa: Isa,
    /// Signs and sends.
    pub(super) sender: TxClient,
    /// The round for whose sake older ones were let go last.
    pub(super) released: Option<RoundKey>,
}

impl Workshop {
    /// Does one action and keeps its outcome in `facts`. Nothing is kept when the process is shutting
    /// down in the middle.
    ///
    /// # Errors
    /// When something cannot be fetched, computed, stored or sent; planned again, it goes on.
    pub(super) async fn execute(
        &mut self,
        facts: &mut Facts,
        action: Action,
    ) -> anyhow::Result<()> {
        match action {
            Action::Send(message) => self.send(facts, *message).await?,
            Action::Train(task) => {
                let round = RoundKey {
                    run: task.run,
                    round: task.round,
                };
                if let Some(trained) = self.train(&task).await? {
                    facts.trained.insert(round, trained);
                }
                self.let_go(facts, round, task.round.saturating_sub(1))
                    .await?;
            }
            Action::GiveUp { round } => {
                tell_given_up(round);
                facts.given_up.insert(round);
            }
            Action::Publish {
                round,
                steps,
                feedback,
            } => {
                let trained = facts
                    .trained
                    .get_mut(&round)
                    .context("the round is not trained here")?;
                self.publish(round, trained, &steps, feedback).await?;
            }
            Action::Fetch { round, packages } => {
                let fetched = facts.fetched.entry(round).or_default();
                let all_tried = self.fetch(round, &packages, fetched).await;
                self.let_go(facts, round, round.round).await?;
                all_tried?;
            }
            Action::Audit(owed) => {
                let (key, verdict) = self.judge_owed(&owed, true).await?;
                facts.verdicts.insert(key, verdict);
            }
            Action::Replay(owed) => {
                let (key, verdict) = self.judge_owed(&owed, false).await?;
                facts.replays.insert(key, verdict);
            }
            Action::Aggregate(owed) => {
                let aggregate = aggregation::compute(&self.agent, &mut self.bench, &owed).await?;
                let round = RoundKey::of(&owed);
                facts.aggregates.insert(round, aggregate);
                self.let_go(facts, round, round.round).await?;
            }
        }
        Ok(())
    }

    /// Sends a message. The blob that it is about is pinned while the ledger may take it, and let go
    /// when the ledger refuses; the next attempt pins it again.
    async fn send(&self, facts: &Facts, message: TrainingMessage) -> anyhow::Result<()> {
        let about = about(facts, &message);
        let message = Message::from(message);
        let kind = message.type_url();
        let sending = self.sender.send(vec![message]);
        let sent = match about {
            Some((cid, pin)) => self.agent.depot.pin_while(cid, &pin, sending).await?,
            None => sending.await,
        };
        tracing::info!(kind, height = sent?.height, "answered");
        Ok(())
    }

    /// Fetches and pins a round's packages; what cannot be had, or is not what was recorded, is given up.
    ///
    /// # Errors
    /// When something of this node failed: no miner is given up for that, and what is neither held nor
    /// given up is fetched again.
    async fn fetch(
        &self,
        round: RoundKey,
        packages: &[MinerPackage],
        fetched: &mut Fetched,
    ) -> Result<(), PackageError> {
        let mut failed = Ok(());
        for package in packages {
            match aggregation::fetch_package(&self.agent, package, &pin(round)).await {
                Ok(_) => {
                    fetched.held.insert(package.miner);
                }
                Err(error) if error.is_of_the_miner() => {
                    let error = anyhow::Error::new(error);
                    tracing::warn!(miner = %package.miner, "a package is not available: {error:#}");
                    fetched.given_up.insert(package.miner);
                }
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// Lets go of what belongs to rounds before `needed` that no second audit can ask for, and of the
    /// blobs of rounds that the ledger does not keep in full any more, whether or not the node had a
    /// part in every round since.
    async fn let_go(
        &mut self,
        facts: &mut Facts,
        now: RoundKey,
        needed: u32,
    ) -> anyhow::Result<()> {
        if self.released == Some(now) {
            return Ok(());
        }
        let run = self.agent.chain.query(&QueryRun { run: now.run }).await?;
        let kept = RoundKey {
            run: now.run,
            round: run.oldest_kept,
        };
        facts.forget_before(now.run, needed, kept.round);
        let ended = move |pin: &PinName| has_ended(pin.as_str(), kept);
        self.agent.depot.release(ended).await?;
        // States take much more space than blobs.
        let asked_again = run.params.reaudited_share > Ppm::ZERO;
        let files = RoundKey {
            round: if asked_again { kept.round } else { needed },
            ..kept
        };
        workfiles::remove_before(&self.root, files)?;
        self.released = Some(now);
        Ok(())
    }

    /// The ledger's name of the back end that computes here.
    pub(super) fn backend(&self) -> anyhow::Result<Backend> {
        let found = Backend::ALL
            .iter()
            .find(|backend| backend.name() == self.isa.name());
        found
            .copied()
            .with_context(|| format!("the ledger does not know the back end {}", self.isa))
    }
}

fn tell_given_up(round: RoundKey) {
    tracing::error!(
        run = round.run,
        round = round.round,
        "this round is given up: its files were lost after the commitment, and trained again it comes \
         out otherwise, because the error feedback that it began with is lost too. Nothing more is \
         answered in it; an audit of it costs stake"
    );
}

/// Pin of everything that a round needs.
pub(super) fn pin(round: RoundKey) -> String {
    format!("run-{}-round-{}", round.run, round.round)
}

/// Pin of the adapter that a round's packages were aggregated to, which outlives the round.
pub(super) fn adapter_pin(round: RoundKey) -> String {
    format!("adapter-{}", pin(round))
}

/// The blob that a message offers to the ledger and that is kept from then on, with its pin.
fn about(facts: &Facts, message: &TrainingMessage) -> Option<(Cid, String)> {
    let package = |run, round| {
        let round = RoundKey { run, round };
        let package = &facts.trained.get(&round)?.package;
        Some((package.cid, pin(round)))
    };
    let adapter = |run, round, aggregate: &AdapterRef| {
        let round = RoundKey { run, round };
        Some((aggregate.cid?, adapter_pin(round)))
    };
    match message {
        TrainingMessage::CommitStates(said) => package(said.run, said.round),
        TrainingMessage::RevealPackage(said) => package(said.run, said.round),
        TrainingMessage::ProposeAggregate(said) => adapter(said.run, said.round, &said.aggregate),
        TrainingMessage::AttestAggregate(said) => adapter(said.run, said.round, &said.aggregate),
        _ => None,
    }
}

/// Whether a pin is that of a round before the oldest that the ledger keeps in full: nobody can verify
/// it any more.
fn has_ended(pin: &str, oldest_kept: RoundKey) -> bool {
    parse_pin(pin)
        .is_some_and(|pinned| pinned.run == oldest_kept.run && pinned.round < oldest_kept.round)
}

/// The round of a pin, if it is one of a round.
fn parse_pin(pin: &str) -> Option<RoundKey> {
    let (run, round) = pin.strip_prefix("run-")?.split_once("-round-")?;
    let (run, round) = (run.parse().ok()?, round.parse().ok()?);
    Some(RoundKey { run, round })
}

/// Bytes of a stored state.
pub(super) fn state_bytes(parameters: usize) -> u64 {
    StepState::encoded_len(parameters) as u64
}

#[cfg(test)]
mod tests {
    use r3mes_types::{
        Hash, SecretKey,
        training::{MsgAttestAggregate, MsgProposeAggregate},
    };

    use super::*;

    #[test]
    fn an_aggregate_is_offered_under_a_pin_of_its_round_that_outlives_the_round() {
        let address = SecretKey::from_bytes(&[1; 32]).unwrap().address();
        let (facts, round) = (Facts::new(address, [2; 32]), RoundKey { run: 3, round: 70 });
        let aggregate = AdapterRef {
            cid: Some(Cid::raw(b"numbers")),
            adapter: Hash::of(b"numbers"),
            state: Hash::of(b"state"),
        };
        let proposed = MsgProposeAggregate {
            proposer: address,
            run: round.run,
            round: round.round,
            aggregate: aggregate.clone(),
        };
        let attested = MsgAttestAggregate {
            validator: address,
            run: round.run,
            round: round.round,
            aggregate,
        };
        for message in [
            TrainingMessage::ProposeAggregate(proposed),
            TrainingMessage::AttestAggregate(attested),
        ] {
            let (cid, pin) = about(&facts, &message).unwrap();
            assert_eq!(cid, Cid::raw(b"numbers"));
            assert_eq!(pin, adapter_pin(round));
            let much_later = RoundKey {
                round: 999,
                ..round
            };
            assert!(!has_ended(&pin, much_later));
            assert!(PinName::new(&pin).is_ok());
        }
    }

    #[test]
    fn the_pin_of_a_round_is_told_from_others() {
        let round = RoundKey { run: 3, round: 70 };
        assert_eq!(parse_pin(&pin(round)), Some(round));
        for other in ["genesis", "run-3", "run-x-round-1", "model"] {
            assert_eq!(parse_pin(other), None, "{other}");
        }
    }

    #[test]
    fn rounds_are_kept_as_long_as_the_ledger_keeps_them_and_other_runs_and_pins_for_ever() {
        let oldest_kept = RoundKey { run: 3, round: 37 };
        for (pin, ended) in [
            ("run-3-round-0", true),
            ("run-3-round-36", true),
            ("run-3-round-37", false),
            ("run-3-round-100", false),
            ("run-2-round-0", false),
            ("adapter-run-3-round-0", false),
        ] {
            assert_eq!(has_ended(pin, oldest_kept), ended, "{pin}");
        }
    }
}
