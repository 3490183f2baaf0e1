//! The chain under engine `local`, one step at a time and without any waiting.
//!
//! The order of writes makes every crash harmless. A block is durable before it is executed; its
//! results are durable, with the next block, before the state after it is. What a crash takes away is
//! therefore always the newest states, and [`Chain::open`] executes their blocks again.

use std::sync::Arc;

use r3mes_types::Time;
use sha2::{Digest, Sha256};

use crate::application::{Application, BlockOutput, Committed, Proposal};
use crate::block::{self, BLOCK_OVERHEAD_BYTES, SignedBlock, Tip, results_hash};
use crate::genesis::Genesis;
use crate::key::ValidatorKey;
use crate::local::EngineError;
use crate::store::{BlockStore, input};

/// The least time between two blocks, as in CometBFT, in nanoseconds.
const TIME_STEP_NANOS: u64 = 1_000_000;

pub(crate) struct Chain {
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) app: Arc<dyn Application>,
    pub(crate) store: BlockStore,
    pub(crate) tip: Tip,
    key: ValidatorKey,
    /// Every how many blocks the state is waited for.
    sync_every: u64,
}

impl Chain {
    /// Brings the application to the newest block: begins the chain if there is none yet, and executes
    /// again what a crash took away.
    pub(crate) fn open(
        genesis: Arc<Genesis>,
        key: ValidatorKey,
        app: Arc<dyn Application>,
        store: BlockStore,
        sync_every: u64,
    ) -> Result<Self, EngineError> {
        let fingerprint = fingerprint(&genesis);
        if store.genesis(&fingerprint)? != fingerprint {
            return Err(EngineError::Genesis);
        }
        let before_first = genesis.initial_height - 1;
        let mut committed = match app.committed()? {
            Some(committed) => committed,
            None => Committed {
                height: before_first,
                app_hash: app.init_chain()?.app_hash,
            },
        };
        let stored = store.height()?.unwrap_or(before_first);
        if committed.height > stored {
            return Err(EngineError::StateAhead {
                state: committed.height,
                blocks: stored,
            });
        }
        for height in committed.height + 1..=stored {
            let _executing = tracing::info_span!("consensus.block.execute", height).entered();
            tracing::info!("executing a block again");
            let signed = stored_block(&store, height)?;
            if signed.block.header.app_hash.as_bytes() != committed.app_hash {
                return Err(EngineError::Diverged { height });
            }
            let output = app.finalize(&input(&genesis, &signed.block))?;
            store.save_results(height, &output)?;
            app.commit()?;
            committed = Committed {
                height,
                app_hash: output.app_hash,
            };
        }
        let tip = tip(&genesis, &key, &store, app.as_ref(), committed)?;
        Ok(Self {
            genesis,
            app,
            store,
            tip,
            key,
            sync_every,
        })
    }

    /// The next block, of `candidates` and whatever the application adds, signed but not yet saved.
    pub(crate) fn propose(
        &self,
        now: Time,
        candidates: &[Vec<u8>],
    ) -> Result<SignedBlock, EngineError> {
        let earliest = Time::from_nanos(self.tip.time.nanos() + TIME_STEP_NANOS);
        let time = now.max(earliest);
        let height = self.tip.height + 1;
        let txs = self.app.prepare(Proposal {
            height,
            time,
            proposer: self.key.address(),
            txs: candidates,
            max_bytes: self.genesis.max_block_bytes - BLOCK_OVERHEAD_BYTES,
        })?;
        let signed = block::build(&self.genesis, &self.tip, &self.key, time, txs);
        if let Err(reason) = self.app.process(&input(&self.genesis, &signed.block))? {
            return Err(EngineError::OwnBlockRejected { height, reason });
        }
        Ok(signed)
    }

    /// Makes the block durable, and with it the results of the one before; every so often also the
    /// state before it.
    pub(crate) fn save(&self, signed: &SignedBlock) -> Result<(), EngineError> {
        self.store.save_block(signed)?;
        if signed.height().is_multiple_of(self.sync_every) {
            self.app.sync()?;
        }
        Ok(())
    }

    /// Executes a saved block.
    pub(crate) fn execute(&self, signed: &SignedBlock) -> Result<BlockOutput, EngineError> {
        Ok(self.app.finalize(&input(&self.genesis, &signed.block))?)
    }

    /// Writes down what the block did.
    pub(crate) fn record(
        &self,
        signed: &SignedBlock,
        output: &BlockOutput,
    ) -> Result<(), EngineError> {
        Ok(self.store.save_results(signed.height(), output)?)
    }

    /// Makes the block's state the newest.
    pub(crate) fn commit(
        &mut self,
        signed: &SignedBlock,
        output: &BlockOutput,
    ) -> Result<(), EngineError> {
        self.app.commit()?;
        self.tip = after(signed, output);
        Ok(())
    }

    /// Waits until everything is on disk.
    pub(crate) fn sync(&self) -> Result<(), EngineError> {
        self.store.sync()?;
        Ok(self.app.sync()?)
    }
}

fn tip(
    genesis: &Genesis,
    key: &ValidatorKey,
    store: &BlockStore,
    app: &dyn Application,
    committed: Committed,
) -> Result<Tip, EngineError> {
    let height = committed.height;
    if height < genesis.initial_height {
        return Ok(Tip {
            height,
            time: genesis.time,
            signed: None,
            app_hash: committed.app_hash,
            results_hash: results_hash(&[]),
        });
    }
    let signed = stored_block(store, height)?;
    if signed.block.header.validators_hash != block::validators(genesis, key).hash() {
        return Err(EngineError::Key { height });
    }
    let output = match store.results(height)? {
        Some(output) => output,
        None => {
            let output = app.finalize(&input(genesis, &signed.block))?;
            store.save_results(height, &output)?;
            output
        }
    };
    if output.app_hash != committed.app_hash {
        return Err(EngineError::Diverged { height });
    }
    Ok(after(&signed, &output))
}

fn after(signed: &SignedBlock, output: &BlockOutput) -> Tip {
    Tip {
        height: signed.height(),
        time: block::from_tendermint_time(signed.block.header.time),
        signed: Some((signed.id, signed.commit.clone())),
        app_hash: output.app_hash,
        results_hash: results_hash(&output.tx_results),
    }
}

fn stored_block(store: &BlockStore, height: u64) -> Result<SignedBlock, EngineError> {
    store
        .block(height)?
        .ok_or(EngineError::MissingBlock { height })
}

/// Tells chains apart, so that a store is never continued under another genesis.
fn fingerprint(genesis: &Genesis) -> [u8; 32] {
    let gas = genesis.max_block_gas.map_or(u64::MAX, |gas| gas);
    let numbers = [
        genesis.time.nanos(),
        genesis.initial_height,
        genesis.max_block_bytes as u64,
        gas,
        u64::from(genesis.local_power),
    ];
    let mut hasher = Sha256::new();
    hasher.update(genesis.chain_id.as_bytes());
    for number in numbers {
        hasher.update(number.to_le_bytes());
    }
    hasher.finalize().into()
}
