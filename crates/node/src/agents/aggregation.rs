//! The next adapter from a round's packages: what a proposer posts and a validator attests.

use anyhow::Context as _;
use r3mes_training::{
    agent::RoundKey,
    aggregate::aggregate,
    package::{Package, Shape},
    state::{StepState, encode_floats, hash_floats},
};
use r3mes_types::{
    Address, Hash,
    task::AdapterRef,
    training::{MinerPackage, Obligation},
};

use super::{
    bench::{Bench, fetch_adapter},
    context::Context,
    depot::DepotError,
    workshop::{adapter_pin, pin},
};

/// Why a miner's package is not here.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackageError {
    /// It was not to be had.
    #[error("the package of {miner} is not here")]
    Absent {
        /// Whose package.
        miner: Address,
        /// Why not.
        #[source]
        source: DepotError,
    },
    /// It is another one.
    #[error(
        "the package of {miner} has hash {} and {} bytes, the ledger says {} and {}",
        found.0, found.1, recorded.0, recorded.1
    )]
    Another {
        /// Whose package.
        miner: Address,
        /// Its hash and its length.
        found: (Hash, u64),
        /// What the ledger says of them.
        recorded: (Hash, u64),
    },
}

impl PackageError {
    /// Whether it lies with the miner, and with nothing of this node.
    pub(super) fn is_of_the_miner(&self) -> bool {
        match self {
            Self::Absent { source, .. } => source.is_of_others(),
            Self::Another { .. } => true,
        }
    }
}

/// Fetches a miner's package and checks it against its recorded hash.
///
/// # Errors
/// When it cannot be had, or is not what was recorded.
pub(super) async fn fetch_package(
    agent: &Context,
    package: &MinerPackage,
    pin: &str,
) -> Result<Vec<u8>, PackageError> {
    let (miner, recorded) = (package.miner, &package.package);
    let depot = &agent.depot;
    let got = depot.get(recorded.cid, recorded.bytes, Some(miner), pin);
    let bytes = got
        .await
        .map_err(|source| PackageError::Absent { miner, source })?;
    let found = (Hash::of(&bytes), bytes.len() as u64);
    let recorded = (recorded.hash, recorded.bytes);
    match found == recorded {
        true => Ok(bytes),
        false => Err(PackageError::Another {
            miner,
            found,
            recorded,
        }),
    }
}

/// Computes the aggregate that an obligation asks for and stores its bytes.
///
/// # Errors
/// When anything cannot be fetched or does not fit.
pub(super) async fn compute(
    agent: &Context,
    bench: &mut Bench,
    owed: &Obligation,
) -> anyhow::Result<AdapterRef> {
    let asked = owed
        .aggregation
        .as_ref()
        .context("the ledger named nothing to aggregate")?;
    let round = RoundKey::of(owed);
    let pin = pin(round);
    bench
        .prepare_model(&agent.depot, &agent.chain, asked.model)
        .await?;
    let start = fetch_adapter(&agent.depot, &asked.start, &pin).await?;
    let start = bench.adapter(
        asked.model,
        &asked.hyper,
        &asked.adapter_seed,
        start.as_deref(),
    )?;
    anyhow::ensure!(
        start.hash() == asked.start.adapter,
        "the start adapter is not the one the ledger names"
    );
    let start = start.into_numbers();
    let shape = Shape::new(
        start.len(),
        asked.hyper.chunk as usize,
        asked.hyper.top_k as usize,
    )?;
    let mut packages = Vec::new();
    for package in &owed.packages {
        let bytes = fetch_package(agent, package, &pin).await?;
        packages.push(Package::decode(&bytes, shape)?);
    }
    let next = tokio::task::block_in_place(|| aggregate(&start, &packages))?.adapter;
    let adapter = hash_floats(&next);
    let bytes = encode_floats(&next);
    let state = StepState::start(next).hash();
    let cid = agent.depot.put(bytes, &adapter_pin(round)).await?;
    Ok(AdapterRef {
        cid: Some(cid),
        adapter,
        state,
    })
}
