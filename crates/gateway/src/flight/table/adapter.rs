//! An adapter as a table: a row for each layer, a column for each factor of each pair.
//!
//! All layers of a model have the same shapes, so a column has one shape, which stands in the schema
//! as Arrow's canonical `arrow.fixed_shape_tensor`. Row by row and column by column the numbers are
//! those of the canonical bytes.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, UInt32Array,
    cast::AsArray,
    types::{Float32Type, UInt32Type},
};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{
    DataType, Field, FieldRef, Schema, SchemaRef,
    extension::{EXTENSION_TYPE_METADATA_KEY, EXTENSION_TYPE_NAME_KEY},
};
use flight_tonic::Status;
use r3mes_blobs::Cid;
use r3mes_model::{Linear, MAX_ADAPTER_NUMBERS, MAX_LAYERS, MAX_RANK};
use serde::Deserialize;
use serde_json::json;

use super::{PREFIX, column, impossible, refused, too_large};
use crate::flight::AdapterFacts;

/// Name of the extension type.
const TENSOR: &str = "arrow.fixed_shape_tensor";
const LAYER: &str = "layer";
/// The factors of a pair and the names of their dimensions, in canonical order.
const FACTORS: [(&str, [&str; 2]); 2] = [("a", ["rank", "in"]), ("b", ["out", "rank"])];

/// The schema of an adapter's table.
pub(in crate::flight) fn schema(cid: &Cid, facts: &AdapterFacts) -> SchemaRef {
    let mut fields = vec![Field::new(LAYER, DataType::UInt32, false)];
    let pairs = facts.layout.pairs().iter();
    for pair in pairs.take_while(|pair| pair.layer == 0) {
        let site = &pair.site;
        let shapes = [[site.rank, site.inputs], [site.outputs, site.rank]];
        for ((factor, dimensions), shape) in FACTORS.into_iter().zip(shapes) {
            let name = format!("{}.{factor}", pair.linear.name());
            fields.push(tensor(name, shape, dimensions));
        }
    }
    let config = facts.layout.config();
    let mut metadata = HashMap::from([
        (format!("{PREFIX}kind"), "adapter".to_owned()),
        (format!("{PREFIX}cid"), cid.to_string()),
        (format!("{PREFIX}rank"), config.rank.to_string()),
        (format!("{PREFIX}alpha"), config.alpha.to_string()),
    ]);
    let details = facts.details.iter();
    metadata.extend(details.map(|(name, value)| (format!("{PREFIX}{name}"), value.clone())));
    Arc::new(Schema::new(fields).with_metadata(metadata))
}

/// A column of tensors, after Arrow's "Canonical Extension Types".
fn tensor(name: String, shape: [usize; 2], dimensions: [&str; 2]) -> Field {
    let size = shape[0] * shape[1];
    let list = DataType::FixedSizeList(number_field(), size as i32);
    let parameters = json!({ "shape": shape, "dim_names": dimensions });
    Field::new(name, list, false).with_metadata(HashMap::from([
        (EXTENSION_TYPE_NAME_KEY.to_owned(), TENSOR.to_owned()),
        (
            EXTENSION_TYPE_METADATA_KEY.to_owned(),
            parameters.to_string(),
        ),
    ]))
}

fn number_field() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float32, false))
}

/// How many numbers a row of this schema has.
pub(in crate::flight) fn row_numbers(schema: &Schema) -> usize {
    let columns = schema.fields().iter();
    columns.map(|field| list_size(field.data_type())).sum()
}

fn list_size(data_type: &DataType) -> usize {
    match data_type {
        DataType::FixedSizeList(_, size) => usize::try_from(*size).unwrap_or(0),
        _ => 0,
    }
}

/// One layer as one row, whose columns share the `numbers`.
pub(in crate::flight) fn batch(
    schema: &SchemaRef,
    layer: u32,
    numbers: Vec<f32>,
) -> Result<RecordBatch, Status> {
    let numbers = ScalarBuffer::from(numbers);
    let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(vec![layer]))];
    let mut next = 0;
    for field in schema.fields().iter().skip(1) {
        let size = list_size(field.data_type());
        let values = Float32Array::new(numbers.slice(next, size), None);
        next += size;
        let column =
            FixedSizeListArray::try_new(number_field(), size as i32, Arc::new(values), None);
        columns.push(Arc::new(column.map_err(impossible)?));
    }
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(impossible)
}

/// Turns rows back into canonical bytes.
pub(in crate::flight) struct Writer {
    layer: usize,
    /// Columns in canonical order: name, index, numbers of a row.
    columns: Vec<(String, usize, usize)>,
    max_bytes: usize,
    layers: u32,
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new(schema: &Schema, max_bytes: usize) -> Result<Self, Status> {
        let layer = column(schema, LAYER)?;
        let found = schema.field(layer).data_type();
        if *found != DataType::UInt32 {
            return Err(refused(format!("{LAYER:?} is uint32, not {found}")));
        }
        let mut columns = Vec::new();
        let mut rank = None;
        for linear in Linear::ALL {
            let find = |(factor, _)| {
                let name = format!("{}.{factor}", linear.name());
                let index = schema.index_of(&name).ok();
                (name, index)
            };
            let [(a, at_a), (b, at_b)] = FACTORS.map(find);
            let (first, second) = match (at_a, at_b) {
                (Some(first), Some(second)) => (first, second),
                (None, None) => continue,
                _ => {
                    return Err(refused(format!(
                        "{a:?} and {b:?} belong together: one of them is missing"
                    )));
                }
            };
            let [rank_of_a, inputs] = shape(schema.field(first))?;
            let [outputs, rank_of_b] = shape(schema.field(second))?;
            let rank = *rank.get_or_insert(rank_of_a);
            if rank_of_a != rank || rank_of_b != rank || !(1..=MAX_RANK).contains(&rank) {
                return Err(refused(format!(
                    "{a:?} must have shape [rank, in] and {b:?} [out, rank], with one rank of 1 to \
                     {MAX_RANK} for all; found [{rank_of_a}, {inputs}] and [{outputs}, {rank_of_b}], \
                     the first rank being {rank}"
                )));
            }
            columns.push((a, first, rank * inputs));
            columns.push((b, second, outputs * rank));
        }
        let known = |index| index == layer || columns.iter().any(|(_, at, _)| *at == index);
        if let Some(other) = (0..schema.fields().len()).find(|&index| !known(index)) {
            return Err(refused(format!(
                "{:?} is no column of an adapter: there are {LAYER:?}, and X.a and X.b with X one of \
                 q, k, v, o, gate, up, down, each once",
                schema.field(other).name()
            )));
        }
        if columns.is_empty() {
            return Err(refused(
                "the adapter has no tensor, such as \"q.a\" and \"q.b\"",
            ));
        }
        Ok(Self {
            layer,
            columns,
            max_bytes: max_bytes.min(4 * MAX_ADAPTER_NUMBERS),
            layers: 0,
            bytes: Vec::new(),
        })
    }

    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<(), Status> {
        let numbers: usize = self.columns.iter().map(|(_, _, size)| size).sum();
        let added = numbers.saturating_mul(4).saturating_mul(batch.num_rows());
        if self.bytes.len().saturating_add(added) > self.max_bytes {
            return Err(too_large(self.max_bytes));
        }
        let layers = batch.column(self.layer).as_primitive::<UInt32Type>();
        for row in 0..batch.num_rows() {
            let expected = self.layers;
            if layers.is_null(row) || layers.value(row) != expected {
                return Err(refused(format!(
                    "layers come in order, from 0 and without gaps: layer {expected} is missing"
                )));
            }
            if expected as usize >= MAX_LAYERS {
                return Err(refused(format!("there are at most {MAX_LAYERS} layers")));
            }
            for (name, index, size) in &self.columns {
                let lists = batch.column(*index).as_fixed_size_list();
                let values = (!lists.is_null(row)).then(|| lists.value(row));
                let values = values
                    .as_ref()
                    .map(|list| list.as_primitive::<Float32Type>());
                let whole = values.filter(|list| list.null_count() == 0 && list.len() == *size);
                let values = whole.ok_or_else(|| {
                    refused(format!("{name:?} of layer {expected} lacks numbers"))
                })?;
                if values.values().iter().any(|number| !number.is_finite()) {
                    return Err(refused(format!(
                        "{name:?} of layer {expected} has a number that is not finite"
                    )));
                }
                let bytes = values
                    .values()
                    .iter()
                    .flat_map(|number| number.to_le_bytes());
                self.bytes.extend(bytes);
            }
            self.layers += 1;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, Status> {
        if self.layers == 0 {
            return Err(refused("the adapter has no layer"));
        }
        Ok(self.bytes)
    }
}

/// The two dimensions of a tensor column of floats.
fn shape(field: &Field) -> Result<[usize; 2], Status> {
    let wrong = || {
        refused(format!(
            "{:?} must be an arrow.fixed_shape_tensor of float and two dimensions, not {}{}",
            field.name(),
            field.data_type(),
            field
                .extension_type_name()
                .map(|name| format!(" ({name})"))
                .unwrap_or_default()
        ))
    };
    let named = field.extension_type_name() == Some(TENSOR);
    let parameters = field.extension_type_metadata().filter(|_| named);
    let parameters = parameters.ok_or_else(wrong)?;
    let tensor: Tensor = serde_json::from_str(parameters).map_err(|_| wrong())?;
    let straight = tensor.permutation.is_none_or(|order| order.is_sorted());
    let DataType::FixedSizeList(item, size) = field.data_type() else {
        return Err(wrong());
    };
    let [rows, columns] = tensor.shape;
    let fits = rows > 0 && rows.checked_mul(columns) == usize::try_from(*size).ok();
    match straight && fits && columns > 0 && *item.data_type() == DataType::Float32 {
        true => Ok(tensor.shape),
        false => Err(wrong()),
    }
}

/// Parameters of [`TENSOR`] that matter here.
#[derive(Deserialize)]
struct Tensor {
    shape: [usize; 2],
    permutation: Option<Vec<usize>>,
}
