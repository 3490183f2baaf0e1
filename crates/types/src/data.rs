//! Data: sets of token-id shards that the validators have agreed to train on.

use crate::query::{MAX_PAGE, MAX_PAGE_KEY, PageRequest};
use crate::wire::{Blob, List, Text};
use crate::{Address, Cid, Hash, Millis, Time, messages, queries, schema, wire_enum};

/// Longest name of a dataset, in bytes.
pub const MAX_NAME: usize = 64;
/// Longest name of a licence, in bytes.
pub const MAX_LICENCE: usize = 64;
/// Longest statement of where the text comes from, in bytes.
pub const MAX_SOURCE: usize = 512;
/// Most shards of one dataset.
pub const MAX_SHARDS: usize = 1024;

messages! {
    /// Messages about datasets.
    pub enum DataMessage {
        "/r3mes.data.v1.MsgProposeDataset" => ProposeDataset(MsgProposeDataset) by proposer,
        "/r3mes.data.v1.MsgVoteDataset" => VoteDataset(MsgVoteDataset) by voter,
    }
}

wire_enum! {
    /// Where a dataset stands.
    pub enum DatasetStatus {
        /// The validators vote.
        Proposed = 1 => "proposed",
        /// Runs may use it.
        Adopted = 2 => "adopted",
        /// Voted down, or not enough votes in time.
        Rejected = 3 => "rejected",
    }
}

schema! {
    /// A file of token ids.
    #[derive(Copy)]
    pub struct DataShard {
        /// The file.
        1 => cid: Cid,
        /// How many token ids it holds.
        2 => tokens: u64,
    }

    /// What a dataset is.
    pub struct DatasetSpec {
        /// A name for people.
        1 => name: Text<MAX_NAME>,
        /// Licence of the texts.
        2 => licence: Text<MAX_LICENCE>,
        /// Where the texts come from.
        3 => source: Text<MAX_SOURCE>,
        /// BLAKE3 of the tokenizer file that made the token ids.
        4 => tokenizer_hash: Hash,
        /// The shards to train on; at least one.
        5 => shards: List<DataShard, MAX_SHARDS>,
        /// Text held out from every shard, to measure on.
        6 => held_out: Option<DataShard>,
    }

    /// Proposes a dataset. Adopted at once if the proposer is the network's authority.
    pub struct MsgProposeDataset {
        /// Who proposes.
        1 => proposer: Address,
        /// The dataset.
        2 => spec: DatasetSpec,
    }

    /// A validator's vote on a dataset.
    #[derive(Copy)]
    pub struct MsgVoteDataset {
        /// The validator's node.
        1 => voter: Address,
        /// Number of the dataset.
        2 => dataset: u64,
        /// For or against.
        3 => approve: bool,
    }

    /// Parameters of data.
    #[derive(Copy)]
    pub struct DataParams {
        /// How long validators can vote on a dataset.
        1 => voting: Millis,
    }

    /// A dataset as the ledger keeps it; its shards are kept one by one.
    pub struct Dataset {
        /// Its number.
        1 => id: u64,
        /// Hash of what was proposed.
        2 => content: Hash,
        /// A name for people.
        3 => name: Text<MAX_NAME>,
        /// Licence of the texts.
        4 => licence: Text<MAX_LICENCE>,
        /// Where the texts come from.
        5 => source: Text<MAX_SOURCE>,
        /// BLAKE3 of the tokenizer file.
        6 => tokenizer_hash: Hash,
        /// How many shards there are.
        7 => shards: u32,
        /// Token ids in all shards together.
        8 => tokens: u64,
        /// Text held out from every shard.
        9 => held_out: Option<DataShard>,
        /// Who proposed it.
        10 => proposer: Address,
        /// Where it stands.
        11 => status: DatasetStatus,
        /// When voting ends.
        12 => voting_ends_at: Time,
    }

    /// Asks for a dataset.
    #[derive(Copy)]
    pub struct QueryDataset {
        /// Its number.
        1 => id: u64,
    }

    /// The answer to [`QueryDataset`].
    pub struct DatasetAnswer {
        /// The dataset, if there is one.
        1 => dataset: Option<Dataset>,
        /// Its shards, in order.
        2 => shards: List<DataShard, MAX_SHARDS>,
    }

    /// Asks for all datasets, ascending by number.
    #[derive(Default)]
    pub struct QueryDatasets {
        /// Which part.
        1 => page: Option<PageRequest>,
    }

    /// A page of datasets.
    pub struct Datasets {
        /// The datasets.
        1 => datasets: List<Dataset, MAX_PAGE>,
        /// Where the next page begins; empty at the end.
        2 => next: Blob<MAX_PAGE_KEY>,
    }
}

queries! {
    "/r3mes.data.v1.Query/Dataset" => QueryDataset: DatasetAnswer,
    "/r3mes.data.v1.Query/Datasets" => QueryDatasets: Datasets,
}
