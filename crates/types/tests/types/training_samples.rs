//! One sample of every message of a training run, with every field set to something that is not its
//! default.

use r3mes_types::task::{AdapterRef, F32Bits, HyperParameters, Targets};
use r3mes_types::training::{
    Backend, MsgAttestAggregate, MsgAttestPackages, MsgCommitStates, MsgCommitVerdict,
    MsgCreateRun, MsgEndRun, MsgOpenLeaves, MsgPauseRun, MsgProposeAggregate, MsgResumeRun,
    MsgRevealPackage, MsgRevealVerdict, MsgServeStates, MsgVoteCourt, Opening, Package, Penalties,
    Preset, RunParams, Served, ServedState, Split, StepVerdict, Verdict, Windows,
};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Address, Amount, Cid, Hash, Message, Millis, Ppm};

use crate::samples::key;

fn hash(text: &str) -> Hash {
    Hash::of(text.as_bytes())
}

fn cid() -> Cid {
    Cid::raw(b"a blob")
}

fn adapter() -> AdapterRef {
    AdapterRef {
        cid: Some(cid()),
        adapter: hash("adapter"),
        state: hash("state"),
    }
}

fn opening(index: u32) -> Opening {
    Opening {
        index,
        salt: hash("salt"),
        state: hash("state"),
        path: List::new(vec![hash("left"), hash("right")]).unwrap(),
    }
}

fn verdict() -> Verdict {
    let step = |step| StepVerdict {
        step,
        before: hash("before"),
        after: hash("after"),
    };
    Verdict {
        backend: Backend::Avx2,
        steps: List::new(vec![step(1), step(7)]).unwrap(),
        feedback_withheld: true,
    }
}

fn hyper() -> HyperParameters {
    HyperParameters {
        batch: 8,
        sequence: 128,
        rank: 16,
        alpha: F32Bits(0x4200_0000),
        targets: Targets::ALL,
        learning_rate: F32Bits(0x3a83_126f),
        beta1: F32Bits(0x3f66_6666),
        beta2: F32Bits(0x3f7d_70a4),
        c1: F32Bits(0x3dcc_cccd),
        c2: F32Bits(0x3c23_d70a),
        epsilon: F32Bits(0x322b_cc77),
        weight_decay: F32Bits(0x3dcc_cccd),
        chunk: 64,
        top_k: 4,
        decay: F32Bits(0x3f73_3333),
    }
}

fn run_params() -> RunParams {
    let span = Millis::seconds(30);
    RunParams {
        name: Text::new("run").unwrap(),
        model: hash("model"),
        exact_version: 1,
        dataset: 2,
        steps: 16,
        hyper: hyper(),
        learning_rates: List::new(vec![F32Bits::ONE, F32Bits(1)]).unwrap(),
        initial: adapter(),
        rounds: 10,
        reward: Amount::remes(5),
        split: Split {
            miners: Ppm::percent(70),
            validators: Ppm::percent(15),
            proposer: Ppm::percent(10),
            treasury: Ppm::percent(5),
        },
        panel: 3,
        drawn_steps: 2,
        audited_share: Ppm::percent(20),
        min_miners: 1,
        max_miners: 8,
        min_validators: 3,
        proposers: 2,
        windows: Windows {
            commit: span,
            reveal: span,
            availability: span,
            serve: span,
            verify: span,
            verdict: span,
            open: span,
            court: span,
            aggregate: span,
        },
        penalties: Penalties {
            miner: Amount::remes(1),
            validator: Amount::remes(2),
            proposer: Amount::remes(3),
        },
        kept_rounds: 4,
        preset: Preset::Demonstration,
        adapter_seed: hash("seed"),
        reaudited_share: Ppm::percent(1),
    }
}

/// The messages of everybody in a round.
pub(crate) fn training_messages() -> Vec<Message> {
    let me = key().address();
    let miner = Address::from([9; 20]);
    let (run, round) = (3, 5);
    let served = Served {
        states: List::new(vec![ServedState {
            step: 7,
            state: hash("state"),
            cid: cid(),
        }])
        .unwrap(),
        feedback: Some(cid()),
    };
    let package = Package {
        cid: cid(),
        hash: hash("package"),
        bytes: 1_000,
        feedback: hash("feedback"),
    };
    #[rustfmt::skip]
    let messages: Vec<Message> = vec![
        MsgCreateRun { authority: me, params: run_params() }.into(),
        MsgPauseRun { authority: me, run, reason: Text::new("a fault").unwrap() }.into(),
        MsgResumeRun { authority: me, run }.into(),
        MsgEndRun { authority: me, run }.into(),
        MsgCommitStates { miner, run, round, root: hash("root"), feedback_lost: true }.into(),
        MsgRevealPackage { miner, run, round, package, start: opening(0), end: opening(17) }.into(),
        MsgAttestPackages { validator: me, run, round, held: List::new(vec![miner]).unwrap() }.into(),
        MsgServeStates { miner, run, round, served, second: true }.into(),
        MsgCommitVerdict { validator: me, run, round, miner, commitment: hash("verdict"), second: true }.into(),
        MsgRevealVerdict { validator: me, run, round, miner, nonce: hash("nonce"), verdict: verdict(), second: true }.into(),
        MsgOpenLeaves { miner, run, round, openings: List::new(vec![opening(6), opening(7)]).unwrap(), second: true }.into(),
        MsgVoteCourt { validator: me, run, round, miner, verdict: verdict(), second: true }.into(),
        MsgProposeAggregate { proposer: me, run, round, aggregate: adapter() }.into(),
        MsgAttestAggregate { validator: me, run, round, aggregate: adapter() }.into(),
    ];
    messages
}
