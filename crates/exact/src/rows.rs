//! Quantized rows as the integer kernels read them.

/// Quantized rows are padded with zero codes to a multiple of this.
pub const ROW_PADDING: usize = 16;

/// Elements from one quantized row to the next.
pub fn row_stride(cols: usize) -> usize {
    cols.next_multiple_of(ROW_PADDING)
}

/// int8 rows with one scale each: the activations of rule 2.
#[derive(Debug, Clone, Copy)]
pub struct Codes<'a> {
    /// `rows` rows of `stride` codes in -127..=127; codes after the columns are 0.
    pub codes: &'a [i8],
    /// Elements from one row to the next: the columns rounded up to [`ROW_PADDING`].
    pub stride: usize,
    /// Sum of the codes of each row.
    pub sums: &'a [i32],
    /// Scale of each row.
    pub scales: &'a [f32],
    /// Number of rows.
    pub rows: usize,
}

/// Rows of larger integers, one scale each: the gradients of rules 5 and 6.
///
/// A value is `high * 65536 + low`.
#[derive(Debug, Clone, Copy)]
pub struct WideCodes<'a> {
    /// The lower sixteen bits as a signed number, laid out as [`Codes::codes`].
    pub low: &'a [i16],
    /// What remains, in -64..=64; empty where every value lies within +-32,512.
    pub high: &'a [i8],
    /// Elements from one row to the next: the columns rounded up to [`ROW_PADDING`].
    pub stride: usize,
    /// Scale of each row.
    pub scales: &'a [f32],
    /// Number of rows.
    pub rows: usize,
}

impl WideCodes<'_> {
    /// The code at `index`, counted as `low` is.
    pub fn code(&self, index: usize) -> i32 {
        let high = self.high.get(index).copied().unwrap_or(0);
        i32::from(high) * 65_536 + i32::from(self.low[index])
    }
}
