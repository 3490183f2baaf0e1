//! Sixteen-row panels: the layout in which integer weights lie in files and in memory.
//!
//! A matrix with `rows` outputs and `cols` inputs is cut into panels of [`LANES`] rows. Inside a
//! panel the bytes run along the columns, sixteen at a time, so that one row is one 32-bit lane of
//! a 512-bit register, four consecutive columns are its four bytes, and activations are broadcast:
//! no sum across lanes is ever needed. Rows and columns are padded to multiples of sixteen with
//! weights of zero. The same bytes serve every back end and can be used from a memory-mapped file.

/// Rows of a panel, and the multiple to which columns are padded.
pub const LANES: usize = 16;

/// Why bytes or values are not a matrix in panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PanelError {
    /// A dimension is zero or above the limit up to which sums are proved not to overflow.
    #[error("a matrix of {rows} x {cols} is outside the limit of 1 to {limit} rows and columns")]
    Dimensions {
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
        /// The largest dimension allowed.
        limit: usize,
    },
    /// The number of bytes or values does not fit the shape.
    #[error("a matrix of {rows} x {cols} needs {expected} bytes, but {found} were given")]
    Length {
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
        /// Number that the shape asks for.
        expected: usize,
        /// Number given.
        found: usize,
    },
    /// A weight is outside the values that the kernels are proved for.
    #[error("the weight in row {row}, column {col} is {value}, which is not allowed here")]
    Value {
        /// Output of the weight.
        row: usize,
        /// Input of the weight.
        col: usize,
        /// The weight found (2 stands for the unused ternary code 3).
        value: i8,
    },
    /// Padding holds something other than zero weights, so the bytes are not canonical.
    #[error("the padding in row {row}, column {col} is not zero: the panels are not canonical")]
    Padding {
        /// Row of the padding, at or beyond the matrix's rows if its column is not.
        row: usize,
        /// Column of the padding.
        col: usize,
    },
}

/// `n` rounded up to a multiple of [`LANES`].
pub const fn padded(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// Checks a shape against a limit.
pub(crate) fn check_dimensions(rows: usize, cols: usize, limit: usize) -> Result<(), PanelError> {
    if rows == 0 || cols == 0 || rows > limit || cols > limit {
        return Err(PanelError::Dimensions { rows, cols, limit });
    }
    Ok(())
}

/// Checks a length against what the shape asks for.
pub(crate) fn check_length(
    rows: usize,
    cols: usize,
    expected: usize,
    found: usize,
) -> Result<(), PanelError> {
    if expected != found {
        return Err(PanelError::Length {
            rows,
            cols,
            expected,
            found,
        });
    }
    Ok(())
}
