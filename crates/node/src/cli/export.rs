//! `r3mes export`, and the homes of the network that goes on from it.

use std::{fs, path::Path};

use anyhow::Context;
use r3mes_consensus::{app::storage_options, store::BlockStore};
use r3mes_ledger::{
    export::{self, OpenRounds},
    genesis::{Genesis, GenesisValidator},
};
use r3mes_state::{Snapshot, Storage};
use r3mes_types::{
    Hash, Role, UREMES_PER_REMES, beacon::HashChain, nodes::QueryNode, query::Query, wire::Wire,
};
use serde::Serialize;

use super::{
    args::{Export, Overrides},
    output::Output,
};
use crate::{
    clock,
    config::{CometBft, Config, Engine, Ledger},
    genesis,
    home::Home,
    keyring::Keyring,
    process::HomeLock,
    services::inspect::Inspected,
};

#[derive(Serialize)]
struct Exported {
    file: String,
    hash: String,
    chain_id: String,
    initial_height: u64,
    entries: usize,
}

/// Writes the genesis of a network that goes on from this home's ledger.
pub(super) fn run(
    home: &Home,
    typed: &Export,
    overrides: &Overrides,
    out: &Output,
) -> anyhow::Result<()> {
    let config = super::load(home, overrides)?;
    let _lock = HomeLock::take(home).context("stop the node before its ledger is exported")?;
    let settings = config.services.ledger.unwrap_or_default();
    // A database that is dropped is closed under those who read it.
    let storage = open_state(home, &settings)?;
    let state = storage.latest()?;
    let plan = plan(home, typed, &state)?;
    let genesis = export::export(&state, &plan)
        .context("cannot export; --abort-rounds ends rounds that are open")?;
    let bytes = genesis.encode();
    fs::write(&typed.output, &bytes)
        .with_context(|| format!("cannot write {}", typed.output.display()))?;
    let exported = Exported {
        file: typed.output.display().to_string(),
        hash: Hash::of(&bytes).to_string(),
        chain_id: typed.chain_id.clone(),
        initial_height: genesis.initial_height(),
        entries: genesis
            .continued
            .map_or(0, |continued| continued.state.len()),
    };
    out.show(&exported, || {
        format!(
            "{} goes on from height {} in {} ({} entries, hash {})\nMake its home with: r3mes --home NEW init --genesis {2} --from {}",
            exported.chain_id,
            exported.initial_height,
            exported.file,
            exported.entries,
            exported.hash,
            home.root().display()
        )
    })
}

/// Opens the state of this home's ledger, and sees that it is that of the newest block.
fn open_state(home: &Home, settings: &Ledger) -> anyhow::Result<Storage> {
    let path = home.data("ledger").join("state.redb");
    anyhow::ensure!(
        path.is_file(),
        "{} holds no ledger of its own: export where the network's ledger runs",
        home.root().display()
    );
    let mut options = storage_options();
    options.keep_versions = settings.keep_versions;
    let storage = Storage::open(path, options)?;
    let version = storage.version()?.with_context(|| {
        format!(
            "the ledger of {} has not begun: start it first",
            home.root().display()
        )
    })?;
    match settings.engine {
        Engine::Local => require_all_blocks(&home.data("ledger").join("blocks.redb"), version)?,
        Engine::Cometbft => {
            let first = genesis::read(home)?.initial_height();
            let root = storage.latest()?.root();
            super::runtime()?.block_on(async {
                let blocks = Inspected::open(home, settings)?;
                has_same_state(blocks, version, root, first).await
            })?;
        }
    }
    Ok(storage)
}

/// What the network begins with that goes on from a state: this home signs its first blocks.
fn plan(home: &Home, typed: &Export, state: &Snapshot) -> anyhow::Result<export::Plan> {
    let keyring = Keyring::new(home);
    let length = genesis::beacon_chain(&genesis::read(home)?)?;
    let secret = genesis::continued_secret(&*keyring.beacon_seed()?, &typed.chain_id);
    let key = keyring.consensus_key()?;
    let operator = keyring.account_address()?;
    let question = QueryNode { address: operator }.encode();
    let node = r3mes_ledger::Ledger::query(state, QueryNode::PATH, &question)?;
    let node = <QueryNode as Query>::Answer::decode(&node.value)?.node;
    // Where nodes sign blocks by their stake, this one's power is its own.
    let signs =
        node.filter(|node| node.is_active(Role::Validator) && node.spec.consensus_key == Some(key));
    Ok(export::Plan {
        chain_id: typed.chain_id.clone(),
        time: clock::now(),
        validators: vec![GenesisValidator {
            operator,
            key,
            power: signs.map_or(1, |node| (node.bonded.uremes() / UREMES_PER_REMES).max(1)),
            chain_end: HashChain::new(&secret, length).end(),
            chain_length: length,
        }],
        open_rounds: match typed.abort_rounds {
            true => OpenRounds::Abort,
            false => OpenRounds::Refuse,
        },
    })
}

/// After a kill the state can be some blocks behind those that engine `local` has stored; the next start
/// executes them again.
fn require_all_blocks(blocks: &Path, version: u64) -> anyhow::Result<()> {
    if !blocks.is_file() {
        return Ok(());
    }
    let newest = BlockStore::open(blocks)?.height()?.unwrap_or(version);
    anyhow::ensure!(
        newest <= version,
        "the state on disk is that after block {version}, and blocks up to {newest} are stored, as after a kill: start the node, stop it, and export again"
    );
    Ok(())
}

/// Compares the state with what CometBFT has stored: its newest block must be the one that the state is
/// after, and what it wrote down as the root after it must be the state's.
async fn has_same_state(
    blocks: Option<Inspected>,
    version: u64,
    root: [u8; 32],
    first: u64,
) -> anyhow::Result<()> {
    let newest = match &blocks {
        Some(blocks) => blocks.height().await?,
        None => 0,
    };
    if newest == 0 && version < first {
        // The genesis itself.
        return Ok(());
    }
    anyhow::ensure!(
        newest <= version,
        "the state on disk is that after block {version}, and CometBFT has blocks up to {newest}, as after a kill: start the node, stop it, and export again"
    );
    anyhow::ensure!(
        newest == version,
        "the state on disk is that after block {version}, and CometBFT has blocks up to {newest} only: its data are not those of this chain, or were removed"
    );
    if let Some(blocks) = blocks {
        let theirs = blocks.root_after(version).await?;
        anyhow::ensure!(
            theirs == root,
            "the state on disk has root {} after block {version}, and CometBFT wrote down {}: one of them is damaged; take a copy of the home from another node",
            hex::encode(root),
            hex::encode(theirs)
        );
    }
    Ok(())
}

/// Fills a home that goes on from another: its keys, its blobs, its roles' work, and the genesis.
pub(super) fn continue_home(
    home: &Home,
    config: &mut Config,
    file: &Path,
    from: &Home,
    engine: Option<Engine>,
) -> anyhow::Result<()> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let genesis =
        Genesis::decode(&bytes).with_context(|| format!("{} is not a genesis", file.display()))?;
    anyhow::ensure!(
        genesis.continued.is_some(),
        "{} is no genesis written by `r3mes export`",
        file.display()
    );
    let _lock = HomeLock::take(from).context("stop the old node before its home is copied")?;
    *config = Config::load(from)?;
    config.network.chain_id = genesis.chain_id.to_string();
    if let (Some(engine), Some(ledger)) = (engine, config.services.ledger.as_mut()) {
        ledger.engine = engine;
        if engine == Engine::Cometbft {
            let comet = ledger.cometbft.get_or_insert_with(CometBft::default);
            comet.state_sync = None;
        }
    }
    copy(&from.keys(), &home.keys(), &[])?;
    // The chain's own files stay behind: blocks, state and snapshots are the old network's.
    let ledger = ["state.redb", "blocks.redb", "snapshots"];
    let data = |home: &Home| home.root().join("data");
    copy(
        &data(from),
        &data(home),
        &["cometbft", "light.json", "ledger"],
    )?;
    copy(&from.data("ledger"), &home.data("ledger"), &ledger)?;
    fs::write(home.genesis_file(), bytes)
        .with_context(|| format!("cannot write {}", home.genesis_file().display()))
}

/// Copies a folder with everything in it but some names at its top. Permissions are copied too.
fn copy(from: &Path, to: &Path, without: &[&str]) -> anyhow::Result<()> {
    let failed = || format!("cannot copy {} to {}", from.display(), to.display());
    if !from.exists() {
        return Ok(());
    }
    fs::create_dir_all(to).with_context(failed)?;
    for entry in fs::read_dir(from).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        if without.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().with_context(failed)?;
        if kind.is_dir() {
            copy(&path, &target, &[])?;
        } else if kind.is_file() {
            fs::copy(&path, &target).with_context(failed)?;
        }
    }
    Ok(())
}
