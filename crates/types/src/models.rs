//! Models: which models the network trains and serves, and their versions.

use crate::query::{MAX_PAGE, MAX_PAGE_KEY, PageRequest};
use crate::wire::{Blob, List, Text};
use crate::{Address, Amount, Cid, Hash, Time, messages, queries, schema};

/// Longest name of a model, in bytes.
pub const MAX_NAME: usize = 64;
/// Longest name of a licence, in bytes.
pub const MAX_LICENCE: usize = 64;

messages! {
    /// Messages about models.
    pub enum ModelsMessage {
        "/r3mes.models.v1.MsgRegisterModel" => RegisterModel(MsgRegisterModel) by authority,
    }
}

schema! {
    /// What a model is.
    pub struct ModelSpec {
        /// BLAKE3 of the packed file: the model's id.
        1 => id: Hash,
        /// A name for people and for the API; unique.
        2 => name: Text<MAX_NAME>,
        /// The packed file.
        3 => base: Cid,
        /// Its length in bytes.
        4 => base_bytes: u64,
        /// The tokenizer file.
        5 => tokenizer: Cid,
        /// BLAKE3 of the tokenizer file.
        6 => tokenizer_hash: Hash,
        /// Version of the exact arithmetic it runs under.
        7 => exact_version: u32,
        /// Memory a node needs to serve it, in MiB.
        8 => memory_mib: u32,
        /// Price of a million tokens, in and out alike.
        9 => price_per_million_tokens: Amount,
        /// Licence of the weights.
        10 => licence: Text<MAX_LICENCE>,
    }

    /// Registers a model; the sender must be the network's authority. Elsewhere governance does it.
    pub struct MsgRegisterModel {
        /// The network's authority.
        1 => authority: Address,
        /// The model.
        2 => spec: ModelSpec,
    }

    /// A registered model.
    pub struct Model {
        /// What it is.
        1 => spec: ModelSpec,
        /// When it was registered.
        2 => registered_at: Time,
        /// How many versions there are; the last one has this number. 0: the base alone.
        3 => versions: u32,
    }

    /// An adapter that a training round left behind.
    pub struct Version {
        /// The model.
        1 => model: Hash,
        /// Its number, from 1.
        2 => number: u32,
        /// The run that trained it.
        3 => run: u64,
        /// The round that trained it.
        4 => round: u64,
        /// The adapter file.
        5 => adapter: Cid,
        /// BLAKE3 of the adapter.
        6 => adapter_hash: Hash,
        /// When the round closed.
        7 => registered_at: Time,
    }

    /// Asks for a model.
    #[derive(Copy)]
    pub struct QueryModel {
        /// Its id.
        1 => id: Hash,
    }

    /// The answer to [`QueryModel`].
    pub struct ModelAnswer {
        /// The model, if it is registered.
        1 => model: Option<Model>,
        /// Its newest version, if there is one.
        2 => newest: Option<Version>,
    }

    /// Asks for all models, ascending by id.
    #[derive(Default)]
    pub struct QueryModels {
        /// Which part.
        1 => page: Option<PageRequest>,
    }

    /// A page of models.
    pub struct Models {
        /// The models.
        1 => models: List<Model, MAX_PAGE>,
        /// Where the next page begins; empty at the end.
        2 => next: Blob<MAX_PAGE_KEY>,
    }

    /// Asks for a model's versions, ascending by number.
    pub struct QueryVersions {
        /// The model.
        1 => model: Hash,
        /// Which part.
        2 => page: Option<PageRequest>,
    }

    /// A page of versions.
    pub struct Versions {
        /// The versions.
        1 => versions: List<Version, MAX_PAGE>,
        /// Where the next page begins; empty at the end.
        2 => next: Blob<MAX_PAGE_KEY>,
    }
}

queries! {
    "/r3mes.models.v1.Query/Model" => QueryModel: ModelAnswer,
    "/r3mes.models.v1.Query/Models" => QueryModels: Models,
    "/r3mes.models.v1.Query/Versions" => QueryVersions: Versions,
}
