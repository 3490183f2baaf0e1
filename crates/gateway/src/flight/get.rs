//! From blobs to tables, for `DoGet` and for what is told of a flight.

use std::{fmt::Display, io::Read, ops::ControlFlow, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use flight_tonic::Status;
use r3mes_blobs::{BlobStore, Block, Cid, FileReader, GetError, StoreError};
use r3mes_training::{
    package::{DecodePackageError, Package},
    state::floats_from_bytes,
};

use super::{
    AdapterFacts,
    table::{adapter, bytes, package},
};

/// What is to be sent.
pub(super) enum Asked {
    Adapter(Cid, AdapterFacts),
    Package(Cid),
    Blob(Cid),
    Block(Cid),
}

/// A flight whose blob is here.
pub(super) struct Opened {
    pub(super) schema: SchemaRef,
    pub(super) cid: Cid,
    /// Rows.
    pub(super) records: u64,
    /// Length of the canonical bytes.
    pub(super) bytes: u64,
    content: Content,
}

enum Content {
    Adapter { row_numbers: usize },
    Package(Package),
    Blob,
    Block(Block),
}

/// Looks a flight's blob up. A package that takes more than `max_bytes`, encoded or decoded, is not
/// taken into memory.
pub(super) fn open(
    store: &dyn BlobStore,
    asked: Asked,
    max_bytes: usize,
) -> Result<Opened, Status> {
    match asked {
        Asked::Adapter(cid, facts) => {
            let schema = adapter::schema(&cid, &facts);
            let row_numbers = adapter::row_numbers(&schema);
            let bytes = file(store, &cid)?.size();
            if row_numbers == 0 || bytes != 4 * facts.layout.len() as u64 {
                return Err(Status::failed_precondition(format!(
                    "{cid} has {bytes} bytes, an adapter of its run has {} numbers of 4 bytes",
                    facts.layout.len()
                )));
            }
            Ok(Opened {
                schema,
                cid,
                records: bytes / (4 * row_numbers as u64),
                bytes,
                content: Content::Adapter { row_numbers },
            })
        }
        Asked::Package(cid) => {
            let encoded = store.get(&cid, max_bytes as u64).map_err(unreadable)?;
            let no_package = |error: DecodePackageError| {
                Status::failed_precondition(format!("{cid} is no package: {error}"))
            };
            let shape = Package::declared_shape(&encoded).map_err(no_package)?;
            package::ensure_fits(shape, max_bytes)?;
            let decoded = Package::decode(&encoded, shape).map_err(no_package)?;
            Ok(Opened {
                schema: package::schema(&cid, decoded.shape()),
                cid,
                records: decoded.chunks().len() as u64,
                bytes: encoded.len() as u64,
                content: Content::Package(decoded),
            })
        }
        Asked::Blob(cid) => {
            let bytes = file(store, &cid)?.size();
            Ok(Opened {
                schema: bytes::schema(),
                cid,
                records: bytes.div_ceil(r3mes_blobs::CHUNK_BYTES as u64),
                bytes,
                content: Content::Blob,
            })
        }
        Asked::Block(cid) => {
            let block = store.block(&cid).map_err(|error| broken(&error))?;
            let block = block.ok_or_else(|| absent(&cid))?;
            Ok(Opened {
                schema: bytes::schema(),
                cid,
                records: 1,
                bytes: block.bytes().len() as u64,
                content: Content::Block(block),
            })
        }
    }
}

impl Opened {
    /// Hands the batches to `push`, one after another, until it breaks off.
    pub(super) fn send(
        self,
        store: &dyn BlobStore,
        push: &mut dyn FnMut(RecordBatch) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        let schema = &self.schema;
        match self.content {
            Content::Adapter { row_numbers } => {
                let mut file = file(store, &self.cid)?;
                let mut row = vec![0; 4 * row_numbers];
                for layer in 0..self.records {
                    file.read_exact(&mut row)
                        .map_err(|error| cut_short(&error))?;
                    let numbers = floats_from_bytes(&row);
                    if push(adapter::batch(schema, layer as u32, numbers)?).is_break() {
                        break;
                    }
                }
            }
            Content::Package(package) => {
                let mut first = 0;
                while first < package.chunks().len() {
                    let (batch, rows) = package::batch(schema, &package, first)?;
                    first += rows;
                    if push(batch).is_break() {
                        break;
                    }
                }
            }
            Content::Blob => {
                let mut file = file(store, &self.cid)?;
                while let Some(piece) = file.next_chunk().map_err(unreadable)? {
                    if push(bytes::batch(schema, piece)?).is_break() {
                        break;
                    }
                }
            }
            Content::Block(block) => {
                // One row is all there is: whether it was taken changes nothing.
                let _ = push(bytes::batch(schema, block.bytes().clone())?);
            }
        }
        Ok(())
    }
}

fn file<'s>(
    store: &'s dyn BlobStore,
    cid: &Cid,
) -> Result<FileReader<'s, dyn BlobStore + 's>, Status> {
    FileReader::open(store, cid).map_err(unreadable)
}

pub(super) fn absent(cid: &impl Display) -> Status {
    Status::not_found(format!("{cid} is not stored here"))
}

fn unreadable(error: GetError) -> Status {
    refusal(&error)
}

fn cut_short(error: &std::io::Error) -> Status {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(inner) => refusal(inner),
        None => broken(error),
    }
}

fn refusal(error: &GetError) -> Status {
    match error {
        GetError::Missing { cid, .. } => absent(cid),
        GetError::TooLarge { .. } => Status::resource_exhausted(error.to_string()),
        GetError::Store { source, .. } => broken(source),
        _ => Status::failed_precondition(error.to_string()),
    }
}

/// A store that does not do what it should is told to the operator, not to the client.
pub(super) fn broken(error: &(dyn std::error::Error + 'static)) -> Status {
    if let Some(full @ (StoreError::Full { .. } | StoreError::DiskFull { .. })) =
        error.downcast_ref()
    {
        return Status::resource_exhausted(full.to_string());
    }
    tracing::error!(error, "the blob store failed a Flight call");
    Status::internal("the blob store of this node failed; its log says why")
}

/// Runs `work` where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    store: &Arc<dyn BlobStore>,
    work: impl FnOnce(&dyn BlobStore) -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let store = Arc::clone(store);
    let done = tokio::task::spawn_blocking(move || work(&*store)).await;
    done.unwrap_or_else(|error| {
        Err(match error.is_panic() {
            true => Status::internal("this node failed at that; its log says where"),
            false => Status::unavailable("this node is stopping"),
        })
    })
}
