//! A package as a table: a row for each chunk.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Float32Array, Int8Array, ListArray, RecordBatch, UInt16Array, UInt32Array,
    cast::AsArray,
    types::{Float32Type, Int8Type, UInt16Type, UInt32Type},
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flight_tonic::Status;
use r3mes_blobs::Cid;
use r3mes_training::package::{Chunk, Package, Shape};

use super::{PREFIX, column, impossible, number, refused, too_large};

const CHUNK: &str = "chunk";
const SCALE: &str = "scale";
const POSITIONS: &str = "positions";
const CODES: &str = "codes";

/// Entries of a batch; at three bytes each, a batch has about a megabyte.
const BATCH_ENTRIES: usize = 1 << 18;
/// Rows of a batch.
const BATCH_ROWS: usize = 1 << 14;
/// What an empty row counts for against the limit, in bytes.
const ROW_BYTES: usize = 64;

/// Refuses a package whose rows would take more than `max_bytes`, however short it is encoded.
pub(in crate::flight) fn ensure_fits(shape: Shape, max_bytes: usize) -> Result<(), Status> {
    let rows = shape.parameters.div_ceil(shape.chunk.max(1));
    match rows.saturating_mul(ROW_BYTES) > max_bytes {
        true => Err(too_large(max_bytes)),
        false => Ok(()),
    }
}

/// `chunk: uint32, scale: float, positions: list<uint16>, codes: list<int8>`.
pub(in crate::flight) fn schema(cid: &Cid, shape: Shape) -> SchemaRef {
    let list = |of| DataType::List(Arc::new(Field::new_list_field(of, false)));
    let fields = vec![
        Field::new(CHUNK, DataType::UInt32, false),
        Field::new(SCALE, DataType::Float32, false),
        Field::new(POSITIONS, list(DataType::UInt16), false),
        Field::new(CODES, list(DataType::Int8), false),
    ];
    let metadata = HashMap::from([
        (format!("{PREFIX}kind"), "package".to_owned()),
        (format!("{PREFIX}cid"), cid.to_string()),
        (format!("{PREFIX}parameters"), shape.parameters.to_string()),
        (format!("{PREFIX}chunk"), shape.chunk.to_string()),
    ]);
    Arc::new(Schema::new(fields).with_metadata(metadata))
}

/// The first rows from chunk `first` on that make a batch, and how many they are.
pub(in crate::flight) fn batch(
    schema: &SchemaRef,
    package: &Package,
    first: usize,
) -> Result<(RecordBatch, usize), Status> {
    let chunks = &package.chunks()[first..];
    let mut entries = 0;
    let fits = |chunk: &&Chunk| {
        entries += chunk.codes().len();
        entries <= BATCH_ENTRIES
    };
    let rows = chunks.iter().take(BATCH_ROWS).take_while(fits).count();
    let chunks = &chunks[..rows.max(1).min(chunks.len())];
    let lengths = || OffsetBuffer::from_lengths(chunks.iter().map(|chunk| chunk.codes().len()));
    let list = |values: ArrayRef| {
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), false));
        ListArray::try_new(field, lengths(), values, None).map_err(impossible)
    };
    let numbers = first as u32..(first + chunks.len()) as u32;
    let positions = chunks.iter().flat_map(|chunk| chunk.positions());
    let codes = chunks.iter().flat_map(|chunk| chunk.codes());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(numbers)),
        Arc::new(Float32Array::from_iter_values(
            chunks.iter().map(Chunk::scale),
        )),
        Arc::new(list(Arc::new(UInt16Array::from_iter_values(
            positions.copied(),
        )))?),
        Arc::new(list(Arc::new(Int8Array::from_iter_values(codes.copied())))?),
    ];
    let batch = RecordBatch::try_new(Arc::clone(schema), columns).map_err(impossible)?;
    Ok((batch, chunks.len()))
}

/// Turns rows back into canonical bytes.
pub(in crate::flight) struct Writer {
    shape: Shape,
    columns: [usize; 4],
    max_bytes: usize,
    bytes: usize,
    parts: Vec<(i8, Vec<u16>, Vec<i8>)>,
}

impl Writer {
    pub(super) fn new(schema: &Schema, max_bytes: usize) -> Result<Self, Status> {
        let size = |key| {
            let number = number(schema, key)?;
            Ok::<_, Status>(usize::try_from(number).unwrap_or(usize::MAX))
        };
        let (parameters, chunk) = (size("parameters")?, size("chunk")?);
        let shape = Shape::new(parameters, chunk, chunk);
        let shape = shape.map_err(|error| refused(format!("the schema's metadata: {error}")))?;
        let typed = |name, fits: fn(&DataType) -> bool, wanted: &str| {
            let index = column(schema, name)?;
            let found = schema.field(index).data_type();
            if fits(found) {
                return Ok(index);
            }
            Err(refused(format!("{name:?} must be {wanted}, not {found}")))
        };
        let columns = [
            typed(CHUNK, |found| *found == DataType::UInt32, "uint32")?,
            typed(SCALE, |found| *found == DataType::Float32, "float")?,
            typed(
                POSITIONS,
                |found| is_list(found, &DataType::UInt16),
                "list<uint16>",
            )?,
            typed(CODES, |found| is_list(found, &DataType::Int8), "list<int8>")?,
        ];
        if schema.fields().len() != columns.len() {
            return Err(refused(format!(
                "a package has the columns {CHUNK}, {SCALE}, {POSITIONS} and {CODES}, each once"
            )));
        }
        Ok(Self {
            shape,
            columns,
            max_bytes,
            bytes: 0,
            parts: Vec::new(),
        })
    }

    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<(), Status> {
        let [numbers, scales, positions, codes] = self.columns.map(|index| batch.column(index));
        if [numbers, scales, positions, codes]
            .iter()
            .any(|column| column.null_count() > 0)
        {
            return Err(refused("a package has no nulls"));
        }
        let numbers = numbers.as_primitive::<UInt32Type>();
        let scales = scales.as_primitive::<Float32Type>();
        let (positions, codes) = (positions.as_list::<i32>(), codes.as_list::<i32>());
        for row in 0..batch.num_rows() {
            let chunk = self.parts.len();
            if numbers.value(row) as usize != chunk {
                return Err(refused(format!(
                    "chunks come in order, from 0 and without gaps: chunk {chunk} is missing"
                )));
            }
            let exponent = exponent(scales.value(row)).ok_or_else(|| {
                refused(format!(
                    "the scale of chunk {chunk} is {}, which is no power of two",
                    scales.value(row)
                ))
            })?;
            let (positions, codes) = (positions.value(row), codes.value(row));
            if positions.null_count() + codes.null_count() > 0 {
                return Err(refused("a package has no nulls"));
            }
            self.bytes += ROW_BYTES + 3 * positions.len().max(codes.len());
            if self.bytes > self.max_bytes {
                return Err(too_large(self.max_bytes));
            }
            let positions = positions.as_primitive::<UInt16Type>().values().to_vec();
            let codes = codes.as_primitive::<Int8Type>().values().to_vec();
            self.parts.push((exponent, positions, codes));
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, Status> {
        let package = Package::from_chunks(self.shape, self.parts);
        let package = package.map_err(|error| refused(error.to_string()))?;
        Ok(package.encode())
    }
}

fn is_list(found: &DataType, of: &DataType) -> bool {
    matches!(found, DataType::List(field) if field.data_type() == of)
}

/// The exponent of a power of two.
fn exponent(scale: f32) -> Option<i8> {
    let bits = scale.to_bits();
    let exponent = i8::try_from((bits >> 23) as i32 - 127).ok()?;
    (scale.is_normal() && scale > 0.0 && bits & 0x007f_ffff == 0).then_some(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_are_scales() {
        for (scale, expected) in [(1.0, Some(0)), (0.125, Some(-3)), (2.0, Some(1))] {
            assert_eq!(exponent(scale), expected);
        }
        for other in [0.0, -1.0, 0.75, f32::NAN, f32::INFINITY, f32::from_bits(1)] {
            assert_eq!(exponent(other), None, "{other}");
        }
    }
}
