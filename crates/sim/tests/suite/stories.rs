//! One round each, told from the outside.

use r3mes_ledger::bank::{Module, SUPPLY};
use r3mes_ledger::store::Committed;
use r3mes_sim::behaviour::Behaviour as B;
use r3mes_sim::network::{Network, STAKE};
use r3mes_sim::report::Report;
use r3mes_sim::world::{RUN, World};
use r3mes_types::bank::QueryBalance;
use r3mes_types::governance::{Change, MsgPropose, RunSwitch};
use r3mes_types::models::QueryModel;
use r3mes_types::nodes::{NodeStatus, QueryNode};
use r3mes_types::rewards::QueryTrust;
use r3mes_types::training::{
    Backend, Outcome, Phase, QueryRounds, QueryRun, RoundRecord, RunStatus,
};
use r3mes_types::wire::Text;
use r3mes_types::{Address, Amount, Hash, Ppm, Role};

struct Story {
    world: World,
    report: Report,
    round: RoundRecord,
}

/// Tells the first round of a network to its end.
fn tell(network: &Network) -> Story {
    let mut world = World::new(network).unwrap();
    let report = world.run().unwrap();
    let round = world.round(0).unwrap();
    Story {
        world,
        report,
        round,
    }
}

impl Story {
    fn address(&self, behaviour: B) -> Address {
        self.report.of(behaviour).next().unwrap().address
    }

    fn outcome(&self, miner: Address) -> Outcome {
        let entry = self.round.entries.iter().find(|entry| entry.miner == miner);
        entry.unwrap().outcome.unwrap()
    }

    fn slashed(&self, behaviour: B) -> u32 {
        self.report
            .of(behaviour)
            .map(|node| node.tally.slashed)
            .sum()
    }

    fn supply(&self) -> Amount {
        SUPPLY
            .get(&Committed(self.world.chain.state()))
            .unwrap()
            .unwrap()
    }

    fn adapter_moved(&self) -> bool {
        let summary = self.round.summary.as_ref().unwrap();
        summary.adapter != self.round.head.as_ref().unwrap().start
    }
}

/// Four validators, all of them in every panel.
fn network(miners: &[B], validators: &[B]) -> Network {
    let mut network = Network::honest(11, 3, 4, 2);
    network.miners.resize(miners.len().max(3), B::Honest);
    network.miners[..miners.len()].copy_from_slice(miners);
    network.validators[..validators.len()].copy_from_slice(validators);
    network.panel = 4;
    network
}

#[test]
fn an_honest_round_pays_everybody_once_and_gives_the_model_a_version() {
    let story = tell(&network(&[], &[]));
    let head = story.round.head.as_ref().unwrap();
    assert_eq!(head.phase, Phase::Closed);
    assert!(story.adapter_moved());
    assert!(
        story
            .round
            .entries
            .iter()
            .all(|e| e.outcome == Some(Outcome::Accepted))
    );
    // 6 of 10 REMES for three miners, 3 for four validators, half a one for the proposer.
    assert!(
        story
            .round
            .entries
            .iter()
            .all(|e| e.paid == Amount::remes(2))
    );
    assert!(
        story
            .round
            .duties
            .iter()
            .all(|d| d.paid == Amount::new(750_000))
    );
    assert_eq!(head.paid, Amount::new(9_500_000));
    let nodes = story.report.nodes.len() as u64;
    let at_genesis = Amount::new(2 * STAKE.uremes() * nodes);
    assert_eq!(story.supply(), at_genesis.saturating_add(Amount::remes(10)));
    // The rest is the treasury's, and nothing is left between.
    let balance = |module: Module| {
        let address = module.address();
        story
            .world
            .chain
            .ask(&QueryBalance { address })
            .unwrap()
            .amount
    };
    assert_eq!(balance(Module::Treasury), Amount::new(500_000));
    assert_eq!(balance(Module::Rewards), Amount::ZERO);
    let model = story
        .world
        .chain
        .ask(&QueryModel {
            id: Hash::of(b"model"),
        })
        .unwrap();
    assert_eq!(
        Some(model.newest.unwrap().adapter_hash),
        head.aggregate.as_ref().map(|a| a.adapter)
    );
    for node in &story.report.nodes {
        let address = node.address;
        let on_ledger = story
            .world
            .chain
            .ask(&QueryNode { address })
            .unwrap()
            .node
            .unwrap();
        assert_eq!((on_ledger.locked, on_ledger.locks), (Amount::ZERO, 0));
        let record = story
            .world
            .chain
            .ask(&QueryTrust { address })
            .unwrap()
            .record;
        assert_eq!((record.missed, record.broken), (0, 0));
    }
}

#[test]
fn a_liar_is_caught_by_its_panel_convicted_by_the_court_and_slashed() {
    let liar = B::FalsifiedSteps(8);
    let story = tell(&network(&[liar], &[]));
    let address = story.address(liar);
    assert_eq!(story.outcome(address), Outcome::Fraudulent);
    assert_eq!(story.round.head.as_ref().unwrap().disputed, 1);
    assert_eq!(story.round.court.len(), 4);
    let node = story
        .world
        .chain
        .ask(&QueryNode { address })
        .unwrap()
        .node
        .unwrap();
    assert_eq!(node.status, NodeStatus::Jailed);
    assert_eq!(
        node.bonded
            .saturating_add(story.round.head.as_ref().unwrap().slashed),
        STAKE
    );
    // The others are paid as ever: its absence makes nobody richer.
    let honest = story
        .report
        .of(B::Honest)
        .filter(|node| node.role == Role::Miner);
    for node in honest {
        let entry = story
            .round
            .entries
            .iter()
            .find(|entry| entry.miner == node.address);
        assert_eq!(entry.unwrap().paid, Amount::remes(2));
    }
    assert!(story.adapter_moved());
}

#[test]
fn a_miner_that_falsified_some_steps_is_caught_once_one_of_them_is_drawn() {
    let liar = B::FalsifiedSteps(3);
    let mut network = network(&[liar], &[]);
    // Of eight steps, six are drawn: one of three at least is among them.
    network.drawn = 6;
    let story = tell(&network);
    assert_eq!(story.outcome(story.address(liar)), Outcome::Fraudulent);
    assert_eq!(story.slashed(liar), 1);
}

#[test]
fn forged_moments_are_caught_though_the_adapter_is_the_right_one() {
    let mut network = network(&[B::ForgedMoments], &[]);
    network.drawn = network.steps;
    let story = tell(&network);
    let liar = story.address(B::ForgedMoments);
    assert_eq!(story.outcome(liar), Outcome::Fraudulent);
    assert_eq!(story.slashed(B::ForgedMoments), 1);
}

#[test]
fn wrong_error_feedback_is_caught_in_the_packaging() {
    let story = tell(&network(&[B::WrongFeedback], &[]));
    let liar = story.address(B::WrongFeedback);
    assert_eq!(story.outcome(liar), Outcome::Fraudulent);
    assert_eq!(story.slashed(B::WrongFeedback), 1);
}

#[test]
fn a_copied_and_a_stale_package_are_caught_in_the_round_that_they_are_sent_in() {
    for behaviour in [B::CopiedPackage, B::StalePackage] {
        let mut network = network(&[behaviour], &[]);
        // There is nothing to copy in the first round.
        network.rounds = 2;
        let story = tell(&network);
        let liar = story.address(behaviour);
        assert_eq!(story.outcome(liar), Outcome::Accepted);
        let second = story.world.round(1).unwrap();
        let entry = second.entries.iter().find(|entry| entry.miner == liar);
        assert_eq!(
            entry.unwrap().outcome,
            Some(Outcome::Fraudulent),
            "{behaviour}"
        );
        assert_eq!(story.slashed(behaviour), 1, "{behaviour}");
    }
}

#[test]
fn withheld_and_swapped_packages_are_unpaid_and_never_slashed() {
    let story = tell(&network(&[B::WithheldPackage, B::SwappedCid], &[]));
    for behaviour in [B::WithheldPackage, B::SwappedCid] {
        assert_eq!(
            story.outcome(story.address(behaviour)),
            Outcome::Unavailable
        );
        assert_eq!(story.slashed(behaviour), 0);
    }
    assert!(story.adapter_moved());
}

#[test]
fn a_miner_that_serves_and_opens_nothing_is_convicted_all_the_same() {
    let story = tell(&network(&[B::WithheldStates], &[]));
    assert_eq!(
        story.outcome(story.address(B::WithheldStates)),
        Outcome::Fraudulent
    );
}

#[test]
fn a_false_accuser_is_slashed_and_the_accused_stands() {
    let story = tell(&network(&[], &[B::FalseAccuser]));
    assert_eq!(story.round.head.as_ref().unwrap().disputed, 3);
    assert_eq!(story.slashed(B::FalseAccuser), 1);
    let accuser = story.address(B::FalseAccuser);
    let duty = story
        .round
        .duties
        .iter()
        .find(|duty| duty.validator == accuser)
        .unwrap();
    assert_eq!(duty.paid, Amount::ZERO);
    assert!(
        story
            .round
            .entries
            .iter()
            .all(|e| e.outcome == Some(Outcome::Accepted))
    );
}

#[test]
fn a_made_up_verdict_is_refuted() {
    let story = tell(&network(&[], &[B::GuessedVerdict]));
    assert_eq!(story.slashed(B::GuessedVerdict), 1);
}

#[test]
fn a_lazy_validator_earns_less_and_is_not_slashed() {
    let story = tell(&network(&[], &[B::LazyVerdict]));
    let lazy = story.address(B::LazyVerdict);
    let (lazy, diligent): (Vec<_>, Vec<_>) = story
        .round
        .duties
        .iter()
        .partition(|duty| duty.validator == lazy);
    assert_eq!(story.slashed(B::LazyVerdict), 0);
    assert!(diligent.iter().all(|duty| duty.paid > lazy[0].paid));
    assert!(
        story
            .round
            .entries
            .iter()
            .all(|e| e.outcome == Some(Outcome::Accepted))
    );
}

#[test]
fn without_an_availability_quorum_nobody_is_paid_or_slashed_and_the_adapter_stays() {
    let story = tell(&network(&[], &[B::HoldsNothing, B::HoldsNothing]));
    let head = story.round.head.as_ref().unwrap();
    assert!(
        story
            .round
            .entries
            .iter()
            .all(|e| e.outcome == Some(Outcome::Unavailable))
    );
    assert!(story.round.entries.iter().all(|e| e.paid.is_zero()));
    assert_eq!((head.slashed, head.aggregate.clone()), (Amount::ZERO, None));
    assert!(!story.adapter_moved());
}

#[test]
fn a_backup_takes_over_from_a_silent_proposer() {
    let mut network = network(&[], &[]);
    network.proposers = vec![B::Silent, B::Honest];
    // Both orders come up among a few seeds; either way the round ends with an aggregate.
    let mut turns = Vec::new();
    for seed in 0..4 {
        network.seed = seed;
        let story = tell(&network);
        let head = story.round.head.as_ref().unwrap();
        assert!(story.adapter_moved());
        assert_eq!(
            head.proposal.as_ref().unwrap().proposer,
            story.report.nodes.last().unwrap().address
        );
        turns.push(head.attempt);
    }
    assert!(turns.contains(&0) && turns.contains(&1), "{turns:?}");
}

#[test]
fn a_wrong_aggregate_is_slashed_and_what_the_validators_computed_stands() {
    let mut network = network(&[], &[]);
    network.proposers = vec![B::WrongAggregate];
    let story = tell(&network);
    assert_eq!(story.slashed(B::WrongAggregate), 1);
    assert!(story.adapter_moved());
    let proposer = story.report.nodes.last().unwrap();
    assert!(proposer.wealth < Amount::new(2 * STAKE.uremes()));
}

#[test]
fn a_proposer_of_wrong_aggregates_ends_poorer_than_its_honest_twin() {
    let mut network = network(&[], &[]);
    network.proposers = vec![B::WrongAggregate, B::Honest, B::Honest];
    network.rounds = 10;
    let report = World::new(&network).unwrap().run().unwrap();
    assert_eq!(report.rounds, 10);
    let liar = report.of(B::WrongAggregate).next().unwrap();
    assert!(liar.tally.slashed > 0, "it was never drawn");
    let twin = report.honest_twin(Role::Proposer).unwrap();
    // Both had a turn, and only true aggregates are paid.
    assert!(twin.wealth > Amount::new(2 * STAKE.uremes()));
    assert!(liar.wealth < twin.wealth, "a wrong aggregate pays");
}

#[test]
fn a_court_without_quorum_excludes_the_package_and_slashes_nobody() {
    let story = tell(&network(
        &[B::FalsifiedSteps(8)],
        &[B::LazyVerdict, B::LazyVerdict],
    ));
    let liar = story.address(B::FalsifiedSteps(8));
    assert_eq!(story.outcome(liar), Outcome::Undecided);
    assert_eq!(story.round.head.as_ref().unwrap().slashed, Amount::ZERO);
    assert_eq!(story.round.head.as_ref().unwrap().phase, Phase::Closed);
}

#[test]
fn verdicts_that_split_by_back_end_pause_the_run_and_slash_nobody() {
    let mut network = network(&[], &[B::KernelBug, B::KernelBug]);
    network.rounds = 3;
    let mut world = World::new(&network).unwrap();
    for node in &mut world.nodes {
        let faulty = node.behaviour == B::KernelBug;
        node.backend = if faulty { Backend::Neon } else { Backend::Avx2 };
    }
    world.run().unwrap();
    let run = world.chain.ask(&QueryRun { run: RUN }).unwrap();
    assert_eq!(run.status, RunStatus::Paused);
    let record = world.round(0).unwrap();
    assert!(
        record
            .entries
            .iter()
            .all(|e| e.outcome == Some(Outcome::Undecided))
    );
    let round = record.head.unwrap();
    assert_eq!((round.phase, round.slashed), (Phase::Closed, Amount::ZERO));

    let authority = world.nodes[0].address;
    let resume = MsgPropose {
        proposer: authority,
        title: Text::new("the kernel is fixed").unwrap(),
        change: Change::RunSwitch(RunSwitch {
            run: RUN,
            paused: false,
        }),
    };
    world.block(vec![resume.into()]).unwrap();
    let run = world.chain.ask(&QueryRun { run: RUN }).unwrap();
    assert_eq!(
        (run.status, run.round, run.open),
        (RunStatus::Active, 1, true)
    );
}

#[test]
fn who_leaves_with_a_lie_in_the_open_is_slashed_all_the_same() {
    let story = tell(&network(&[B::Leaver], &[]));
    let address = story.address(B::Leaver);
    assert_eq!(story.outcome(address), Outcome::Fraudulent);
    let node = story
        .world
        .chain
        .ask(&QueryNode { address })
        .unwrap()
        .node
        .unwrap();
    assert_eq!(node.status, NodeStatus::Left);
    assert_eq!((node.bonded, node.locks), (Amount::ZERO, 0));
    let unbonding: u64 = node.unbonding.iter().map(|part| part.amount.uremes()).sum();
    let slashed = story.round.head.as_ref().unwrap().slashed;
    assert_eq!(unbonding + slashed.uremes(), STAKE.uremes());
}

/// First audits miss nearly everything; second ones miss nothing.
fn second_audits(miners: &[B]) -> Network {
    let mut network = network(miners, &[]);
    network.audited = Ppm::percent(1);
    network.reaudited = Ppm::ONE;
    network.drawn = network.steps;
    network.rounds = 3;
    network
}

#[test]
fn a_partial_liar_that_leaves_is_caught_by_the_second_audit() {
    let liar = B::Quitter(1);
    let mut story = tell(&second_audits(&[liar, B::Honest, B::Honest, B::Honest]));
    let address = story.address(liar);
    assert_eq!(story.outcome(address), Outcome::Accepted);
    // Before the round is no longer kept.
    let entry = loop {
        let entries = story.world.round(0).unwrap().entries;
        let entry = entries.iter().find(|entry| entry.miner == address).unwrap();
        let reaudit = entry.reaudit.as_ref();
        if reaudit.is_some_and(|reaudit| reaudit.outcome.is_some()) {
            break entry.clone();
        }
        story.world.step().unwrap();
    };
    story.world.run_out().unwrap();
    let node = story.world.chain.ask(&QueryNode { address }).unwrap();
    let node = node.node.unwrap();
    assert!(node.unbonding.is_empty() && node.disputes == 0);
    let reaudit = entry.reaudit.as_ref().unwrap();
    assert_eq!(reaudit.outcome, Some(Outcome::Fraudulent));
    assert!(reaudit.slashed > entry.paid);
    let wealth = story.world.wealth(address).unwrap();
    assert!(wealth < Amount::new(2 * STAKE.uremes()).saturating_sub(reaudit.slashed));
}

#[test]
fn an_honest_miner_that_leaves_gets_everything_back_whatever_the_weather() {
    for seed in 0..4 {
        let mut network = second_audits(&[B::Quitter(0), B::Honest, B::Honest, B::Honest]);
        network.weather = true;
        network.seed = seed;
        let mut story = tell(&network);
        let address = story.address(B::Quitter(0));
        story.world.run_out().unwrap();
        let free = story.world.chain.ask(&QueryBalance { address }).unwrap();
        // Both stakes, at least one reward, and a fee.
        assert!(free.amount > Amount::new(2 * STAKE.uremes()), "seed {seed}");
    }
}

#[test]
fn error_feedback_goes_from_round_to_round_and_old_rounds_shrink() {
    let mut network = network(&[], &[]);
    network.rounds = 6;
    let story = tell(&network);
    let (fourth, fifth) = (story.world.round(4).unwrap(), story.world.round(5).unwrap());
    for (before, after) in fourth.entries.iter().zip(&fifth.entries) {
        assert_eq!(before.miner, after.miner);
        assert_eq!(before.package.as_ref().map(|p| p.feedback), after.feedback);
    }
    assert!(story.round.head.is_none() && story.round.entries.is_empty());
    let question = QueryRounds {
        run: RUN,
        after: None,
        limit: 0,
    };
    let summaries = story.world.chain.ask(&question).unwrap().rounds;
    assert_eq!(summaries.len(), 6);
    assert!(summaries.iter().all(|summary| summary.accepted == 3));
    assert!(
        summaries
            .windows(2)
            .all(|pair| pair[0].adapter != pair[1].adapter)
    );
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let mut network = network(&[B::FalsifiedSteps(2)], &[]);
    network.weather = true;
    let state = |network: &Network| tell(network).world.chain.state().clone();
    let first = state(&network);
    assert_eq!(first, state(&network));
    network.seed += 1;
    assert_ne!(first, state(&network));
}
