//! f32 matrix products as chains over the contracted index (rule 10).

use crate::product::{Finish, Product};
use crate::tile::Tile;

/// Computes a [`Product`] into `out`.
pub(crate) fn product(p: &Product<'_>, finish: Finish, mut out: Tile<'_, f32>) {
    for row in 0..out.rows() {
        for (col, out) in out.row_mut(row).iter_mut().enumerate() {
            let mut sum = 0.0;
            for k in 0..p.depth {
                sum += p.x[row * p.x_row + k * p.x_step] * p.b[k * p.b_step + col];
            }
            *out = match finish {
                Finish::Replace => sum,
                Finish::Add => *out + sum,
                Finish::Scale(factor) => factor * sum,
                Finish::AddScaled(factor) => *out + factor * sum,
            };
        }
    }
}
