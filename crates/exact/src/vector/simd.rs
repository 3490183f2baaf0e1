//! Sixteen lanes of f32 or i32, whatever registers they take.
//!
//! Sixteen is the number of lanes of a sum (rule 11), so that every instruction set runs the same
//! code and only the number of registers in a vector differs. [`Emulated`] runs it on arrays:
//! tests use it to check the logic that AVX-512 and NEON run on any machine.

use crate::product::{Finish, Product};
use crate::tile::Tile;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// An instruction set, as proof that the machine has it.
///
/// Arithmetic is IEEE, each operation rounded on its own.
pub(crate) trait Simd: Copy {
    /// Most rows of a tile of a product: registers for as many sums, and a few more.
    const TILE_ROWS: usize;
    /// The instruction set for vectors whose halves differ.
    type Halves: Simd;
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen i32.
    type I: Copy;

    fn halves(self) -> Self::Halves;

    fn splat(self, x: f32) -> Self::F;
    /// `first` in lanes 0 to 7, `second` in lanes 8 to 15.
    fn splat_halves(self, first: f32, second: f32) -> Self::F;
    fn load(self, from: &[f32; LANES]) -> Self::F;
    /// The same eight values in lanes 0 to 7 and 8 to 15.
    fn load_twice(self, from: &[f32; LANES / 2]) -> Self::F;
    fn store(self, x: Self::F, to: &mut [f32; LANES]);
    /// Lane 0.
    fn first(self, x: Self::F) -> f32;
    /// Brings the cache line there nearer, wherever the pointer points.
    fn fetch(self, _: *const f32) {}

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    /// The larger of two finite values; either zero when both are zeros.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `yes` where `a < b`, else `no`.
    fn select_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// Lanes i and i xor W exchanged; W is 1, 2, 4 or 8.
    fn exchange<const W: usize>(self, a: Self::F) -> Self::F;
    /// Lane i of `b` where i has the bit W, else of `a`; W is 1, 2, 4 or 8.
    fn merge<const W: usize>(self, a: Self::F, b: Self::F) -> Self::F;

    fn bits(self, a: Self::F) -> Self::I;
    fn floats(self, a: Self::I) -> Self::F;
    /// The f32 nearest to each integer.
    fn to_float(self, a: Self::I) -> Self::F;

    fn splat_int(self, x: i32) -> Self::I;
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn max_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn shift_left<const N: i32>(self, a: Self::I) -> Self::I;
    /// Shifts copies of the sign in.
    fn shift_right<const N: i32>(self, a: Self::I) -> Self::I;
    fn load_i8(self, from: &[i8; LANES]) -> Self::I;
    /// Stores values within i8.
    fn store_i8(self, x: Self::I, to: &mut [i8; LANES]);
    /// Stores values within i16.
    fn store_i16(self, x: Self::I, to: &mut [i16; LANES]);

    /// [`super::product::product`], compiled once for the instruction set: kernels that use it
    /// several times would each grow by as many copies.
    fn product(self, p: &Product<'_>, finish: Finish, out: Tile<'_, f32>);

    /// The lane sum's tree (rule 11).
    #[inline(always)]
    fn add_lanes(self, a: Self::F) -> f32 {
        let a = self.add(a, self.exchange::<8>(a));
        let a = self.add(a, self.exchange::<4>(a));
        let a = self.add(a, self.exchange::<2>(a));
        self.first(self.add(a, self.exchange::<1>(a)))
    }

    /// The largest of sixteen finite lanes.
    #[inline(always)]
    fn max_lane(self, a: Self::F) -> f32 {
        let a = self.max(a, self.exchange::<8>(a));
        let a = self.max(a, self.exchange::<4>(a));
        let a = self.max(a, self.exchange::<2>(a));
        self.first(self.max(a, self.exchange::<1>(a)))
    }

    /// Sixteen vectors with rows and columns exchanged.
    #[inline(always)]
    fn transposed(self, mut rows: [Self::F; LANES]) -> [Self::F; LANES] {
        exchange_squares::<Self, 8>(self, &mut rows);
        exchange_squares::<Self, 4>(self, &mut rows);
        exchange_squares::<Self, 2>(self, &mut rows);
        exchange_squares::<Self, 1>(self, &mut rows);
        rows
    }

    /// [`Simd::exchange`] of integers.
    #[inline(always)]
    fn exchange_int<const W: usize>(self, a: Self::I) -> Self::I {
        self.bits(self.exchange::<W>(self.floats(a)))
    }

    /// The largest lane.
    #[inline(always)]
    fn max_lane_int(self, a: Self::I) -> i32 {
        let a = self.max_int(a, self.exchange_int::<8>(a));
        let a = self.max_int(a, self.exchange_int::<4>(a));
        let a = self.max_int(a, self.exchange_int::<2>(a));
        let a = self.max_int(a, self.exchange_int::<1>(a));
        self.first(self.floats(a)).to_bits() as i32
    }

    /// The sum of the lanes, modulo 2^32.
    #[inline(always)]
    fn sum_int(self, a: Self::I) -> i32 {
        let a = self.add_int(a, self.exchange_int::<8>(a));
        let a = self.add_int(a, self.exchange_int::<4>(a));
        let a = self.add_int(a, self.exchange_int::<2>(a));
        let a = self.add_int(a, self.exchange_int::<1>(a));
        self.first(self.floats(a)).to_bits() as i32
    }
}

/// In each square of `2 W` rows and lanes, exchanges the upper right and the lower left quarter.
#[inline(always)]
fn exchange_squares<S: Simd, const W: usize>(s: S, rows: &mut [S::F; LANES]) {
    for upper in (0..LANES).filter(|row| row & W == 0) {
        let (a, b) = (rows[upper], rows[upper | W]);
        rows[upper] = s.merge::<W>(a, s.exchange::<W>(b));
        rows[upper | W] = s.merge::<W>(s.exchange::<W>(a), b);
    }
}

/// Arrays in place of registers.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(crate) struct Emulated;

#[cfg(test)]
impl Simd for Emulated {
    const TILE_ROWS: usize = 16;
    type Halves = Self;
    type F = [f32; LANES];
    type I = [i32; LANES];

    fn halves(self) -> Self {
        self
    }
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    fn splat_halves(self, first: f32, second: f32) -> Self::F {
        std::array::from_fn(|i| if i < LANES / 2 { first } else { second })
    }
    fn load(self, from: &[f32; LANES]) -> Self::F {
        *from
    }
    fn load_twice(self, from: &[f32; LANES / 2]) -> Self::F {
        std::array::from_fn(|i| from[i % (LANES / 2)])
    }
    fn store(self, x: Self::F, to: &mut [f32; LANES]) {
        *to = x;
    }
    fn first(self, x: Self::F) -> f32 {
        x[0]
    }
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] + b[i])
    }
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] - b[i])
    }
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] * b[i])
    }
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] / b[i])
    }
    fn sqrt(self, a: Self::F) -> Self::F {
        a.map(f32::sqrt)
    }
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    fn select_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    fn exchange<const W: usize>(self, a: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i ^ W])
    }
    fn merge<const W: usize>(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| if i & W == 0 { a[i] } else { b[i] })
    }
    fn bits(self, a: Self::F) -> Self::I {
        a.map(|v| v.to_bits() as i32)
    }
    fn floats(self, a: Self::I) -> Self::F {
        a.map(|v| f32::from_bits(v as u32))
    }
    fn to_float(self, a: Self::I) -> Self::F {
        a.map(|v| v as f32)
    }
    fn splat_int(self, x: i32) -> Self::I {
        [x; LANES]
    }
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] & b[i])
    }
    fn max_int(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i].max(b[i]))
    }
    fn shift_left<const N: i32>(self, a: Self::I) -> Self::I {
        a.map(|v| v << N)
    }
    fn shift_right<const N: i32>(self, a: Self::I) -> Self::I {
        a.map(|v| v >> N)
    }
    fn load_i8(self, from: &[i8; LANES]) -> Self::I {
        from.map(i32::from)
    }
    fn store_i8(self, x: Self::I, to: &mut [i8; LANES]) {
        *to = x.map(|v| v as i8);
    }
    fn store_i16(self, x: Self::I, to: &mut [i16; LANES]) {
        *to = x.map(|v| v as i16);
    }
    fn product(self, p: &Product<'_>, finish: Finish, out: Tile<'_, f32>) {
        super::product::product(self, p, finish, out);
    }
}
