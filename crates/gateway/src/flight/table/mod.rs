//! Tables and the canonical bytes that they stand for, both ways.

pub(super) mod adapter;
pub(super) mod bytes;
pub(super) mod package;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema};
use flight_tonic::Status;

/// Prefix of our keys in a schema's metadata.
const PREFIX: &str = "r3mes.";

/// What kind of blob a table stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One row per layer.
    Adapter,
    /// One row per chunk.
    Package,
    /// A file in pieces.
    Blob,
}

/// Turns the batches of one table into canonical bytes.
pub(super) enum Writer {
    Adapter(adapter::Writer),
    Package(package::Writer),
    Blob(bytes::Writer),
}

impl Writer {
    /// A writer of at most `max_bytes`, once the schema has been checked.
    pub(super) fn new(kind: Kind, schema: &Schema, max_bytes: usize) -> Result<Self, Status> {
        Ok(match kind {
            Kind::Adapter => Self::Adapter(adapter::Writer::new(schema, max_bytes)?),
            Kind::Package => Self::Package(package::Writer::new(schema, max_bytes)?),
            Kind::Blob => Self::Blob(bytes::Writer::new(schema, max_bytes)?),
        })
    }

    /// Takes the next rows.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<(), Status> {
        match self {
            Self::Adapter(writer) => writer.push(batch),
            Self::Package(writer) => writer.push(batch),
            Self::Blob(writer) => writer.push(batch),
        }
    }

    /// The bytes of the whole table.
    pub(super) fn finish(self) -> Result<Vec<u8>, Status> {
        match self {
            Self::Adapter(writer) => writer.finish(),
            Self::Package(writer) => writer.finish(),
            Self::Blob(writer) => Ok(writer.finish()),
        }
    }
}

/// A table that cannot be taken, and why.
fn refused(why: impl Into<String>) -> Status {
    Status::invalid_argument(why)
}

fn too_large(max_bytes: usize) -> Status {
    Status::resource_exhausted(format!(
        "what is written has more than {max_bytes} bytes, which this node does not take"
    ))
}

/// A batch that our own code put together wrongly.
fn impossible(error: ArrowError) -> Status {
    tracing::error!(%error, "a record batch does not fit its schema");
    Status::internal("the table could not be put together")
}

/// The column called `name`; its index.
fn column(schema: &Schema, name: &str) -> Result<usize, Status> {
    let missing = |_| refused(format!("the column {name:?} is missing"));
    schema.index_of(name).map_err(missing)
}

/// A metadata entry that is a whole number.
fn number(schema: &Schema, key: &str) -> Result<u64, Status> {
    let key = format!("{PREFIX}{key}");
    let number = schema.metadata.get(&key).and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        refused(format!(
            "the schema's metadata needs {key:?}, a whole number"
        ))
    })
}
