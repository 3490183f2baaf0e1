//! Every back end against the products written out, bit for bit.

use proptest::prelude::*;

use super::lanes;
use super::lanes::emulated::Array;
use crate::panels::padded;
use crate::{Codes, Isa, Tile, WideCodes, Write, int8, ternary};

/// How values are drawn: anything, or what strains the kernels' headroom most.
#[derive(Debug, Clone, Copy)]
enum Draw {
    Any,
    /// All values at the ends of their range, with random signs.
    Ends,
    /// Weights and codes at the ends with equal signs, so that every product is largest.
    Largest,
    /// Weights and codes at the ends with opposite signs.
    Smallest,
    /// Mostly zero.
    Sparse,
}

struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A value in `min..=max`. `second` tells the right factors of products from the left ones.
    fn value(&mut self, draw: Draw, min: i32, max: i32, second: bool) -> i32 {
        let word = self.next();
        let any = min + (word % (max - min + 1) as u64) as i32;
        match draw {
            Draw::Any => any,
            Draw::Ends => [min, max][(word >> 40) as usize % 2],
            Draw::Largest => min,
            Draw::Smallest => [min, max][usize::from(second)],
            Draw::Sparse => [any, 0][usize::from(word >> 33 & 63 != 0)],
        }
    }

    fn values(&mut self, draw: Draw, ends: [i32; 2], len: usize, second: bool) -> Vec<i32> {
        (0..len)
            .map(|_| self.value(draw, ends[0], ends[1], second))
            .collect()
    }

    fn scales(&mut self, len: usize) -> Vec<f32> {
        (0..len)
            .map(|_| (self.next() % 1000) as f32 * 1.37e-4 + 1e-5)
            .collect()
    }
}

/// A product to compute: `rows` outputs, `cols` inputs, `tokens` rows of codes.
#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    cols: usize,
    tokens: usize,
    draw: Draw,
    seed: u64,
}

fn cases(cols: usize) -> impl Strategy<Value = Case> {
    let draws = [
        Draw::Any,
        Draw::Ends,
        Draw::Largest,
        Draw::Smallest,
        Draw::Sparse,
    ];
    let draw = prop::sample::select(draws.to_vec());
    (1..70usize, 1..cols, 1..50usize, draw, 1..u64::MAX).prop_map(
        |(rows, cols, tokens, draw, seed)| Case {
            rows,
            cols,
            tokens,
            draw,
            seed,
        },
    )
}

/// Rows of `cols` values, each padded with zeros.
fn pad<T: Copy + Default>(values: &[T], cols: usize) -> Vec<T> {
    let mut out = Vec::new();
    for row in values.chunks_exact(cols) {
        out.extend_from_slice(row);
        out.resize(out.len().next_multiple_of(padded(cols)), T::default());
    }
    out
}

/// The exact sums, token-major.
fn sums(case: Case, weights: &[i32], codes: &[i32]) -> Vec<i64> {
    let mut out = Vec::new();
    for codes in codes.chunks_exact(case.cols) {
        for weights in weights.chunks_exact(case.cols) {
            let products = weights
                .iter()
                .zip(codes)
                .map(|(&w, &x)| i64::from(w) * i64::from(x));
            out.push(products.sum());
        }
    }
    out
}

/// A back end, or the generic kernel with an emulated vector.
#[derive(Debug, Clone, Copy)]
enum Kernels {
    Of(Isa),
    /// The kernels of NEON with arrays as vectors.
    Emulated,
    /// NEON without `sdot`, on processors that have it.
    #[cfg(target_arch = "aarch64")]
    NeonBase,
}

/// Calls a product of one crate module by all kernels.
macro_rules! by {
    ($kernels:expr, $module:ident, $call:ident, $generic:ident,
     ($($argument:expr),*), $out:ident) => {{
        let mut out = $out;
        match $kernels {
            Kernels::Of(isa) => $module::$call(isa, $($argument),*, out),
            // SAFETY: arrays need no instructions.
            Kernels::Emulated => unsafe { lanes::$generic::<Array>($($argument),*, &mut out) },
            // SAFETY: every aarch64 processor that runs tests has NEON.
            #[cfg(target_arch = "aarch64")]
            Kernels::NeonBase => unsafe {
                super::neon::base::$generic($($argument),*, &mut out)
            },
        }
    }};
}

/// All kernels that this machine can run.
fn kernels() -> Vec<Kernels> {
    let mut kernels: Vec<_> = Isa::available().into_iter().map(Kernels::Of).collect();
    kernels.push(Kernels::Emulated);
    #[cfg(target_arch = "aarch64")]
    kernels.push(Kernels::NeonBase);
    kernels
}

/// The same computation by all back ends, whole and in two parts, each compared with `expected`.
fn compare(
    case: Case,
    write: Write,
    expected: impl Fn(usize, usize) -> f32,
    run: impl Fn(Kernels, std::ops::Range<usize>, Tile<'_, f32>),
) {
    let start = 0.37;
    let expected: Vec<u32> = (0..case.tokens * case.rows)
        .map(|i| expected(i / case.rows, i % case.rows))
        .map(|value| {
            if write == Write::Add {
                start + value
            } else {
                value
            }
        })
        .map(f32::to_bits)
        .collect();
    let panels = case.rows.div_ceil(16);
    for isa in kernels() {
        let mut whole = vec![start; expected.len()];
        run(
            isa,
            0..panels,
            Tile::new(&mut whole, case.tokens, case.rows),
        );
        let bits: Vec<u32> = whole.iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits, expected, "{isa:?} {case:?}");
        let mut parts = vec![start; expected.len()];
        let (left, right) = Tile::new(&mut parts, case.tokens, case.rows)
            .split_cols((panels / 2 * 16).min(case.rows));
        run(isa, 0..panels / 2, left);
        run(isa, panels / 2..panels, right);
        assert_eq!(parts, whole, "{isa:?} {case:?} in two parts");
    }
}

fn narrow<T: TryFrom<i32>>(values: &[i32]) -> Vec<T> {
    values
        .iter()
        .map(|&v| T::try_from(v).ok().expect("values within the type"))
        .collect()
}

fn ternary_forward(case: Case) {
    let mut words = Words(case.seed);
    let weights = words.values(case.draw, [-1, 1], case.rows * case.cols, false);
    let codes = words.values(case.draw, [-128, 127], case.tokens * case.cols, true);
    let (scales, scale) = (words.scales(case.tokens), 0.0123);
    let sums = sums(case, &weights, &codes);
    let bytes = ternary::pack(&narrow(&weights), case.rows, case.cols).unwrap();
    let w = ternary::Panels::new(&bytes, case.rows, case.cols).unwrap();
    let codes = pad(&narrow::<i8>(&codes), case.cols);
    let row_sums = vec![0; case.tokens];
    let x = Codes {
        codes: &codes,
        stride: padded(case.cols),
        sums: &row_sums,
        scales: &scales,
        rows: case.tokens,
    };
    compare(
        case,
        Write::Replace,
        |t, o| sums[t * case.rows + o] as f32 * (scales[t] * scale),
        |isa, panels, y| {
            by!(
                isa,
                ternary,
                forward,
                ternary_forward,
                (w, panels, x, scale),
                y
            )
        },
    );
}

fn ternary_backward(case: Case, write: Write) {
    let mut words = Words(case.seed);
    let weights = words.values(case.draw, [-1, 1], case.rows * case.cols, false);
    let codes = words.values(case.draw, [-32_512, 32_512], case.tokens * case.cols, true);
    let (scales, scale) = (words.scales(case.tokens), 0.0123);
    let sums = sums(case, &weights, &codes);
    let bytes = ternary::pack(&narrow(&weights), case.rows, case.cols).unwrap();
    let wt = ternary::Panels::new(&bytes, case.rows, case.cols).unwrap();
    let low = pad(&narrow::<i16>(&codes), case.cols);
    let stride = padded(case.cols);
    let g = WideCodes {
        low: &low,
        high: &[],
        stride,
        scales: &scales,
        rows: case.tokens,
    };
    compare(
        case,
        write,
        |t, o| sums[t * case.rows + o] as f32 * (scales[t] * scale),
        |isa, panels, dx| {
            by!(
                isa,
                ternary,
                backward,
                ternary_backward,
                (wt, panels, g, scale, write),
                dx
            )
        },
    );
}

fn int8_forward(case: Case) {
    let mut words = Words(case.seed);
    let weights = words.values(case.draw, [-127, 127], case.rows * case.cols, false);
    let codes = words.values(case.draw, [-128, 127], case.tokens * case.cols, true);
    let (scales, row_scales) = (words.scales(case.tokens), words.scales(case.rows));
    let sums = sums(case, &weights, &codes);
    let bytes = int8::pack(&narrow(&weights), case.rows, case.cols).unwrap();
    let w = int8::Panels::new(&bytes, case.rows, case.cols).unwrap();
    let codes = pad(&narrow::<i8>(&codes), case.cols);
    let row_sums = vec![0; case.tokens];
    let x = Codes {
        codes: &codes,
        stride: padded(case.cols),
        sums: &row_sums,
        scales: &scales,
        rows: case.tokens,
    };
    compare(
        case,
        Write::Replace,
        |t, o| sums[t * case.rows + o] as f32 * (scales[t] * row_scales[o]),
        |isa, panels, y| {
            by!(
                isa,
                int8,
                forward,
                int8_forward,
                (w, panels, x, &row_scales),
                y
            )
        },
    );
}

fn int8_backward(case: Case, write: Write, range: i32) {
    let mut words = Words(case.seed);
    let weights = words.values(case.draw, [-127, 127], case.rows * case.cols, false);
    let codes = words.values(case.draw, [-range, range], case.tokens * case.cols, true);
    let scales = words.scales(case.tokens);
    let sums = sums(case, &weights, &codes);
    let bytes = int8::pack(&narrow(&weights), case.rows, case.cols).unwrap();
    let wt = int8::Panels::new(&bytes, case.rows, case.cols).unwrap();
    let low: Vec<i16> = codes.iter().map(|&code| code as i16).collect();
    let high: Vec<i32> = codes
        .iter()
        .zip(&low)
        .map(|(q, &low)| (q - i32::from(low)) >> 16)
        .collect();
    let (low, high) = (pad(&low, case.cols), pad(&narrow::<i8>(&high), case.cols));
    let high = if range <= 32_512 { &[][..] } else { &high };
    let stride = padded(case.cols);
    let g = WideCodes {
        low: &low,
        high,
        stride,
        scales: &scales,
        rows: case.tokens,
    };
    compare(
        case,
        write,
        |t, o| sums[t * case.rows + o] as f64 as f32 * scales[t],
        |kernels, panels, dx| match kernels {
            Kernels::Of(isa) => int8::backward(isa, wt, panels, g, write, dx),
            Kernels::Emulated => {
                // SAFETY: arrays need no instructions.
                let kernel = |wt: int8::Panels<'_>, panels, g: WideCodes<'_>, totals: &mut [_]| unsafe {
                    lanes::int8_backward::<Array>(wt, panels, g, totals);
                };
                int8::backward_by(kernel, wt, panels, g, write, dx);
            }
            #[cfg(target_arch = "aarch64")]
            Kernels::NeonBase => {
                // SAFETY: every aarch64 processor that runs tests has NEON.
                let kernel = |wt: int8::Panels<'_>, panels, g: WideCodes<'_>, totals: &mut [_]| unsafe {
                    super::neon::base::int8_backward(wt, panels, g, totals);
                };
                int8::backward_by(kernel, wt, panels, g, write, dx);
            }
        },
    );
}

fn writes() -> impl Strategy<Value = Write> {
    prop::sample::select(vec![Write::Replace, Write::Add])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn ternary_forward_is_exact_on_every_back_end(case in cases(1200)) {
        ternary_forward(case);
    }

    #[test]
    fn ternary_backward_is_exact_on_every_back_end(case in cases(1200), write in writes()) {
        ternary_backward(case, write);
    }

    #[test]
    fn int8_forward_is_exact_on_every_back_end(case in cases(1200)) {
        int8_forward(case);
    }

    #[test]
    fn int8_backward_is_exact_on_every_back_end(
        case in cases(1200),
        write in writes(),
        range in prop::sample::select(vec![32_512, 4_194_303]),
    ) {
        int8_backward(case, write, range);
    }
}

/// The cases with the least headroom, at the documented limits.
#[test]
fn the_largest_sums_do_not_overflow() {
    for draw in [Draw::Largest, Draw::Smallest, Draw::Ends] {
        let case = Case {
            rows: 17,
            cols: ternary::LIMIT,
            tokens: 2,
            draw,
            seed: 7,
        };
        ternary_forward(case);
        ternary_forward(Case { tokens: 1, ..case });
        ternary_backward(case, Write::Replace);
        int8_forward(case);
        int8_forward(Case { tokens: 1, ..case });
        let vocabulary = Case {
            cols: int8::LIMIT,
            ..case
        };
        int8_backward(vocabulary, Write::Replace, 4_194_303);
    }
}

/// Column counts around every block length, where accumulators are widened.
#[test]
fn sums_are_widened_in_time_at_every_block_boundary() {
    for blocks in [15, 16, 24, 25, 30, 31, 32, 33, 45, 62, 63, 64, 65] {
        for extra in [-1, 0, 1] {
            for draw in [Draw::Largest, Draw::Smallest] {
                let cols = (blocks * 16 + extra) as usize;
                for tokens in [1, 2, 7] {
                    let case = Case {
                        rows: 16,
                        cols,
                        tokens,
                        draw,
                        seed: 3,
                    };
                    ternary_forward(case);
                    ternary_backward(case, Write::Add);
                    int8_forward(case);
                    int8_backward(case, Write::Add, 4_194_303);
                }
            }
        }
    }
}
