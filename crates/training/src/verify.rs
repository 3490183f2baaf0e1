//! Recomputing a closed round from its record and its blobs.

use r3mes_exact::Device;
use r3mes_types::task::{AdapterRef, HyperParameters};
use r3mes_types::training::{Entry, Outcome, Round};
use r3mes_types::{Address, Cid, Hash};

use crate::aggregate::{AggregateError, aggregate};
use crate::job::Job;
use crate::package::{DecodePackageError, Package, Shape, ShapeError};
use crate::round::{RoundProgress, compress_round, run_round};
use crate::state::{StepState, encode_floats, floats_from_bytes, hash_floats};
use crate::step::StepMemory;

/// What recomputing a round found, when everything agreed.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedRound {
    /// The adapter after the round, as recomputed.
    pub adapter: Vec<f32>,
    /// Miners whose packages were aggregated, ascending.
    pub miners: Vec<Address>,
    /// The norm of each of their packages, in units of 2^-40.
    pub norms: Vec<u64>,
    /// The norm that larger ones were scaled down to.
    pub median_norm: u64,
    /// Bytes of all packages.
    pub package_bytes: u64,
}

/// The first thing in a round that does not recompute.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The round has no attested aggregate yet.
    #[error("round {round} has no attested aggregate yet")]
    Open {
        /// Its number.
        round: u32,
    },
    /// A blob could not be fetched.
    #[error("{what} ({cid}) could not be fetched")]
    Fetch {
        /// What it is.
        what: String,
        /// Where it should be.
        cid: Cid,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The start adapter has another hash than recorded.
    #[error("the start adapter has hash {got}, the ledger says {expected}")]
    StartAdapter {
        /// Hash of the bytes.
        got: Hash,
        /// The ledger's.
        expected: Hash,
    },
    /// The start adapter's bytes are not whole numbers.
    #[error("the start adapter has {bytes} bytes, which is no number of parameters")]
    StartLength {
        /// How many.
        bytes: usize,
    },
    /// The shape of packages is out of bounds.
    #[error("the round's packages are refused")]
    Shape(#[from] ShapeError),
    /// An accepted entry without a package.
    #[error("the package of {miner} was accepted, but none is recorded")]
    NoPackage {
        /// Whose.
        miner: Address,
    },
    /// A package has another hash than recorded.
    #[error("the package of {miner} has hash {got}, the ledger says {expected}")]
    PackageHash {
        /// Whose.
        miner: Address,
        /// Hash of the bytes.
        got: Hash,
        /// The ledger's.
        expected: Hash,
    },
    /// A package is malformed.
    #[error("the package of {miner} is malformed")]
    Package {
        /// Whose.
        miner: Address,
        /// How.
        #[source]
        source: DecodePackageError,
    },
    /// The packages cannot be aggregated.
    #[error("the packages cannot be aggregated")]
    Aggregate(#[from] AggregateError),
    /// The aggregate differs from the recorded one.
    #[error("the aggregate has {what} {got}, the ledger says {expected}{place}")]
    Adapter {
        /// Which of its hashes.
        what: &'static str,
        /// As recomputed.
        got: Hash,
        /// The ledger's.
        expected: Hash,
        /// Where the recorded bytes first differ, if they could be had.
        place: String,
    },
}

/// Recomputes the aggregate of a closed round from the start adapter and the
/// accepted packages, and compares every hash on the way.
///
/// `entries` are all entries of the round, `initial` the run's initial
/// adapter, which the first round starts from. `fetch` gives a blob's bytes,
/// at most as many as it is told.
///
/// # Errors
/// [`VerifyError`] names the first thing that differs.
pub fn verify_round<E: std::error::Error + Send + Sync + 'static>(
    round: &Round,
    entries: &[Entry],
    hyper: &HyperParameters,
    initial: &[f32],
    mut fetch: impl FnMut(&Cid, usize) -> Result<Vec<u8>, E>,
) -> Result<VerifiedRound, VerifyError> {
    let recorded = round
        .aggregate
        .as_ref()
        .ok_or(VerifyError::Open { round: round.round })?;
    let mut get = |what: String, cid: &Cid, limit: usize| {
        fetch(cid, limit).map_err(|source| VerifyError::Fetch {
            what,
            cid: *cid,
            source: Box::new(source),
        })
    };
    let start = start_adapter(round, initial, &mut get)?;
    let shape = Shape::new(start.len(), hyper.chunk as usize, hyper.top_k as usize)?;
    let (mut miners, mut packages, mut package_bytes) = (Vec::new(), Vec::new(), 0);
    let accepted = |entry: &&Entry| entry.outcome == Some(Outcome::Accepted);
    for entry in entries.iter().filter(accepted) {
        let (package, bytes) = accepted_package(entry, shape, &mut get)?;
        miners.push(entry.miner);
        packages.push(package);
        package_bytes += bytes;
    }
    let aggregate = aggregate(&start, &packages)?;
    let recorded_bytes = recorded
        .cid
        .as_ref()
        .and_then(|cid| fetch(cid, 4 * initial.len()).ok());
    check_adapter(&aggregate.adapter, recorded, recorded_bytes.as_deref())?;
    Ok(VerifiedRound {
        adapter: aggregate.adapter,
        miners,
        norms: aggregate.norms,
        median_norm: aggregate.median_norm,
        package_bytes,
    })
}

/// The adapter that the round starts from, its hash compared. `get` gives a blob's bytes.
fn start_adapter(
    round: &Round,
    initial: &[f32],
    get: &mut impl FnMut(String, &Cid, usize) -> Result<Vec<u8>, VerifyError>,
) -> Result<Vec<f32>, VerifyError> {
    let start = match &round.start.cid {
        None => initial.to_vec(),
        Some(cid) => {
            let length = 4 * initial.len();
            let bytes = get("the start adapter".into(), cid, length)?;
            if bytes.len() != length {
                return Err(VerifyError::StartLength { bytes: bytes.len() });
            }
            floats_from_bytes(&bytes)
        }
    };
    let (got, expected) = (hash_floats(&start), round.start.adapter);
    if got != expected {
        return Err(VerifyError::StartAdapter { got, expected });
    }
    Ok(start)
}

/// The package of an accepted entry, its hash compared, with the number of its bytes.
fn accepted_package(
    entry: &Entry,
    shape: Shape,
    get: &mut impl FnMut(String, &Cid, usize) -> Result<Vec<u8>, VerifyError>,
) -> Result<(Package, u64), VerifyError> {
    let miner = entry.miner;
    let recorded = entry.package.as_ref();
    let recorded = recorded.ok_or(VerifyError::NoPackage { miner })?;
    let limit = shape.max_encoded_len();
    let bytes = get(format!("the package of {miner}"), &recorded.cid, limit)?;
    let (got, expected) = (Hash::of(&bytes), recorded.hash);
    if got != expected {
        return Err(VerifyError::PackageHash {
            miner,
            got,
            expected,
        });
    }
    let package =
        Package::decode(&bytes, shape).map_err(|source| VerifyError::Package { miner, source })?;
    Ok((package, bytes.len() as u64))
}

fn check_adapter(
    adapter: &[f32],
    recorded: &AdapterRef,
    recorded_bytes: Option<&[u8]>,
) -> Result<(), VerifyError> {
    let got = hash_floats(adapter);
    if got != recorded.adapter {
        let bytes = encode_floats(adapter);
        let place = recorded_bytes.and_then(|other| first_difference(&bytes, other));
        let place = place.map_or(String::new(), |at| {
            format!(", first at parameter {}", at / 4)
        });
        let expected = recorded.adapter;
        return Err(VerifyError::Adapter {
            what: "hash",
            got,
            expected,
            place,
        });
    }
    let (got, expected) = (StepState::start(adapter.to_vec()).hash(), recorded.state);
    if got != expected {
        let place = String::new();
        return Err(VerifyError::Adapter {
            what: "start state",
            got,
            expected,
            place,
        });
    }
    Ok(())
}

/// The first byte at which two byte strings differ.
fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let common = one.iter().zip(other).position(|(a, b)| a != b);
    common.or_else(|| (one.len() != other.len()).then(|| one.len().min(other.len())))
}

/// What replaying a miner's whole round found.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayedMiner {
    /// Hash of the package, as recomputed.
    pub package: Hash,
    /// The error feedback that it leaves, for the replay of the next round.
    pub feedback: Vec<f32>,
    /// BLAKE3 of that.
    pub feedback_hash: Hash,
}

/// Replays all steps of a miner's round and its packaging: compare the result
/// with what the ledger records of the miner's package.
///
/// # Errors
/// A step that cannot be computed, or error feedback that is not the task's.
pub fn replay_miner<D: Device>(
    job: &Job<'_, D>,
    start: StepState,
    feedback: Option<Vec<f32>>,
    memory: &mut StepMemory<D>,
) -> Result<ReplayedMiner, ReplayError> {
    let start_adapter = start.adapter.clone();
    let mut progress = RoundProgress::new(start);
    let _ = run_round(job, &mut progress, memory, |_| {
        std::ops::ControlFlow::Continue(())
    })?;
    let end = &progress.state.adapter;
    let (package, feedback) = compress_round(job, &start_adapter, end, feedback)?;
    let feedback_hash = hash_floats(&feedback);
    Ok(ReplayedMiner {
        package: package.hash(),
        feedback,
        feedback_hash,
    })
}

/// Why a miner's round could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A step could not be computed.
    #[error("the round could not be replayed")]
    Step(#[from] crate::step::StepError),
    /// The packaging could not be computed.
    #[error("the packaging could not be replayed")]
    Finish(#[from] crate::round::FinishError),
}
