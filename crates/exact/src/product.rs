//! Description of an f32 matrix product, shared by the scalar definition and the vector kernels.

/// `sum over k of x[row][k] * b[k][col]`, each a chain from +0.0 over ascending k (rule 10).
///
/// The left factor may lie in memory by rows or by columns; the right factor has its columns, over
/// which kernels vectorize, next to each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a> {
    /// Left factor: element (row, k) lies at `row * x_row + k * x_step`.
    pub(crate) x: &'a [f32],
    pub(crate) x_row: usize,
    pub(crate) x_step: usize,
    /// Right factor: element (k, col) lies at `k * b_step + col`.
    pub(crate) b: &'a [f32],
    pub(crate) b_step: usize,
    /// Length of the chains.
    pub(crate) depth: usize,
}

/// What becomes of a finished chain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Finish {
    /// `out = sum`
    Replace,
    /// `out = out + sum`
    Add,
    /// `out = factor * sum`
    Scale(f32),
    /// `out = out + factor * sum`
    AddScaled(f32),
}
