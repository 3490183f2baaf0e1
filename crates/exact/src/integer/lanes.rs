//! The integer products for instruction sets with a four-byte dot product: AVX-512 VNNI and NEON.
//!
//! One generic kernel serves all of them. What differs is a vector of sixteen 32-bit lanes, the
//! trait [`Lanes`], whose operations are one or a few instructions each. Tests run the same kernel
//! with plain arrays as vectors, on any machine, so that only those instructions themselves wait
//! for a processor that has them.
//!
//! Codes of more than eight bits are cut into balanced digits to base 256, which are more rows for
//! the same kernel; their sums are put together in i64. Groups of four columns in which a tile has
//! no digits are skipped in the upper planes, which a vocabulary's gradient leaves nearly empty.

use std::ops::Range;

use super::{chunks, even, store};
use crate::panels::LANES;
use crate::{Codes, Tile, WideCodes, Write, int8, ternary};

/// Columns whose digits are summed in i32 and kept in the second-level cache: 2^11 * 127 * 128 is
/// far below 2^31.
const COLUMN_BLOCK: usize = 2048;

/// Bytes ahead of their use at which weights are prefetched for a single row of codes.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 1024;

/// A vector of sixteen 32-bit lanes, or 64 bytes.
///
/// # Safety
/// All functions ask for a processor that has the vector's instructions.
pub(crate) trait Lanes: Copy {
    /// Rows of codes in a tile: 4 or 8.
    const COLUMNS: usize;
    /// Whether tiles have two panels (four for a single row of codes) or one.
    const PAIRS: bool;
    /// What [`Lanes::weights`] adds to a weight.
    const OFFSET: i32;

    /// The same number in every lane.
    unsafe fn splat(value: i32) -> Self;
    /// 64 bytes of memory, at any address.
    unsafe fn load(bytes: *const u8) -> Self;
    /// Bits 2g and 2g+1 of every byte, for g below 4.
    unsafe fn codes(self, g: usize) -> Self;
    /// int8 weights in the form that [`Lanes::dot`] takes.
    unsafe fn weights(self) -> Self;
    /// To each lane, modulo 2^32, the sum of its four products of bytes; `x` has four int8 for all
    /// lanes, and `weights` are codes up to 2 or come from [`Lanes::weights`].
    unsafe fn dot(self, weights: Self, x: i32) -> Self;
    /// The sixteen lanes.
    unsafe fn lanes(self) -> [i32; LANES];
}

/// How the panels of a matrix are read.
trait Layout {
    /// Bytes of a panel for sixteen columns.
    const BLOCK: usize;

    /// What the kernel's products add for each unit of a code.
    fn offset<L: Lanes>() -> i32;

    /// Adds the products of all columns to `acc`.
    ///
    /// # Safety
    /// As for [`Lanes`]; each panel and each row of codes is valid for `blocks` blocks.
    unsafe fn tile<L: Lanes, const P: usize, const C: usize>(
        panels: [*const u8; P],
        codes: [*const i8; C],
        blocks: usize,
        acc: &mut [[L; C]; P],
    );
}

/// Two-bit codes w+1.
struct Ternary;

impl Layout for Ternary {
    const BLOCK: usize = 64;

    fn offset<L: Lanes>() -> i32 {
        1
    }

    #[inline(always)]
    unsafe fn tile<L: Lanes, const P: usize, const C: usize>(
        panels: [*const u8; P],
        codes: [*const i8; C],
        blocks: usize,
        acc: &mut [[L; C]; P],
    ) {
        for block in 0..blocks {
            // SAFETY: the caller vouches for all memory up to `blocks`.
            unsafe {
                let mut bytes = [L::splat(0); P];
                for (bytes, panel) in bytes.iter_mut().zip(panels) {
                    prefetch::<C>(panel.wrapping_add(block * Self::BLOCK));
                    *bytes = L::load(panel.add(block * Self::BLOCK));
                }
                for g in 0..4 {
                    let mut weights = bytes;
                    for weights in &mut weights {
                        *weights = weights.codes(g);
                    }
                    for c in 0..C {
                        let x = codes[c]
                            .add(block * LANES + g * 4)
                            .cast::<i32>()
                            .read_unaligned();
                        for p in 0..P {
                            acc[p][c] = acc[p][c].dot(weights[p], x);
                        }
                    }
                }
            }
        }
    }
}

/// int8 weights; `SKIP` looks for groups without codes.
struct Int8<const SKIP: bool>;

impl<const SKIP: bool> Layout for Int8<SKIP> {
    const BLOCK: usize = 256;

    fn offset<L: Lanes>() -> i32 {
        L::OFFSET
    }

    #[inline(always)]
    unsafe fn tile<L: Lanes, const P: usize, const C: usize>(
        panels: [*const u8; P],
        codes: [*const i8; C],
        blocks: usize,
        acc: &mut [[L; C]; P],
    ) {
        for group in 0..blocks * 4 {
            // SAFETY: the caller vouches for all memory up to `blocks`.
            unsafe {
                let mut x = [0; C];
                for (x, codes) in x.iter_mut().zip(codes) {
                    *x = codes.add(group * 4).cast::<i32>().read_unaligned();
                }
                if SKIP && x.iter().fold(0, |all, x| all | x) == 0 {
                    continue;
                }
                for (acc, panel) in acc.iter_mut().zip(panels) {
                    prefetch::<C>(panel.wrapping_add(group * 64));
                    let weights = L::load(panel.add(group * 64)).weights();
                    for (acc, x) in acc.iter_mut().zip(x) {
                        *acc = acc.dot(weights, x);
                    }
                }
            }
        }
    }
}

/// Fetches weights ahead where a single row of codes streams through them.
#[inline(always)]
fn prefetch<const C: usize>(bytes: *const u8) {
    #[cfg(target_arch = "x86_64")]
    if C == 1 {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor prefetches, and never faults over it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(AHEAD).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

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
        offsets.push(sum.wrapping_mul(W::offset::<L>()).wrapping_neg());
    }
    let most = if !L::PAIRS {
        1
    } else if rows == 1 {
        4
    } else {
        2
    };
    let mut sums = vec![[0; LANES]; most * rows];
    let mut next = panels.start;
    while next < panels.end {
        let count = if panels.end - next < most { 1 } else { most };
        let mut row = 0;
        while row < rows {
            let place = Place {
                digits,
                offsets: &offsets,
                row,
            };
            // SAFETY: as for the caller.
            row += unsafe {
                if const { !L::PAIRS } || count == 1 {
                    tile::<L, W, 1>([panel(next)], place, &mut sums)
                } else if count == 2 {
                    tile::<L, W, 2>([panel(next), panel(next + 1)], place, &mut sums)
                } else {
                    let all = [
                        panel(next),
                        panel(next + 1),
                        panel(next + 2),
                        panel(next + 3),
                    ];
                    tile_of::<L, W, 4, 1>(all, place, &mut sums)
                }
            };
        }
        for sums in sums.chunks_exact(rows).take(count) {
            each(next - panels.start, sums);
            next += 1;
        }
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

/// The widest tile that fits; its number of rows.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn tile<L: Lanes, W: Layout, const P: usize>(
    panels: [&[u8]; P],
    place: Place<'_>,
    sums: &mut [[i32; LANES]],
) -> usize {
    let rows = place.offsets.len() - place.row;
    // SAFETY: as for the caller.
    unsafe {
        if const { L::COLUMNS >= 8 } && rows >= 8 {
            tile_of::<L, W, P, 8>(panels, place, sums)
        } else if rows >= 4 {
            tile_of::<L, W, P, 4>(panels, place, sums)
        } else if rows >= 2 {
            tile_of::<L, W, P, 2>(panels, place, sums)
        } else {
            tile_of::<L, W, P, 1>(panels, place, sums)
        }
    }
}

/// A tile of `P` panels and `C` rows; returns `C`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn tile_of<L: Lanes, W: Layout, const P: usize, const C: usize>(
    panels: [&[u8]; P],
    place: Place<'_>,
    sums: &mut [[i32; LANES]],
) -> usize {
    let blocks = place.digits.stride / LANES;
    let mut starts = [std::ptr::null(); P];
    for (start, panel) in starts.iter_mut().zip(panels) {
        assert!(
            panel.len() >= blocks * W::BLOCK,
            "panel shorter than the codes"
        );
        *start = panel.as_ptr();
    }
    // SAFETY: panels and rows of codes hold `blocks` blocks: the one is asserted above, the other
    // by the slices; the processor has the vector's instructions.
    unsafe {
        let mut codes = [std::ptr::null(); C];
        let mut acc = [[L::splat(0); C]; P];
        for c in 0..C {
            codes[c] = place.digits.row(place.row + c).as_ptr();
            for acc in &mut acc {
                acc[c] = L::splat(place.offsets[place.row + c]);
            }
        }
        W::tile::<L, P, C>(starts, codes, blocks, &mut acc);
        for (p, acc) in acc.into_iter().enumerate() {
            for (c, acc) in acc.into_iter().enumerate() {
                sums[p * place.offsets.len() + place.row + c] = acc.lanes();
            }
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

/// See [`int8::backward`].
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn int8_backward<L: Lanes>(
    wt: int8::Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    write: Write,
    dx: &mut Tile<'_, f32>,
) {
    for rows in chunks(g.rows, COLUMN_BLOCK) {
        let mut totals = vec![[0i64; LANES]; panels.len() * rows.len()];
        for block in even(g.stride / LANES, COLUMN_BLOCK / LANES) {
            for (plane, codes) in digit_planes(g, rows.clone(), block.clone())
                .iter()
                .enumerate()
            {
                let digits = Digits {
                    codes,
                    stride: block.len() * LANES,
                };
                let panel = |p| &wt.panel(p)[block.start * 256..block.end * 256];
                let each = |index: usize, sums: &[[i32; LANES]]| {
                    let totals = &mut totals[index * rows.len()..];
                    for (totals, sums) in totals.iter_mut().zip(sums) {
                        for (total, &sum) in totals.iter_mut().zip(sums) {
                            *total += i64::from(sum) << (8 * plane);
                        }
                    }
                };
                // SAFETY: as for the caller.
                unsafe {
                    if plane == 0 {
                        products::<L, Int8<false>>(panel, panels.clone(), digits, each);
                    } else {
                        products::<L, Int8<true>>(panel, panels.clone(), digits, each);
                    }
                }
            }
        }
        for (index, totals) in totals.chunks_exact(rows.len()).enumerate() {
            for (row, totals) in rows.clone().zip(totals) {
                let scale = g.scales[row];
                store(dx, row, index, write, |lane| {
                    totals[lane] as f64 as f32 * scale
                });
            }
        }
    }
}

/// The balanced digits to base 256 of some rows and blocks of columns, lowest plane first.
fn digit_planes(g: WideCodes<'_>, rows: Range<usize>, block: Range<usize>) -> Vec<Vec<i8>> {
    let planes = if g.high.is_empty() { 2 } else { 3 };
    let mut digits = vec![Vec::with_capacity(rows.len() * block.len() * LANES); planes];
    for row in rows {
        for col in block.start * LANES..block.end * LANES {
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

        /// See [`crate::int8::backward`].
        ///
        /// # Safety
        /// The processor has the features.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn int8_backward(
            wt: crate::int8::Panels<'_>,
            panels: std::ops::Range<usize>,
            g: crate::WideCodes<'_>,
            write: crate::Write,
            dx: &mut crate::Tile<'_, f32>,
        ) {
            // SAFETY: as for the caller.
            unsafe { crate::integer::lanes::int8_backward::<$vector>(wt, panels, g, write, dx) }
        }
    };
}
pub(crate) use lanes_kernels;

#[cfg(test)]
pub(crate) mod emulated {
    //! The vector in plain Rust, with the unsigned weights of VNNI or the signed ones of NEON.

    use super::{LANES, Lanes};

    /// Sixteen lanes; `UNSIGNED` weights are stored plus 128.
    #[derive(Clone, Copy)]
    pub(crate) struct Array<const UNSIGNED: bool>([[u8; 4]; LANES]);

    impl<const UNSIGNED: bool> Lanes for Array<UNSIGNED> {
        const COLUMNS: usize = if UNSIGNED { 8 } else { 4 };
        const PAIRS: bool = UNSIGNED;
        const OFFSET: i32 = if UNSIGNED { 128 } else { 0 };

        unsafe fn splat(value: i32) -> Self {
            Self([value.to_le_bytes(); LANES])
        }

        unsafe fn load(bytes: *const u8) -> Self {
            // SAFETY: the caller's memory has 64 bytes.
            Self(unsafe { bytes.cast::<[[u8; 4]; LANES]>().read_unaligned() })
        }

        unsafe fn codes(self, g: usize) -> Self {
            Self(self.0.map(|lane| lane.map(|byte| byte >> (2 * g) & 3)))
        }

        unsafe fn weights(self) -> Self {
            let flip = if UNSIGNED { 0x80 } else { 0 };
            Self(self.0.map(|lane| lane.map(|byte| byte ^ flip)))
        }

        unsafe fn dot(self, weights: Self, x: i32) -> Self {
            let mut out = self;
            for (lane, weights) in out.0.iter_mut().zip(weights.0) {
                let mut sum = i32::from_le_bytes(*lane);
                for (weight, x) in weights.into_iter().zip(x.to_le_bytes()) {
                    let weight = if UNSIGNED {
                        i32::from(weight)
                    } else {
                        i32::from(weight as i8)
                    };
                    sum = sum.wrapping_add(weight * i32::from(x as i8));
                }
                *lane = sum.to_le_bytes();
            }
            out
        }

        unsafe fn lanes(self) -> [i32; LANES] {
            self.0.map(i32::from_le_bytes)
        }
    }
}
