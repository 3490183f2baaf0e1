//! Answers CometBFT's requests, one at a time and without any waiting.
//!
//! CometBFT keeps the blocks, and after any crash gives those again that [`Info`](Driver::info) does
//! not report. A block's state is on disk before `Commit` is answered, so nothing that was confirmed
//! is lost and nothing is executed twice on one state.
//!
//! Every transaction that CometBFT's mempool takes is in ours as well: CometBFT's carries them from
//! node to node, ours puts them in order and says what is dropped and why, as under engine `local`.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::{Arc, MutexGuard, PoisonError};

use r3mes_types::Time;
use tendermint_proto::v0_38::abci::{
    CheckTxType, RequestCheckTx, RequestInitChain, RequestPrepareProposal, ResponseCheckTx,
    ResponseCommit, ResponseEcho, ResponseExtendVote, ResponseFlush, ResponseInfo,
    ResponseInitChain, ResponsePrepareProposal, ResponseProcessProposal,
    ResponseVerifyVoteExtension, request, response, response_process_proposal::ProposalStatus,
    response_verify_vote_extension::VerifyStatus,
};

use crate::application::{BlockOutput, Proposal, QueryResult, TxResult};
use crate::block::{APP_VERSION, gas, tx_hash};
use crate::cometbft::convert::{self, Malformed};
use crate::cometbft::mailbox::Shared;
use crate::cometbft::snapshots::{SnapshotOptions, Snapshots};
use crate::cometbft::{EngineError, NAME};
use crate::mempool::AddError;
use crate::results;

/// Code of a transaction that there is no room for, in codespace `mempool`.
const NO_ROOM: u32 = 2;

/// Drives the application as CometBFT asks.
pub(super) struct Driver {
    shared: Arc<Shared>,
    /// The block that was executed and not yet committed. Held over whatever changes or reports what is
    /// committed, so that a CometBFT that was started again learns of what its predecessor still does.
    executed: Mutex<Option<Executed>>,
    snapshots: Snapshots,
    keep_blocks: Option<u64>,
}

struct Executed {
    height: u64,
    txs: Vec<Vec<u8>>,
    output: BlockOutput,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        snapshots: Option<SnapshotOptions>,
        keep_blocks: Option<u64>,
    ) -> Self {
        Self {
            shared,
            executed: Mutex::new(None),
            snapshots: Snapshots::new(snapshots),
            keep_blocks,
        }
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// When the application fails, or CometBFT asks what it never asks: the engine stops.
    pub(super) fn answer(&self, request: request::Value) -> Result<response::Value, EngineError> {
        use request::Value as Ask;
        use response::Value as Answer;
        Ok(match request {
            Ask::Echo(echo) => Answer::Echo(ResponseEcho {
                message: echo.message,
            }),
            Ask::Flush(_) => Answer::Flush(ResponseFlush {}),
            Ask::Info(_) => Answer::Info(self.info()?),
            Ask::InitChain(request) => Answer::InitChain(self.init_chain(&request)?),
            Ask::Query(request) => {
                // Anybody who reaches CometBFT's RPC asks this: nothing in it may stop the engine.
                let answer = match convert::query(request) {
                    Some(query) => self.shared.app.query(&query)?,
                    None => QueryResult::below_zero(),
                };
                Answer::Query(convert::answer(answer))
            }
            Ask::CheckTx(request) => Answer::CheckTx(self.check(request)?),
            Ask::PrepareProposal(request) => Answer::PrepareProposal(self.prepare(&request)?),
            Ask::ProcessProposal(request) => {
                let block = convert::proposed(request)?;
                let (height, proposer) = (block.height, block.proposer);
                let _judging =
                    tracing::info_span!("consensus.proposal.check", height, %proposer).entered();
                let status = match self.shared.app.process(&block)? {
                    Ok(()) => ProposalStatus::Accept,
                    Err(reason) => {
                        tracing::warn!(reason, "a proposal is refused");
                        ProposalStatus::Reject
                    }
                };
                Answer::ProcessProposal(ResponseProcessProposal {
                    status: status.into(),
                })
            }
            Ask::FinalizeBlock(request) => {
                let block = convert::decided(request)?;
                let _executing =
                    tracing::info_span!("consensus.block.execute", height = block.height).entered();
                let mut executed = self.executed();
                let output = self.shared.app.finalize(&block)?;
                let answer = results::to_abci(&output);
                *executed = Some(Executed {
                    height: block.height,
                    txs: block.txs,
                    output,
                });
                Answer::FinalizeBlock(answer)
            }
            Ask::Commit(_) => Answer::Commit(self.commit()?),
            Ask::ListSnapshots(_) => Answer::ListSnapshots(self.snapshots.list()),
            Ask::LoadSnapshotChunk(request) => {
                Answer::LoadSnapshotChunk(self.snapshots.load(&request))
            }
            Ask::OfferSnapshot(request) => {
                let app = self.shared.app.as_ref();
                Answer::OfferSnapshot(self.snapshots.offer(app, &request)?)
            }
            Ask::ApplySnapshotChunk(request) => {
                let _turn = self.executed();
                let app = self.shared.app.as_ref();
                let (answer, taken) = self.snapshots.apply(app, &request)?;
                if let Some(height) = taken {
                    tracing::info!(height, "the state comes from a snapshot");
                    self.shared.latest.send_replace(height);
                    self.shared.settled.send_replace(height);
                }
                Answer::ApplySnapshotChunk(answer)
            }
            other => without_extensions(&other),
        })
    }

    fn info(&self) -> Result<ResponseInfo, EngineError> {
        let _turn = self.executed();
        let committed = self.shared.app.committed()?;
        Ok(ResponseInfo {
            data: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            app_version: APP_VERSION,
            // Before the first block CometBFT begins the chain again, of whatever height that is.
            last_block_height: committed
                .filter(|committed| committed.height >= self.shared.genesis.initial_height)
                .map_or(0, |committed| gas(committed.height)),
            last_block_app_hash: committed
                .map(|committed| committed.app_hash.to_vec().into())
                .unwrap_or_default(),
        })
    }

    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, EngineError> {
        let genesis = &self.shared.genesis;
        let initial_height = convert::height(request.initial_height)?;
        let same = request.chain_id == genesis.chain_id.as_str()
            && convert::time(request.time)? == genesis.time
            && initial_height == genesis.initial_height;
        if !same {
            return Err(EngineError::Genesis {
                theirs: request.chain_id.clone(),
                ours: genesis.chain_id.to_string(),
            });
        }
        let _turn = self.executed();
        let init = self.shared.app.init_chain()?;
        self.shared.app.sync()?;
        let theirs: Option<BTreeSet<_>> = request
            .validators
            .iter()
            .map(|update| {
                let update = results::from_abci_update(update.clone())?;
                Some((*update.key.as_bytes(), update.power))
            })
            .collect();
        let ours: BTreeSet<_> = init
            .validators
            .iter()
            .map(|update| (*update.key.as_bytes(), update.power))
            .collect();
        if theirs.as_ref() != Some(&ours) {
            return Err(EngineError::Validators);
        }
        Ok(ResponseInitChain {
            consensus_params: None,
            validators: init
                .validators
                .iter()
                .map(results::to_abci_update)
                .collect(),
            app_hash: init.app_hash.to_vec().into(),
        })
    }

    fn check(&self, request: RequestCheckTx) -> Result<ResponseCheckTx, EngineError> {
        let shared = &self.shared;
        let hash = tx_hash(&request.tx);
        if request.r#type == i32::from(CheckTxType::Recheck) {
            // Checked in `commit` already, a moment ago.
            if let Some(why) = shared.mempool.dropped(&hash)
                && !shared.mempool.contains(&hash)
            {
                return Ok(convert::checked(why));
            }
        }
        let now = shared.clock.now();
        let checked = match shared
            .mempool
            .add(shared.app.as_ref(), now, request.tx.into())
        {
            Ok(added) => added.check,
            // CometBFT forgets what waits when it is started again; we do not.
            Err(AddError::Duplicate) => TxResult::default(),
            Err(AddError::Application { source }) => return Err(source.into()),
            Err(refused) => TxResult {
                code: NO_ROOM,
                codespace: "mempool".into(),
                log: refused.to_string(),
                ..TxResult::default()
            },
        };
        Ok(convert::checked(checked))
    }

    fn prepare(
        &self,
        request: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, EngineError> {
        let shared = &self.shared;
        let max_bytes = usize::try_from(request.max_tx_bytes)
            .map_err(|_| Malformed("a block of negative size"))?;
        let candidates = shared.mempool.candidates(max_bytes);
        let mut txs = shared.app.prepare(Proposal {
            height: convert::height(request.height)?,
            time: convert::time(request.time)?,
            proposer: convert::address(&request.proposer_address)?,
            txs: &candidates,
            max_bytes,
        })?;
        // CometBFT counts each transaction with its framing. The last may go: nothing rests on it.
        let mut size: usize = txs.iter().map(|tx| framed(tx)).sum();
        while let (true, Some(last)) = (size > max_bytes && txs.len() > 1, txs.last()) {
            size -= framed(last);
            txs.pop();
        }
        if let (1, Some(first)) = (txs.len(), candidates.first()) {
            // It had a whole block to itself and was left out.
            shared.mempool.drop_unfit(first);
        }
        Ok(ResponsePrepareProposal {
            txs: txs.into_iter().map(Into::into).collect(),
        })
    }

    fn commit(&self) -> Result<ResponseCommit, EngineError> {
        let mut turn = self.executed();
        let executed = turn
            .take()
            .ok_or(Malformed("Commit before FinalizeBlock"))?;
        let Executed {
            height,
            txs,
            output,
        } = executed;
        let _committing = tracing::info_span!("consensus.block.commit", height).entered();
        let shared = &self.shared;
        shared.app.commit()?;
        shared.app.sync()?;
        let now: Time = shared.clock.now();
        shared.included(height, &txs, output.tx_results);
        shared.latest.send_replace(height);
        shared.mempool.committed(shared.app.as_ref(), now, &txs)?;
        shared.settled.send_replace(height);
        self.snapshots.committed(shared.app.as_ref(), height)?;
        // 0 keeps all.
        let oldest = self
            .keep_blocks
            .map(|keep| (height + 1).saturating_sub(keep));
        Ok(ResponseCommit {
            retain_height: gas(oldest.unwrap_or_default()),
        })
    }

    fn executed(&self) -> MutexGuard<'_, Option<Executed>> {
        self.executed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a transaction within a block: tag and length before it.
fn framed(tx: &[u8]) -> usize {
    1 + prost::length_delimiter_len(tx.len()) + tx.len()
}

/// Votes carry no extensions.
fn without_extensions(request: &request::Value) -> response::Value {
    use request::Value as Ask;
    use response::Value as Answer;
    match request {
        Ask::VerifyVoteExtension(request) => {
            let status = match request.vote_extension.is_empty() {
                true => VerifyStatus::Accept,
                false => VerifyStatus::Reject,
            };
            Answer::VerifyVoteExtension(ResponseVerifyVoteExtension {
                status: status.into(),
            })
        }
        _ => Answer::ExtendVote(ResponseExtendVote::default()),
    }
}
