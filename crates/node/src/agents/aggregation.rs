//! The next adapter from a round's packages: what a proposer posts and a validator attests.

use anyhow::Context as _;
use r3mes_training::{
    agent::RoundKey,
    aggregate::aggregate,
    package::{Package, Shape},
    state::{StepState, encode_floats, hash_floats},
};
use r3mes_types::{
    Hash,
    task::AdapterRef,
    training::{MinerPackage, Obligation},
};

use super::{
    bench::{Bench, fetch_adapter},
    context::Context,
    workshop::{adapter_pin, pin},
};

/// Fetches a miner's package and checks it against its recorded hash.
///
/// # Errors
/// When it cannot be had, or is not what was recorded.
pub(super) async fn fetch_package(
    agent: &Context,
    package: &MinerPackage,
    pin: &str,
) -> anyhow::Result<Vec<u8>> {
    let recorded = &package.package;
    let bytes = agent
        .depot
        .get(recorded.cid, recorded.bytes, Some(package.miner), pin)
        .await?;
    let hash = Hash::of(&bytes);
    anyhow::ensure!(
        hash == recorded.hash && bytes.len() as u64 == recorded.bytes,
        "the package of {} has hash {hash} and {} bytes, the ledger says {} and {}",
        package.miner,
        bytes.len(),
        recorded.hash,
        recorded.bytes
    );
    Ok(bytes)
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
