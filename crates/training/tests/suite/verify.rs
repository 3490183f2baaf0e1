//! Recomputing a closed round: equal for every order of arrival, and the first difference is named.

use std::collections::BTreeMap;

use r3mes_training::aggregate::aggregate;
use r3mes_training::state::{StepState, encode_floats, hash_floats};
use r3mes_training::verify::{VerifyError, verify_round};
use r3mes_types::task::AdapterRef;
use r3mes_types::training::{Entry, Outcome, Package as PackageRef, Phase, Round};
use r3mes_types::wire::List;
use r3mes_types::{Amount, Cid, Hash, Time};

use crate::setup::{Miner, hyper, model};

#[derive(Debug, thiserror::Error)]
#[error("no such blob")]
struct Missing;

/// A closed round of three miners, with all blobs by their CIDs.
struct Closed {
    round: Round,
    entries: Vec<Entry>,
    initial: Vec<f32>,
    blobs: BTreeMap<Cid, Vec<u8>>,
}

impl Closed {
    /// Packages arrive in the order of `miners`.
    fn new(miners: [u8; 3]) -> Self {
        let model = model();
        let mut blobs = BTreeMap::new();
        let (mut packages, mut entries, mut initial) = (Vec::new(), Vec::new(), Vec::new());
        for number in miners {
            let miner = Miner::new(&model, number);
            let finished = miner.honest(&model, None).0;
            let cid = Cid::raw(&finished.package_bytes);
            let package = PackageRef {
                cid,
                hash: finished.package_hash,
                bytes: finished.package_bytes.len() as u64,
                feedback: finished.feedback_hash,
            };
            entries.push(entry(&miner, package));
            blobs.insert(cid, finished.package_bytes);
            packages.push(finished.package);
            initial = miner.start.adapter;
        }
        let next = aggregate(&initial, &packages).unwrap().adapter;
        let cid = Cid::raw(&encode_floats(&next));
        blobs.insert(cid, encode_floats(&next));
        let round = round(adapter_ref(None, &initial), adapter_ref(Some(cid), &next));
        Self {
            round,
            entries,
            initial,
            blobs,
        }
    }

    fn verify(&self) -> Result<Hash, VerifyError> {
        let fetch = |cid: &Cid, limit: usize| match self.blobs.get(cid) {
            Some(bytes) if bytes.len() <= limit => Ok(bytes.clone()),
            _ => Err(Missing),
        };
        verify_round(&self.round, &self.entries, &hyper(), &self.initial, fetch)
            .map(|verified| hash_floats(&verified.adapter))
    }

    fn package(&mut self, of: usize) -> &mut PackageRef {
        self.entries[of].package.as_mut().unwrap()
    }

    fn aggregate(&mut self) -> &mut AdapterRef {
        self.round.aggregate.as_mut().unwrap()
    }
}

fn adapter_ref(cid: Option<Cid>, adapter: &[f32]) -> AdapterRef {
    AdapterRef {
        cid,
        adapter: hash_floats(adapter),
        state: StepState::start(adapter.to_vec()).hash(),
    }
}

fn entry(miner: &Miner, package: PackageRef) -> Entry {
    Entry {
        miner: miner.task.miner,
        shard: 0,
        feedback: None,
        commitment: None,
        package: Some(package),
        held: 0,
        audit: None,
        outcome: Some(Outcome::Accepted),
        paid: Amount::ZERO,
        locked: Amount::ZERO,
        reaudit: None,
    }
}

fn round(start: AdapterRef, aggregate: AdapterRef) -> Round {
    Round {
        run: 1,
        round: 0,
        phase: Phase::Closed,
        opened_at: Time::default(),
        deadline: Time::default(),
        beacon: Hash::ZERO,
        start,
        learning_rate: hyper().learning_rate,
        assigned: 3,
        total_power: 1,
        pending: 0,
        settling: false,
        cursor: 0,
        draw_height: 0,
        draw: None,
        audited: 0,
        disputed: 0,
        standing: 3,
        proposers: List::default(),
        attempt: 0,
        proposal: None,
        aggregate: Some(aggregate),
        duties: 0,
        unpaid: Amount::ZERO,
        paid: Amount::ZERO,
        slashed: Amount::ZERO,
        package_bytes: 0,
        closed_at: Time::default(),
        tallies: List::default(),
        slashed_proposers: List::default(),
    }
}

#[test]
fn the_aggregate_is_the_same_for_every_order_of_arrival() {
    let hashes = [[1, 2, 3], [3, 1, 2], [2, 3, 1], [3, 2, 1]].map(|order| {
        let closed = Closed::new(order);
        let recomputed = closed.verify().unwrap();
        assert_eq!(recomputed, closed.round.aggregate.unwrap().adapter);
        assert_ne!(recomputed, closed.round.start.adapter);
        recomputed
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
}

#[test]
fn a_tampered_byte_of_a_package_is_named_by_its_miner() {
    for of in 0..3 {
        let mut closed = Closed::new([1, 2, 3]);
        let (cid, miner) = (closed.package(of).cid, closed.entries[of].miner);
        let blob = closed.blobs.get_mut(&cid).unwrap();
        *blob.last_mut().unwrap() ^= 1;
        let error = closed.verify().unwrap_err();
        assert!(
            matches!(&error, VerifyError::PackageHash { miner: named, .. } if *named == miner),
            "{error}"
        );
    }
}

#[test]
fn a_swapped_cid_is_named_by_its_miner() {
    let mut closed = Closed::new([1, 2, 3]);
    let other = closed.package(2).cid;
    closed.package(1).cid = other;
    let miner = closed.entries[1].miner;
    let error = closed.verify().unwrap_err();
    assert!(
        matches!(&error, VerifyError::PackageHash { miner: named, .. } if *named == miner),
        "{error}"
    );
}

#[test]
fn a_package_that_is_no_package_is_named_by_its_miner() {
    let mut closed = Closed::new([1, 2, 3]);
    let bytes = b"no package".to_vec();
    let (cid, miner) = (Cid::raw(&bytes), closed.entries[1].miner);
    closed.package(1).cid = cid;
    closed.package(1).hash = Hash::of(&bytes);
    closed.blobs.insert(cid, bytes);
    let error = closed.verify().unwrap_err();
    assert!(
        matches!(&error, VerifyError::Package { miner: named, .. } if *named == miner),
        "{error}"
    );
}

#[test]
fn a_tampered_byte_of_the_aggregate_is_named_by_its_parameter() {
    let mut closed = Closed::new([1, 2, 3]);
    let cid = closed.aggregate().cid.unwrap();
    let mut bytes = closed.blobs[&cid].clone();
    bytes[4 * 1234 + 1] ^= 1;
    let (cid, hash) = (Cid::raw(&bytes), Hash::of(&bytes));
    *closed.aggregate() = AdapterRef {
        cid: Some(cid),
        adapter: hash,
        ..closed.aggregate().clone()
    };
    closed.blobs.insert(cid, bytes);
    let error = closed.verify().unwrap_err();
    assert!(
        matches!(&error, VerifyError::Adapter { what: "hash", expected, .. } if *expected == hash),
        "{error}"
    );
    assert!(
        error.to_string().ends_with(", first at parameter 1234"),
        "{error}"
    );
}

#[test]
fn a_wrong_start_state_and_a_wrong_start_are_named() {
    let mut closed = Closed::new([1, 2, 3]);
    closed.aggregate().state = Hash::ZERO;
    let error = closed.verify().unwrap_err();
    assert!(
        matches!(
            &error,
            VerifyError::Adapter {
                what: "start state",
                ..
            }
        ),
        "{error}"
    );
    closed.initial[7] += 1.0;
    let error = closed.verify().unwrap_err();
    assert!(
        matches!(&error, VerifyError::StartAdapter { .. }),
        "{error}"
    );
}

#[test]
fn a_blob_that_nobody_has_is_named() {
    let mut closed = Closed::new([1, 2, 3]);
    let (cid, miner) = (closed.package(0).cid, closed.entries[0].miner);
    closed.blobs.remove(&cid);
    let error = closed.verify().unwrap_err();
    assert!(
        matches!(&error, VerifyError::Fetch { what, cid: named, .. }
            if *named == cid && what.contains(&miner.to_string())),
        "{error}"
    );
    closed.round.aggregate = None;
    let error = closed.verify().unwrap_err();
    assert!(matches!(&error, VerifyError::Open { round: 0 }), "{error}");
}
