use r3mes_types::task::{AdapterRef, F32Bits, HyperParameters, ShardRef, Targets};
use r3mes_types::training::{Backend, Package, StepVerdict, TrainingMessage as Message, Verdict};
use r3mes_types::wire::List;
use r3mes_types::{Address, Cid, Hash, Time};

use super::*;
use crate::commitment::Commitment;

const ROUND: RoundKey = RoundKey { run: 1, round: 2 };
const SECRET: [u8; 32] = [9; 32];

fn me() -> Address {
    Address::from([1; 20])
}

fn task(feedback: Option<Hash>) -> Task {
    Task {
        run: 1,
        round: 2,
        miner: me(),
        model: Hash::of(b"model"),
        exact_version: 1,
        adapter_seed: Hash::of(b"seed"),
        start: AdapterRef {
            cid: None,
            adapter: Hash::of(b"adapter"),
            state: Hash::of(&[0]),
        },
        shard: ShardRef {
            index: 0,
            cid: Cid::raw(b"shard"),
            tokens: 1000,
        },
        steps: 4,
        hyper: HyperParameters {
            batch: 1,
            sequence: 8,
            rank: 1,
            alpha: F32Bits::ONE,
            targets: Targets::ALL,
            learning_rate: F32Bits::ONE,
            beta1: F32Bits::ZERO,
            beta2: F32Bits::ZERO,
            c1: F32Bits::ONE,
            c2: F32Bits::ONE,
            epsilon: F32Bits::ONE,
            weight_decay: F32Bits::ZERO,
            chunk: 8,
            top_k: 1,
            decay: F32Bits::ZERO,
        },
        beacon: Hash::of(b"beacon"),
        feedback,
    }
}

fn owed(kind: ObligationKind) -> Obligation {
    Obligation {
        kind,
        run: 1,
        round: 2,
        deadline: Time::from_nanos(5),
        task: Some(task(None)),
        commitment: None,
        package: None,
        steps: List::new(vec![1, 2, 4]).unwrap(),
        served: None,
        packages: List::default(),
        aggregation: None,
        second: false,
    }
}

fn trained() -> Trained {
    let states = (0..6u8).map(|n| Hash::of(&[n])).collect();
    Trained {
        commitment: Commitment::new(&task(None).work(), &SECRET, states),
        package: package(1),
        feedback_lost: false,
        served: [1, 4].map(|step| (step, Cid::raw(&[step as u8]))).into(),
        feedback_cid: None,
    }
}

fn package(n: u8) -> Package {
    Package {
        cid: Cid::raw(&[n]),
        hash: Hash::of(&[n]),
        bytes: 1,
        feedback: Hash::of(b"feedback"),
    }
}

fn verdict(after: u8) -> Verdict {
    let step = |step, after| StepVerdict {
        step,
        before: Hash::of(&[step as u8]),
        after: Hash::of(&[after]),
    };
    Verdict {
        backend: Backend::Avx2,
        steps: List::new(vec![step(1, 2), step(2, after), step(4, 5)]).unwrap(),
        feedback_withheld: false,
    }
}

fn audit_of(second: bool) -> AuditKey {
    AuditKey {
        round: ROUND,
        miner: me(),
        second,
    }
}

/// What comes out for one obligation: exactly one action.
fn one(facts: &Facts, owed: &Obligation) -> Action {
    let mut actions = plan(facts, std::slice::from_ref(owed));
    assert_eq!(actions.len(), 1);
    actions.remove(0)
}

fn sent(facts: &Facts, owed: &Obligation) -> Message {
    match one(facts, owed) {
        Action::Send(message) => *message,
        other => panic!("{other:?} instead of a message"),
    }
}

#[test]
fn a_miner_without_its_round_trains_it_whatever_it_owes() {
    let facts = Facts::new(me(), SECRET);
    for kind in [
        ObligationKind::Commit,
        ObligationKind::Reveal,
        ObligationKind::Serve,
        ObligationKind::Open,
    ] {
        let expected = Action::Train(Box::new(task(None)));
        assert_eq!(one(&facts, &owed(kind)), expected);
    }
}

#[test]
fn a_miner_with_its_round_answers_from_it() {
    let mut facts = Facts::new(me(), SECRET);
    facts.trained.insert(ROUND, trained());
    let root = trained().commitment.root();
    assert!(matches!(
        sent(&facts, &owed(ObligationKind::Commit)),
        Message::CommitStates(message) if message.root == root
    ));
    let mut reveal = owed(ObligationKind::Reveal);
    reveal.commitment = Some(root);
    assert!(matches!(
        sent(&facts, &reveal),
        Message::RevealPackage(message) if message.start.index == 0 && message.end.index == 5
    ));
    let Message::OpenLeaves(open) = sent(&facts, &owed(ObligationKind::Open)) else {
        panic!("the leaves are opened");
    };
    let leaves: Vec<u32> = open.openings.iter().map(|opening| opening.index).collect();
    assert_eq!(leaves, [1, 2, 3, 4]);
}

#[test]
fn a_round_that_comes_out_otherwise_when_trained_again_is_given_up_once() {
    // The ledger has another root: what is here is not what was committed to, and never will be.
    let mut facts = Facts::new(me(), SECRET);
    let mut reveal = owed(ObligationKind::Reveal);
    reveal.commitment = Some(Hash::ZERO);
    assert!(matches!(one(&facts, &reveal), Action::Train(_)));
    facts.trained.insert(ROUND, trained());
    assert_eq!(one(&facts, &reveal), Action::GiveUp { round: ROUND });
    facts.given_up.insert(ROUND);
    assert!(plan(&facts, &[reveal]).is_empty());
}

#[test]
fn a_miner_publishes_what_its_panel_needs_before_it_serves() {
    let mut facts = Facts::new(me(), SECRET);
    let mut kept = trained();
    kept.served.remove(&4);
    facts.trained.insert(ROUND, kept);
    let mut serve = owed(ObligationKind::Serve);
    serve.task = Some(task(Some(Hash::of(b"old feedback"))));
    let expected = Action::Publish {
        round: ROUND,
        steps: vec![4],
        feedback: true,
    };
    assert_eq!(one(&facts, &serve), expected);

    let mut kept = trained();
    kept.feedback_cid = Some(Cid::raw(b"old feedback"));
    facts.trained.insert(ROUND, kept);
    let Message::ServeStates(message) = sent(&facts, &serve) else {
        panic!("the states are served");
    };
    // The state before step 2 is what the panel computes as the state after step 1.
    let steps: Vec<u32> = message
        .served
        .states
        .iter()
        .map(|state| state.step)
        .collect();
    assert_eq!(steps, [1, 4]);
    assert_eq!(message.served.states[0].state, Hash::of(&[1]));
    assert_eq!(message.served.feedback, Some(Cid::raw(b"old feedback")));
}

#[test]
fn a_validator_fetches_what_it_has_not_tried_and_attests_what_it_holds() {
    let mut facts = Facts::new(me(), SECRET);
    let packages: Vec<MinerPackage> = (1..=3)
        .map(|n| MinerPackage {
            miner: Address::from([n; 20]),
            package: package(n),
        })
        .collect();
    let mut attest = owed(ObligationKind::AttestPackages);
    attest.packages = List::new(packages.clone()).unwrap();
    let mut fetched = Fetched::default();
    fetched.held.insert(packages[0].miner);
    facts.fetched.insert(ROUND, fetched.clone());
    let expected = Action::Fetch {
        round: ROUND,
        packages: packages[1..].to_vec(),
    };
    assert_eq!(one(&facts, &attest), expected);

    fetched.held.insert(packages[2].miner);
    fetched.given_up.insert(packages[1].miner);
    facts.fetched.insert(ROUND, fetched);
    let Message::AttestPackages(message) = sent(&facts, &attest) else {
        panic!("the packages are attested");
    };
    assert_eq!(*message.held, [packages[0].miner, packages[2].miner]);
}

#[test]
fn a_validator_reveals_only_what_it_committed_to() {
    let mut facts = Facts::new(me(), SECRET);
    let commit = owed(ObligationKind::CommitVerdict);
    assert!(matches!(one(&facts, &commit), Action::Audit(_)));
    facts.verdicts.insert(audit_of(false), verdict(3));
    let Message::CommitVerdict(committed) = sent(&facts, &commit) else {
        panic!("the verdict is committed to");
    };

    let mut reveal = owed(ObligationKind::RevealVerdict);
    reveal.commitment = Some(committed.commitment);
    let Message::RevealVerdict(revealed) = sent(&facts, &reveal) else {
        panic!("the verdict is revealed");
    };
    assert_eq!(
        revealed
            .verdict
            .commitment(&task(None).work(), &me(), &revealed.nonce),
        committed.commitment
    );
    // After a crash the verdict is computed again; if it came out otherwise, silence.
    facts.verdicts.clear();
    assert!(matches!(one(&facts, &reveal), Action::Audit(_)));
    facts.verdicts.insert(audit_of(false), verdict(77));
    assert!(plan(&facts, &[reveal]).is_empty());
}

#[test]
fn a_second_audit_is_answered_by_itself_and_with_another_nonce() {
    let mut facts = Facts::new(me(), SECRET);
    facts.verdicts.insert(audit_of(false), verdict(3));
    let mut second = owed(ObligationKind::CommitVerdict);
    second.second = true;
    assert!(matches!(one(&facts, &second), Action::Audit(_)));
    facts.verdicts.insert(audit_of(true), verdict(3));
    let Message::CommitVerdict(committed) = sent(&facts, &second) else {
        panic!("the verdict is committed to");
    };
    assert!(committed.second);
    let Message::CommitVerdict(first) = sent(&facts, &owed(ObligationKind::CommitVerdict)) else {
        panic!("the verdict is committed to");
    };
    assert!(!first.second);
    assert_ne!(first.commitment, committed.commitment);

    facts.trained.insert(ROUND, trained());
    second.kind = ObligationKind::Serve;
    assert!(matches!(sent(&facts, &second), Message::ServeStates(message) if message.second));
    second.kind = ObligationKind::Open;
    assert!(matches!(sent(&facts, &second), Message::OpenLeaves(message) if message.second));
    second.kind = ObligationKind::Court;
    facts.replays.insert(audit_of(true), verdict(3));
    assert!(matches!(sent(&facts, &second), Message::VoteCourt(message) if message.second));
}

#[test]
fn votes_and_aggregates_are_computed_once_and_then_sent() {
    let mut facts = Facts::new(me(), SECRET);
    assert!(matches!(
        one(&facts, &owed(ObligationKind::Court)),
        Action::Replay(_)
    ));
    facts.replays.insert(audit_of(false), verdict(3));
    assert!(matches!(
        sent(&facts, &owed(ObligationKind::Court)),
        Message::VoteCourt(_)
    ));
    for kind in [ObligationKind::Propose, ObligationKind::AttestAggregate] {
        assert!(matches!(one(&facts, &owed(kind)), Action::Aggregate(_)));
    }
    facts.aggregates.insert(ROUND, task(None).start);
    assert!(matches!(
        sent(&facts, &owed(ObligationKind::Propose)),
        Message::ProposeAggregate(_)
    ));
    assert!(matches!(
        sent(&facts, &owed(ObligationKind::AttestAggregate)),
        Message::AttestAggregate(_)
    ));
}

#[test]
fn the_most_urgent_comes_first_and_closed_rounds_are_forgotten() {
    let mut facts = Facts::new(me(), SECRET);
    let mut late = owed(ObligationKind::Commit);
    late.deadline = Time::from_nanos(50);
    let actions = plan(&facts, &[late, owed(ObligationKind::Court)]);
    assert!(matches!(actions[..], [Action::Replay(_), Action::Train(_)]));

    facts.trained.insert(ROUND, trained());
    facts.forget_before(1, 2, 0);
    assert_eq!(facts.trained.len(), 1);
    facts.verdicts.insert(audit_of(true), verdict(3));
    facts.verdicts.insert(audit_of(false), verdict(3));
    facts.forget_before(1, 3, 2);
    assert!(facts.trained.is_empty());
    // A second audit of that round may go on.
    assert!(facts.verdicts.keys().eq([&audit_of(true)]));
    facts.forget_before(1, 9, 3);
    assert!(facts.verdicts.is_empty());
}
