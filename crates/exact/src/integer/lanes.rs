//! The integer products for instruction sets with a dot product of four signed bytes: NEON.
//!
//! One generic kernel serves processors with and without `sdot`. What differs is a vector of
//! sixteen 32-bit lanes, the trait [`Lanes`], whose operations are a few instructions each. Tests
//! run the same kernel with plain arrays as vectors, on any machine, so that only those
//! instructions themselves wait for a processor that has them.
//!
//! Codes of more than eight bits are cut into balanced digits to base 256, which are more rows for
//! the same kernel; their sums are put together in i64. Groups of four columns in which a tile has
//! no digits are skipped in the upper planes, which a vocabulary's gradient leaves nearly empty.

#[cfg(test)]
pub(crate) mod emulated;
mod layout;

use std::ops::Range;

use self::layout::{Int8, Layout, Ternary};
use super::{chunks, store};
use crate::panels::{LANES, padded};
use crate::{Codes, Tile, WideCodes, Write, int8, ternary};

/// A vector of sixteen 32-bit lanes, or 64 bytes.
///
/// # Safety
/// All functions ask for a processor that has the vector's instructions.
pub(crate) trait Lanes: Copy {
    /// The same number in every lane.
    unsafe fn splat(value: i32) -> Self;
    /// 64 bytes of memory, at any address.
    unsafe fn load(bytes: *const u8) -> Self;
    /// Bits 2g and 2g+1 of every byte, for g below 4.
    unsafe fn codes(self, g: usize) -> Self;
    /// To each lane, modulo 2^32, the sum of its four products of signed bytes; `x` has four for
    /// all lanes.
    unsafe fn dot(self, weights: Self, x: i32) -> Self;
    /// The sixteen lanes.
    unsafe fn lanes(self) -> [i32; LANES];
}

/// Most rows of codes in a tile.
const ROWS: usize = 4;

/// Rows of int8 digits, one after the other, each `stride` long.
#[derive(Clone, Copy)]
struct Digits<'a> {
    codes: &'a [i8],
    stride: usize,
}

impl Digits<'_> {
    fn rows(&self) -> usize {
        self.codes.len() / self.stride
    }

    fn row(&self, row: usize) -> &[i8] {
        &self.codes[row * self.stride..][..self.stride]
    }
}

/// The sums of all digits with each panel, passed to `each` with the panel's place in `panels`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn products<'a, L: Lanes, W: Layout>(
    panel: impl Fn(usize) -> &'a [u8],
    panels: Range<usize>,
    digits: Digits<'_>,
    mut each: impl FnMut(usize, &[[i32; LANES]]),
) {
    let rows = digits.rows();
    let mut offsets = Vec::with_capacity(rows);
    for row in 0..rows {
        let sum: i32 = digits.row(row).iter().map(|&code| i32::from(code)).sum();
        offsets.push(sum.wrapping_mul(W::OFFSET).wrapping_neg());
    }
    let mut sums = vec![[0; LANES]; rows];
    for (index, number) in panels.enumerate() {
        let panel = panel(number);
        let mut row = 0;
        while row < rows {
            let place = Place {
                digits,
                offsets: &offsets,
                row,
            };
            // SAFETY: as for the caller.
            row += unsafe {
                match rows - row {
                    ROWS.. => tile::<L, W, ROWS>(panel, place, &mut sums),
                    2.. => tile::<L, W, 2>(panel, place, &mut sums),
                    _ => tile::<L, W, 1>(panel, place, &mut sums),
                }
            };
        }
        each(index, &sums);
    }
}

/// Which digits a tile multiplies.
#[derive(Clone, Copy)]
struct Place<'a> {
    digits: Digits<'a>,
    /// What the sums of each row start from.
    offsets: &'a [i32],
    /// The tile's first row.
    row: usize,
}

/// A tile of one panel and `C` rows; returns `C`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn tile<L: Lanes, W: Layout, const C: usize>(
    panel: &[u8],
    place: Place<'_>,
    sums: &mut [[i32; LANES]],
) -> usize {
    let blocks = place.digits.stride / LANES;
    assert!(
        panel.len() >= blocks * W::BLOCK,
        "panel shorter than the codes"
    );
    // SAFETY: the panel and rows of codes hold `blocks` blocks: the one is asserted above, the
    // other by the slices; the processor has the vector's instructions.
    unsafe {
        let mut codes = [std::ptr::null(); C];
        let mut acc = [L::splat(0); C];
        for c in 0..C {
            codes[c] = place.digits.row(place.row + c).as_ptr();
            acc[c] = L::splat(place.offsets[place.row + c]);
        }
        W::tile::<L, C>(panel.as_ptr(), codes, blocks, &mut acc);
        for (sums, acc) in sums[place.row..].iter_mut().zip(acc) {
            *sums = acc.lanes();
        }
    }
    C
}

/// See [`ternary::forward`].
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn ternary_forward<L: Lanes>(
    w: ternary::Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    scale: f32,
    y: &mut Tile<'_, f32>,
) {
    for rows in chunks(x.rows, x.stride) {
        let codes = &x.codes[rows.start * x.stride..rows.end * x.stride];
        let digits = Digits {
            codes,
            stride: x.stride,
        };
        // SAFETY: as for the caller.
        unsafe {
            products::<L, Ternary>(
                |p| w.panel(p),
                panels.clone(),
                digits,
                |index, sums| {
                    for (row, sums) in rows.clone().zip(sums) {
                        let factor = x.scales[row] * scale;
                        store(y, row, index, Write::Replace, |lane| {
                            sums[lane] as f32 * factor
                        });
                    }
                },
            );
        }
    }
}

/// See [`int8::forward`].
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn int8_forward<L: Lanes>(
    w: int8::Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    row_scales: &[f32],
    y: &mut Tile<'_, f32>,
) {
    for rows in chunks(x.rows, x.stride) {
        let codes = &x.codes[rows.start * x.stride..rows.end * x.stride];
        let digits = Digits {
            codes,
            stride: x.stride,
        };
        // SAFETY: as for the caller.
        unsafe {
            products::<L, Int8<false>>(
                |p| w.panel(p),
                panels.clone(),
                digits,
                |index, sums| {
                    let scales = &row_scales[(panels.start + index) * LANES..];
                    for (row, sums) in rows.clone().zip(sums) {
                        let scale = x.scales[row];
                        let value = |lane: usize| sums[lane] as f32 * (scale * scales[lane]);
                        store(y, row, index, Write::Replace, value);
                    }
                },
            );
        }
    }
}

/// See [`ternary::backward`].
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn ternary_backward<L: Lanes>(
    wt: ternary::Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    scale: f32,
    write: Write,
    dx: &mut Tile<'_, f32>,
) {
    for rows in chunks(g.rows, 2 * g.stride) {
        let low = &g.low[rows.start * g.stride..rows.end * g.stride];
        // The lower digits of all rows, then the upper ones, at most 127 as |code| <= 32,512.
        let mut codes: Vec<i8> = low.iter().map(|&code| code as i8).collect();
        codes.extend(
            low.iter()
                .map(|&code| ((i32::from(code) - i32::from(code as i8)) >> 8) as i8),
        );
        let digits = Digits {
            codes: &codes,
            stride: g.stride,
        };
        // SAFETY: as for the caller.
        unsafe {
            products::<L, Ternary>(
                |p| wt.panel(p),
                panels.clone(),
                digits,
                |index, sums| {
                    let (low, high) = sums.split_at(rows.len());
                    for ((row, low), high) in rows.clone().zip(low).zip(high) {
                        let factor = g.scales[row] * scale;
                        // Below 2^31: see `ternary`.
                        let value = |lane: usize| (high[lane] * 256 + low[lane]) as f32 * factor;
                        store(dx, row, index, write, value);
                    }
                },
            );
        }
    }
}

/// See [`int8::Sums::add`].
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn int8_backward<L: Lanes>(
    wt: int8::Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    totals: &mut [[i64; LANES]],
) {
    let stride = padded(wt.cols());
    for (plane, codes) in digit_planes(g, stride).iter().enumerate() {
        let digits = Digits { codes, stride };
        let each = |index: usize, sums: &[[i32; LANES]]| {
            for (totals, sums) in totals[index * g.rows..].iter_mut().zip(sums) {
                for (total, &sum) in totals.iter_mut().zip(sums) {
                    *total += i64::from(sum) << (8 * plane);
                }
            }
        };
        // SAFETY: as for the caller.
        unsafe {
            if plane == 0 {
                products::<L, Int8<false>>(|p| wt.panel(p), panels.clone(), digits, each);
            } else {
                products::<L, Int8<true>>(|p| wt.panel(p), panels.clone(), digits, each);
            }
        }
    }
}

/// The balanced digits to base 256 of rows of `cols` codes, lowest plane first.
fn digit_planes(g: WideCodes<'_>, cols: usize) -> Vec<Vec<i8>> {
    let planes = if g.high.is_empty() { 2 } else { 3 };
    let mut digits = vec![Vec::with_capacity(g.rows * cols); planes];
    for row in 0..g.rows {
        for col in 0..cols {
            let mut code = g.code(row * g.stride + col);
            for plane in &mut digits {
                let digit = code as i8;
                plane.push(digit);
                code = (code - i32::from(digit)) >> 8;
            }
        }
    }
    digits
}

/// The four products with one vector, compiled for its instructions.
#[cfg(target_arch = "aarch64")]
macro_rules! lanes_kernels {
    ($vector:ty, $features:literal) => {
        /// See [`crate::ternary::forward`].
        ///
        /// # Safety
        /// The processor has the features.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn ternary_forward(
            w: crate::ternary::Panels<'_>,
            panels: std::ops::Range<usize>,
            x: crate::Codes<'_>,
            scale: f32,
            y: &mut crate::Tile<'_, f32>,
        ) {
            // SAFETY: as for the caller.
            unsafe { crate::integer::lanes::ternary_forward::<$vector>(w, panels, x, scale, y) }
        }

        /// See [`crate::ternary::backward`].
        ///
        /// # Safety
        /// The processor has the features.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn ternary_backward(
            wt: crate::ternary::Panels<'_>,
            panels: std::ops::Range<usize>,
            g: crate::WideCodes<'_>,
            scale: f32,
            write: crate::Write,
            dx: &mut crate::Tile<'_, f32>,
        ) {
            // SAFETY: as for the caller.
            unsafe {
                crate::integer::lanes::ternary_backward::<$vector>(wt, panels, g, scale, write, dx)
            }
        }

        /// See [`crate::int8::forward`].
        ///
        /// # Safety
        /// The processor has the features.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn int8_forward(
            w: crate::int8::Panels<'_>,
            panels: std::ops::Range<usize>,
            x: crate::Codes<'_>,
            row_scales: &[f32],
            y: &mut crate::Tile<'_, f32>,
        ) {
            // SAFETY: as for the caller.
            unsafe { crate::integer::lanes::int8_forward::<$vector>(w, panels, x, row_scales, y) }
        }

        /// See [`crate::int8::Sums::add`].
        ///
        /// # Safety
        /// The processor has the features.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn int8_backward(
            wt: crate::int8::Panels<'_>,
            panels: std::ops::Range<usize>,
            g: crate::WideCodes<'_>,
            totals: &mut [[i64; crate::panels::LANES]],
        ) {
            // SAFETY: as for the caller.
            unsafe { crate::integer::lanes::int8_backward::<$vector>(wt, panels, g, totals) }
        }
    };
}
#[cfg(target_arch = "aarch64")]
pub(crate) use lanes_kernels;
