//! Every vector kernel against its definition, bit for bit: on emulated vectors, which any machine
//! runs, and on the instruction sets that this machine has.

use proptest::prelude::*;

use crate::attention::{AttendPass, BLOCK, HeadPass, HeadRows, KvHead, head_block, store_position};
use crate::kernels::{Version, versions};
use crate::product::{Finish, Product};
use crate::scalar::elementwise::AdamWStep;
use crate::scalar::loss::Softmax;
use crate::tile::Tile;
use crate::{Activation, AdamW, Philox, RopePairs, Write, row_stride, scalar, signed_unit};

/// How values are drawn.
#[derive(Debug, Clone, Copy)]
enum Draw {
    /// In [-1, 1).
    Plain,
    /// Any magnitude from 2^-140 to 2^40: subnormals and numbers that swallow others.
    Wide,
    /// Multiples of half a step of the int8 quantizer, moved by a few units in the last place.
    NearHalf,
    /// Zeros of both signs and few other values.
    Zeros,
    /// One large value among small ones.
    Peak,
}

fn draw() -> impl Strategy<Value = Draw> {
    prop_oneof![
        Just(Draw::Plain),
        Just(Draw::Wide),
        Just(Draw::NearHalf),
        Just(Draw::Zeros),
        Just(Draw::Peak),
    ]
}

/// A source of values.
struct Values {
    random: Philox,
    at: u64,
}

impl Values {
    fn new(seed: u64) -> Self {
        Self {
            random: Philox::from_seed(seed),
            at: 0,
        }
    }

    fn word(&mut self) -> u32 {
        self.at += 1;
        self.random.word(self.at)
    }

    fn vec(&mut self, draw: Draw, len: usize) -> Vec<f32> {
        let peak = self.word() as usize % len.max(1);
        (0..len).map(|i| self.value(draw, i == peak)).collect()
    }

    fn value(&mut self, draw: Draw, peak: bool) -> f32 {
        let unit = signed_unit(self.word());
        let word = self.word();
        match draw {
            Draw::Plain => unit,
            Draw::Wide => {
                let exponent = (word % 181) as i32 - 140;
                let half = f32::from_bits(((127 + exponent / 2) as u32) << 23);
                let rest = f32::from_bits(((127 + exponent - exponent / 2) as u32) << 23);
                unit * half * rest
            }
            Draw::NearHalf => {
                let step = (word % 509) as f32 * 0.5 - 127.0;
                let near = (step * (3.7 / 127.0)).to_bits();
                let moved = near.wrapping_add(word >> 16 & 3).saturating_sub(1);
                if peak { 3.7 } else { f32::from_bits(moved) }
            }
            Draw::Zeros => match word % 4 {
                0 => 0.0,
                1 => -0.0,
                2 => unit * f32::MIN_POSITIVE,
                _ => unit,
            },
            Draw::Peak if peak => 3e4 * unit,
            Draw::Peak => unit * 1e-3,
        }
    }
}

/// Compares bits; NaN equals NaN, since processors differ in its sign and nothing reads it.
fn same(name: &str, version: Version, a: &[f32], b: &[f32]) -> Result<(), TestCaseError> {
    prop_assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        prop_assert!(
            a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
            "{} of {:?} differs at {}: {:e} instead of {:e}",
            name,
            version,
            i,
            b,
            a
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn norms_equal_the_definition(seed: u64, kind in draw(), n in 1usize..100) {
        let mut values = Values::new(seed);
        let (x, gain) = (values.vec(kind, n), values.vec(Draw::Plain, n));
        let (dy, dx) = (values.vec(kind, n), values.vec(kind, n));
        let mut expected = vec![0.0; n];
        scalar::norm::rms_norm(&x, &gain, 1e-5, &mut expected);
        let mut expected_dx = dx.clone();
        scalar::norm::rms_norm_backward(&x, &gain, 1e-5, &dy, &mut expected_dx);
        for version in Version::all() {
            let mut out = vec![9.0; n];
            versions::rms_norm(version, &x, &gain, 1e-5, &mut out);
            same("rms_norm", version, &expected, &out)?;
            let mut out = dx.clone();
            versions::rms_norm_backward(version, &x, &gain, 1e-5, &dy, &mut out);
            same("rms_norm_backward", version, &expected_dx, &out)?;
        }
    }

    #[test]
    fn quantizers_equal_the_definition(
        seed: u64,
        kind in draw(),
        n in 1usize..100,
        bad in prop::option::weighted(0.2, prop::sample::select(vec![f32::NAN, f32::INFINITY, -f32::INFINITY])),
    ) {
        let mut values = Values::new(seed);
        let mut x = values.vec(kind, n);
        if let Some(bad) = bad {
            x[values.word() as usize % n] = bad;
        }
        let stride = row_stride(n);
        let mut codes = vec![0i8; stride];
        let mut narrow = vec![0i16; stride];
        let (mut low, mut high) = (vec![0i16; stride], vec![0i8; stride]);
        let expected = scalar::quantize::activations(&x, &mut codes);
        let expected_narrow = scalar::quantize::gradient_narrow(&x, &mut narrow);
        let expected_wide = scalar::quantize::gradient_wide(&x, &mut low, &mut high);
        prop_assert_eq!(expected.is_none(), bad.is_some());
        for version in Version::all() {
            prop_assert_eq!(versions::absmax_bits(version, &x), scalar::quantize::absmax_bits(&x));
            let mut out = vec![1i8; stride];
            prop_assert_eq!(versions::activations(version, &x, &mut out), expected);
            let mut out_narrow = vec![1i16; stride];
            prop_assert_eq!(versions::gradient_narrow(version, &x, &mut out_narrow), expected_narrow);
            let (mut out_low, mut out_high) = (vec![1i16; stride], vec![1i8; stride]);
            prop_assert_eq!(versions::gradient_wide(version, &x, &mut out_low, &mut out_high), expected_wide);
            if bad.is_none() {
                prop_assert_eq!(&out, &codes);
                prop_assert_eq!(&out_narrow, &narrow);
                prop_assert_eq!((&out_low, &out_high), (&low, &high));
            }
            let mut expected_back = vec![0.0; n];
            scalar::quantize::dequantize(&codes[..n], 0.37, &mut expected_back);
            let mut back = vec![0.0; n];
            versions::dequantize(version, &codes[..n], 0.37, &mut back);
            same("dequantize", version, &expected_back, &back)?;
        }
    }

    #[test]
    fn elementwise_operations_equal_the_definition(seed: u64, kind in draw(), n in 1usize..70) {
        let mut values = Values::new(seed);
        let [a, b, c] = [(); 3].map(|()| values.vec(kind, n));
        let scaled: Vec<f32> = a.iter().map(|v| v * 64.0).collect();
        for version in Version::all() {
            let (mut expected, mut out) = (b.clone(), b.clone());
            scalar::elementwise::add(&a, &mut expected);
            versions::add(version, &a, &mut out);
            same("add", version, &expected, &out)?;
            scalar::elementwise::multiply(&c, &mut expected);
            versions::multiply(version, &c, &mut out);
            same("multiply", version, &expected, &out)?;
            scalar::elementwise::scale(1.7, &a, &mut expected);
            versions::scale(version, 1.7, &a, &mut out);
            same("scale", version, &expected, &out)?;
            for activation in [Activation::Silu, Activation::Relu2] {
                scalar::elementwise::gated(activation, &scaled, &b, &mut expected);
                versions::gated(version, activation, &scaled, &b, &mut out);
                same("gated", version, &expected, &out)?;
                let (mut expected_up, mut out_up) = (b.clone(), b.clone());
                let inputs = [&scaled[..], &b, &c];
                scalar::elementwise::gated_backward(activation, inputs, &mut expected, &mut expected_up);
                versions::gated_backward(version, activation, inputs, &mut out, &mut out_up);
                same("dgate", version, &expected, &out)?;
                same("dup", version, &expected_up, &out_up)?;
            }
        }
    }

    #[test]
    fn rotations_equal_the_definition(seed: u64, kind in draw(), half in 1usize..40, backward: bool) {
        let mut values = Values::new(seed);
        let head = values.vec(kind, 2 * half);
        let (cos, sin) = (values.vec(Draw::Plain, half), values.vec(Draw::Plain, half));
        let twice: Vec<f32> = cos.iter().flat_map(|c| [*c, *c]).collect();
        let signed: Vec<f32> = sin.iter().flat_map(|s| [-s, *s]).collect();
        for version in Version::all() {
            for (pairs, cos, sin) in [
                (RopePairs::HalfSplit, &cos, &sin),
                (RopePairs::Interleaved, &twice, &signed),
            ] {
                let (mut expected, mut out) = (head.clone(), head.clone());
                scalar::elementwise::rotate(pairs, cos, sin, backward, &mut expected);
                versions::rotate(version, pairs, cos, sin, backward, &mut out);
                same("rotate", version, &expected, &out)?;
            }
        }
    }

    #[test]
    fn adamw_equals_the_definition(seed: u64, kind in draw(), n in 1usize..70, t in 1u64..20) {
        let mut values = Values::new(seed);
        let step = AdamWStep::new(AdamW {
            learning_rate: 4e-3,
            beta1: 0.9,
            beta2: 0.999,
            c1: 0.1,
            c2: 0.001,
            epsilon: 1e-8,
            weight_decay: 0.01,
            t,
        });
        let (g, w, m) = (values.vec(kind, n), values.vec(Draw::Plain, n), values.vec(kind, n));
        let v: Vec<f32> = values.vec(kind, n).into_iter().map(f32::abs).collect();
        let (mut w0, mut m0, mut v0) = (w.clone(), m.clone(), v.clone());
        scalar::elementwise::adamw(&step, &g, &mut w0, &mut m0, &mut v0);
        for version in Version::all() {
            let (mut w1, mut m1, mut v1) = (w.clone(), m.clone(), v.clone());
            versions::adamw(version, &step, &g, &mut w1, &mut m1, &mut v1);
            same("weights", version, &w0, &w1)?;
            same("first moments", version, &m0, &m1)?;
            same("second moments", version, &v0, &v1)?;
        }
    }

    #[test]
    fn products_equal_the_definition(
        seed: u64,
        kind in draw(),
        // The second kind has right factors that are taken in strips.
        (rows, cols, depth) in prop_oneof![
            4 => (1usize..22, 1usize..70, 0usize..40),
            1 => (1usize..10, 160usize..200, 52usize..60),
        ],
        by_columns: bool,
        finish in prop::sample::select(vec![
            Finish::Replace, Finish::Add, Finish::Scale(0.3), Finish::AddScaled(-1.9),
        ]),
    ) {
        let mut values = Values::new(seed);
        let (x, b) = (values.vec(kind, rows * depth + 1), values.vec(kind, depth * cols + cols));
        let old = values.vec(kind, rows * cols);
        let (x_row, x_step) = if by_columns { (1, rows) } else { (depth, 1) };
        let p = Product { x: &x, x_row, x_step, b: &b, b_step: cols, depth };
        let mut expected = old.clone();
        scalar::product::product(&p, finish, Tile::new(&mut expected, rows, cols));
        for version in Version::all() {
            let mut out = old.clone();
            versions::product(version, &p, finish, Tile::new(&mut out, rows, cols));
            same("product", version, &expected, &out)?;
        }
    }

    #[test]
    fn losses_equal_the_definition(seed: u64, kind in draw(), n in 1usize..150, spread in 0.1f32..60.0) {
        let mut values = Values::new(seed);
        let logits: Vec<f32> = values.vec(kind, n).into_iter().map(|v| v * spread).collect();
        let scales = values.vec(Draw::Plain, n);
        let bits = |lanes: [f32; 16]| lanes.map(f32::to_bits);
        let max = scalar::loss::maximum(&logits);
        prop_assert!(max.is_some());
        let start = [0.25; 16];
        let (mut expected, mut sums) = (logits.clone(), start);
        let largest = scalar::loss::exponentials(&mut expected, max.unwrap(), &mut sums);
        let softmax = Softmax { z: scalar::add_lanes(sums), inverse_count: 1.0 / 37.0 };
        let most = scalar::loss::gradient_bits(&expected, softmax, &scales);
        let factor = 4_194_303.0 / f32::from_bits(most.max(f32::MIN_POSITIVE.to_bits()));
        let factor = if factor.is_finite() { factor } else { 1.0 };
        let padded = n.next_multiple_of(16);
        let (mut low, mut high) = (vec![1; padded], vec![1; padded]);
        scalar::loss::gradient_codes(&expected, softmax, &scales, factor, (&mut low, &mut high));
        for version in Version::all() {
            prop_assert_eq!(versions::maximum(version, &logits), max);
            let mut bad = logits.clone();
            bad[n / 2] = f32::NAN;
            prop_assert_eq!(versions::maximum(version, &bad), None);
            let (mut out, mut lanes) = (logits.clone(), start);
            let found = versions::exponentials(version, &mut out, max.unwrap(), &mut lanes);
            same("exponentials", version, &expected, &out)?;
            prop_assert_eq!(found, largest);
            prop_assert_eq!(bits(lanes), bits(sums));
            prop_assert_eq!(versions::gradient_bits(version, &out, softmax, &scales), most);
            let (mut out_low, mut out_high) = (vec![2; padded], vec![2; padded]);
            let codes = (&mut out_low[..], &mut out_high[..]);
            versions::gradient_codes(version, &out, softmax, &scales, factor, codes);
            prop_assert_eq!((&out_low, &out_high), (&low, &high));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn attention_equals_the_definition(
        seed: u64,
        kind in draw(),
        head_dim in prop::sample::select(vec![1usize, 4, 8, 16, 24, 48, 64]),
        (rows, start) in (1usize..40, 0usize..150),
    ) {
        let mut values = Values::new(seed);
        let positions = start + rows;
        let mut blocks = vec![0.0; positions.div_ceil(BLOCK) * head_block(head_dim)];
        for j in 0..positions {
            let block = &mut blocks[j / BLOCK * head_block(head_dim)..];
            store_position(block, j, &values.vec(kind, head_dim), &values.vec(Draw::Plain, head_dim));
        }
        let q = values.vec(kind, rows * head_dim);
        let pass = AttendPass {
            q: HeadRows::new(&q, 0, head_dim, 0, head_dim),
            kv: KvHead { data: &blocks, stride: head_block(head_dim), head_dim },
            start,
            scale: 0.31,
        };
        let mut expected = vec![0.0; rows * head_dim];
        scalar::attention::attend(&pass, Tile::new(&mut expected, rows, head_dim));
        for version in Version::all() {
            let mut out = vec![7.0; rows * head_dim];
            versions::attend(version, &pass, Tile::new(&mut out, rows, head_dim));
            same("attend", version, &expected, &out)?;
        }
    }

    #[test]
    fn blocks_are_transposed_for_any_head(
        seed: u64,
        (head_dim, column, beside) in (1usize..70, 0usize..5, 0usize..5),
        (first, n) in (0usize..20, 1usize..=BLOCK),
    ) {
        let stride = column + head_dim + beside;
        let data = Values::new(seed).vec(Draw::Wide, (first + n) * stride);
        let rows = HeadRows { data: &data, stride, column, head_dim };
        for version in Version::all() {
            let mut block = vec![7.0; BLOCK * head_dim];
            versions::transpose(version, rows, first, n, &mut block);
            for (d, found) in block.chunks_exact(BLOCK).enumerate() {
                let expected: Vec<f32> = (first..first + n).map(|row| rows.row(row)[d]).collect();
                same("transpose", version, &expected, &found[..n])?;
            }
        }
    }

    #[test]
    fn attention_gradients_equal_the_definition(
        seed: u64,
        kind in draw(),
        head_dim in prop::sample::select(vec![2usize, 8, 16, 24, 48]),
        rows in 1usize..150,
        write in prop::sample::select(vec![Write::Replace, Write::Add]),
    ) {
        let mut values = Values::new(seed);
        let n = rows * head_dim;
        let [q, k, v, out, dout] = [kind, kind, Draw::Plain, Draw::Plain, kind].map(|d| values.vec(d, n));
        let head = |m| HeadRows::new(m, 0, head_dim, 0, head_dim);
        let pass = HeadPass {
            q: head(&q),
            k: head(&k),
            v: head(&v),
            out: head(&out),
            dout: head(&dout),
            rows,
            write,
            scale: 0.31,
        };
        let old = values.vec(Draw::Plain, n);
        let run = |version: Option<Version>| {
            let (mut dq, mut dk, mut dv) = (vec![0.0; n], old.clone(), old.clone());
            {
                let tiles = [&mut dq, &mut dk, &mut dv].map(|m| Tile::new(m, rows, head_dim));
                let [dq, dk, dv] = tiles;
                match version {
                    None => scalar::attention::attend_backward(&pass, dq, dk, dv),
                    Some(version) => versions::attend_backward(version, &pass, dq, dk, dv),
                }
            }
            [dq, dk, dv]
        };
        let expected = run(None);
        for version in Version::all() {
            for (name, (expected, out)) in ["dq", "dk", "dv"].iter().zip(expected.iter().zip(run(Some(version)))) {
                same(name, version, expected, &out)?;
            }
        }
    }
}

#[test]
fn exponentials_equal_the_definition_everywhere() {
    // Every exponent and sign with a few mantissas, through the loss's softmax of two logits.
    for high in 0..0x10000u32 {
        let x = f32::from_bits(high << 16 | 0x5A5A);
        if !x.is_finite() {
            continue;
        }
        for version in Version::all() {
            let mut out = [0.0; 1];
            versions::gated(version, Activation::Silu, &[x], &[1.0], &mut out);
            let expected = scalar::elementwise::activation(Activation::Silu, x).0;
            assert_eq!(out[0].to_bits(), expected.to_bits(), "{x:e} by {version:?}");
        }
    }
}
