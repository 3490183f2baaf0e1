//! The durable record of blocks: what was decided, what came of it, and where each transaction is.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use redb::backends::InMemoryBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use tendermint::Hash;
use tendermint::block::{Block, Commit};
use tendermint_proto::Protobuf;
use tendermint_proto::v0_38::types as pb;

use crate::application::{BlockInput, BlockOutput, CommitVote, TxHash};
use crate::block::{self, SignedBlock, tx_hash};
use crate::genesis::Genesis;
use crate::results;

/// Format of the database. A database of another format is refused.
const FORMAT: &[u8] = b"1";
/// Memory for pages read from disk, in bytes.
const CACHE_BYTES: usize = 32 << 20;

/// `"format"`, and `"genesis"`: hash of the genesis of the chain whose blocks these are.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Height -> protobuf of the block.
const BLOCKS: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");
/// Height -> protobuf of the commit that signs the block.
const COMMITS: TableDefinition<u64, &[u8]> = TableDefinition::new("commits");
/// Height -> protobuf of the results.
const RESULTS: TableDefinition<u64, &[u8]> = TableDefinition::new("results");
/// Hash of a header -> height.
const HEIGHTS: TableDefinition<&[u8; 32], u64> = TableDefinition::new("heights");
/// Hash of a transaction -> height of its block, and its place there.
const TXS: TableDefinition<&[u8; 32], (u64, u32)> = TableDefinition::new("txs");

/// Blocks with their results. Cloning gives another handle to the same store.
#[derive(Clone)]
pub struct BlockStore {
    database: Arc<Database>,
}

/// The block store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the block store {path} is in use by another process: stop that one first")]
    InUse {
        /// The file.
        path: String,
    },
    /// The database failed.
    #[error("{doing} the block store failed: check the disk that holds it")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        #[source]
        source: Box<redb::Error>,
    },
    /// The store holds something that this program does not write.
    #[error("the block store holds a damaged {what} at height {height}: restore it from a copy")]
    Damaged {
        /// The kind of record.
        what: &'static str,
        /// Its height.
        height: u64,
    },
    /// The store was written by another version of this program.
    #[error(
        "the block store has another format than this program's: use the program that wrote it"
    )]
    Format,
}

impl BlockStore {
    /// Opens the store in the file `path`, or makes one.
    ///
    /// # Errors
    /// [`StoreError`] if the file is in use, damaged, of another format, or cannot be written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let name = path.as_ref().display().to_string();
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: name },
                error => failed("opening")(error.into()),
            })?;
        Self::start(database)
    }

    /// An empty store in memory.
    ///
    /// # Errors
    /// [`StoreError`] if memory is short.
    pub fn memory() -> Result<Self, StoreError> {
        let database = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .map_err(|error| failed("opening")(error.into()))?;
        Self::start(database)
    }

    fn start(database: Database) -> Result<Self, StoreError> {
        if create_tables(&database).map_err(failed("opening"))? {
            let database = Arc::new(database);
            Ok(Self { database })
        } else {
            Err(StoreError::Format)
        }
    }

    /// Height of the newest block.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the store cannot be read, here and below.
    pub fn height(&self) -> Result<Option<u64>, StoreError> {
        self.read(|transaction| {
            let blocks = transaction.open_table(BLOCKS)?;
            Ok(blocks.last()?.map(|(height, _)| height.value()))
        })
    }

    /// Height of the oldest block.
    ///
    /// # Errors
    /// As [`BlockStore::height`].
    pub fn base(&self) -> Result<Option<u64>, StoreError> {
        self.read(|transaction| {
            let blocks = transaction.open_table(BLOCKS)?;
            Ok(blocks.first()?.map(|(height, _)| height.value()))
        })
    }

    /// The block at `height` with its commit.
    ///
    /// # Errors
    /// As [`BlockStore::height`], and [`StoreError::Damaged`].
    pub fn block(&self, height: u64) -> Result<Option<SignedBlock>, StoreError> {
        let found = self.read(|transaction| {
            let block = transaction.open_table(BLOCKS)?.get(height)?;
            let commit = transaction.open_table(COMMITS)?.get(height)?;
            let bytes = block.zip(commit);
            Ok(bytes.map(|(block, commit)| (block.value().to_vec(), commit.value().to_vec())))
        })?;
        let Some((bytes, commit)) = found else {
            return Ok(None);
        };
        let damaged = |what| StoreError::Damaged { what, height };
        let block: Block =
            Protobuf::<pb::Block>::decode(bytes.as_slice()).map_err(|_| damaged("block"))?;
        let commit = pb::Commit::decode(commit.as_slice())
            .ok()
            .and_then(|commit| Commit::try_from(commit).ok())
            .ok_or_else(|| damaged("commit"))?;
        Ok(Some(SignedBlock {
            block,
            id: commit.block_id,
            size: bytes.len(),
            commit,
        }))
    }

    /// What came of the block at `height`.
    ///
    /// # Errors
    /// As [`BlockStore::block`].
    pub fn results(&self, height: u64) -> Result<Option<BlockOutput>, StoreError> {
        let found = self.read(|transaction| {
            let results = transaction.open_table(RESULTS)?.get(height)?;
            Ok(results.map(|results| results.value().to_vec()))
        })?;
        let damaged = StoreError::Damaged {
            what: "result",
            height,
        };
        found
            .map(|bytes| results::decode(&bytes).ok_or(damaged))
            .transpose()
    }

    /// Height of the block with the header hash `hash`.
    ///
    /// # Errors
    /// As [`BlockStore::height`].
    pub fn height_of(&self, hash: &[u8; 32]) -> Result<Option<u64>, StoreError> {
        self.read(|transaction| {
            let height = transaction.open_table(HEIGHTS)?.get(hash)?;
            Ok(height.map(|height| height.value()))
        })
    }

    /// Height and place of the transaction with the hash `hash`; the newest, if its bytes stand in
    /// several blocks.
    ///
    /// # Errors
    /// As [`BlockStore::height`].
    pub fn tx(&self, hash: &TxHash) -> Result<Option<(u64, u32)>, StoreError> {
        self.read(|transaction| {
            let place = transaction.open_table(TXS)?.get(hash)?;
            Ok(place.map(|place| place.value()))
        })
    }

    /// What the application was given at `height`. Feeding the inputs of all heights in order to an
    /// application with the same genesis gives the same hashes.
    ///
    /// # Errors
    /// As [`BlockStore::block`].
    pub fn input(&self, genesis: &Genesis, height: u64) -> Result<Option<BlockInput>, StoreError> {
        let signed = self.block(height)?;
        Ok(signed.map(|signed| input(genesis, &signed.block)))
    }

    /// Writes a block and waits for the disk.
    pub(crate) fn save_block(&self, signed: &SignedBlock) -> Result<(), StoreError> {
        let height = signed.height();
        let commit = pb::Commit::from(signed.commit.clone()).encode_to_vec();
        self.write(Durability::Immediate, |transaction| {
            let bytes = block::encode(&signed.block);
            transaction
                .open_table(BLOCKS)?
                .insert(height, bytes.as_slice())?;
            transaction
                .open_table(COMMITS)?
                .insert(height, commit.as_slice())?;
            if let Hash::Sha256(hash) = signed.id.hash {
                transaction.open_table(HEIGHTS)?.insert(&hash, height)?;
            }
            let mut txs = transaction.open_table(TXS)?;
            for (index, tx) in (0u32..).zip(&signed.block.data) {
                txs.insert(&tx_hash(tx), (height, index))?;
            }
            Ok(())
        })
    }

    /// Writes results without waiting for the disk; the next block's write takes them along.
    pub(crate) fn save_results(&self, height: u64, output: &BlockOutput) -> Result<(), StoreError> {
        self.write(Durability::None, |transaction| {
            let bytes = results::encode(output);
            transaction
                .open_table(RESULTS)?
                .insert(height, bytes.as_slice())?;
            Ok(())
        })
    }

    /// Hash of the genesis that the blocks belong to; set by the first caller.
    pub(crate) fn genesis(&self, ours: &[u8; 32]) -> Result<[u8; 32], StoreError> {
        let mut found = *ours;
        self.write(Durability::Immediate, |transaction| {
            let mut meta = transaction.open_table(META)?;
            let stored = meta.get("genesis")?.map(|hash| hash.value().to_vec());
            match stored {
                Some(hash) => {
                    found = hash.try_into().unwrap_or_default();
                }
                None => {
                    meta.insert("genesis", ours.as_slice())?;
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Waits until everything written is on disk.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |_| Ok(()))
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.database
            .begin_read()
            .map_err(redb::Error::from)
            .and_then(|transaction| read(&transaction))
            .map_err(failed("reading"))
    }

    fn write(
        &self,
        durability: Durability,
        write: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let run = || {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(durability)?;
            write(&transaction)?;
            transaction.commit()?;
            Ok(())
        };
        run().map_err(failed("writing"))
    }
}

impl fmt::Debug for BlockStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockStore").finish_non_exhaustive()
    }
}

/// What the application is given for `block` under engine `local`, where every block is signed by
/// the one validator there is.
pub(crate) fn input(genesis: &Genesis, block: &Block) -> BlockInput {
    let proposer = |id: tendermint::account::Id| {
        let bytes: [u8; 20] = id
            .as_bytes()
            .try_into()
            .expect("an account id has 20 bytes");
        bytes.into()
    };
    let signatures = block
        .last_commit
        .iter()
        .flat_map(|commit| &commit.signatures);
    BlockInput {
        height: block.header.height.value(),
        time: block::from_tendermint_time(block.header.time),
        proposer: proposer(block.header.proposer_address),
        last_commit: signatures
            .filter_map(|signature| signature.validator_address())
            .map(|validator| CommitVote {
                validator: proposer(validator),
                power: u64::from(genesis.local_power),
                signed: true,
            })
            .collect(),
        misbehaviour: Vec::new(),
        txs: block.data.clone(),
    }
}

fn failed(doing: &'static str) -> impl Fn(redb::Error) -> StoreError {
    move |source| StoreError::Database {
        doing,
        source: Box::new(source),
    }
}

/// Makes what is missing; whether the format is ours.
fn create_tables(database: &Database) -> Result<bool, redb::Error> {
    let transaction = database.begin_write()?;
    let ours = {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get("format")?.map(|format| format.value().to_vec());
        if found.is_none() {
            meta.insert("format", FORMAT)?;
        }
        found.is_none_or(|found| found == FORMAT)
    };
    if ours {
        transaction.open_table(BLOCKS)?;
        transaction.open_table(COMMITS)?;
        transaction.open_table(RESULTS)?;
        transaction.open_table(HEIGHTS)?;
        transaction.open_table(TXS)?;
    }
    transaction.commit()?;
    Ok(ours)
}
