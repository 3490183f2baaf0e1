//! A file as it is: one column of pieces.

use std::sync::Arc;

use arrow_array::{Array, BinaryArray, RecordBatch, cast::AsArray};
use arrow_buffer::{Buffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use flight_tonic::Status;

use super::{column, impossible, refused, too_large};

const BYTES: &str = "bytes";

/// `bytes: binary`.
pub(in crate::flight) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(
        BYTES,
        DataType::Binary,
        false,
    )]))
}

/// One piece as one row, without a copy.
pub(in crate::flight) fn batch(schema: &SchemaRef, piece: Bytes) -> Result<RecordBatch, Status> {
    let offsets = OffsetBuffer::from_lengths([piece.len()]);
    let column = BinaryArray::new(offsets, Buffer::from(piece), None);
    RecordBatch::try_new(Arc::clone(schema), vec![Arc::new(column)]).map_err(impossible)
}

/// The only piece of a table of one row; none if it is another table.
pub(in crate::flight) fn single(batch: &RecordBatch) -> Option<Bytes> {
    let pieces = batch.column_by_name(BYTES)?.as_binary_opt::<i32>()?;
    let single = batch.num_rows() == 1 && pieces.null_count() == 0;
    single.then(|| Bytes::copy_from_slice(pieces.value(0)))
}

/// Joins the pieces.
pub(in crate::flight) struct Writer {
    column: usize,
    max_bytes: usize,
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new(schema: &Schema, max_bytes: usize) -> Result<Self, Status> {
        let index = column(schema, BYTES)?;
        let found = schema.field(index).data_type();
        if *found != DataType::Binary || schema.fields().len() != 1 {
            return Err(refused(format!(
                "a blob is one column {BYTES:?} of type binary; found {} columns, {BYTES:?} of type {found}",
                schema.fields().len()
            )));
        }
        Ok(Self {
            column: index,
            max_bytes,
            bytes: Vec::new(),
        })
    }

    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<(), Status> {
        let pieces = batch.column(self.column).as_binary::<i32>();
        if pieces.null_count() > 0 {
            return Err(refused("a piece of the blob is null"));
        }
        for piece in pieces.iter().flatten() {
            if self.bytes.len() + piece.len() > self.max_bytes {
                return Err(too_large(self.max_bytes));
            }
            self.bytes.extend_from_slice(piece);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
