//! Values near halves of steps, for every operation of a device that rounds to integers, or integers
//! to f32.
//!
//! A value drawn at random lies there almost never: a back end that breaks ties otherwise, divides
//! where a rule multiplies, or flushes subnormals would show nowhere else.

use super::{Draw, Golden, Record};
use crate::elementary::ln;
use crate::environment::undisturbed;
use crate::sampler::weigh;
use crate::scalar::quantize::{INT8_RANGE, SMALLEST_ABSMAX, SMALLEST_GRADIENT, TERNARY_RANGE};
use crate::{Bytes, Device, NotFinite, Write, int8, signed_unit, ternary};

/// Range of activations (rule 2).
const ACTIVATION_RANGE: f32 = 127.0;
/// Values in a row.
const COLUMNS: usize = 256;
/// What every row has beside its largest magnitude: zeros and subnormals of either sign, by their
/// bits.
const TINY: [u32; 6] = [0, 1 << 31, 1, 0x8000_0001, 0x007F_FFFF, 0x807F_FFFF];
/// Largest magnitudes of rows, of any quantizer.
const MAXIMA: [f32; 5] = [0.7, 1.0, 3.0, 10.0, f32::MAX];
/// Rows of the head whose gradients lie near halves.
const TOKENS: usize = 8;
/// Losses near halves of the fixed point.
const LOSSES: usize = 64;
/// Exponents whose weights lie near halves.
const EXPONENTS: usize = 500;
/// Sums near halves of f32's steps.
const SUMS: usize = 64;
/// What rows of codes are multiplied by, one row each: signs, and scales that are powers of two.
const FACTORS: [f32; 6] = [1.0, -1.0, 0.5, -0.5, 1024.0, -1024.0];

/// Every quantizer of rows, that of the head's gradients among them, the fixed point of losses, and
/// the weights of the sampler.
pub(super) fn quantizers<D: Device>(device: &D, draw: &mut Draw) -> Result<Golden, NotFinite> {
    let mut record = Record::new(device);
    activations(draw, &mut record)?;
    ternary_gradients(draw, &mut record)?;
    let panels = int8::pack(&identity(), COLUMNS, COLUMNS).expect("zeros and ones");
    let panels = Bytes::from_slice(&panels);
    int8_gradients(&panels, draw, &mut record)?;
    for most in [INT8_RANGE, 0.7, 3.0] {
        head_gradients(&panels, most, draw, &mut record)?;
    }
    for _ in 0..LOSSES {
        loss(draw, &mut record)?;
    }
    let weights = undisturbed(|| weigh(device.host_isa(), exponents(draw)));
    record.hasher.u32(&weights);
    Ok(record.finish("halves of quantizers' steps"))
}

/// Sums of integers that f32 does not hold, forward and backward.
pub(super) fn sums<D: Device>(device: &D, draw: &mut Draw) -> Result<Golden, NotFinite> {
    let mut record = Record::new(device);
    let n = FACTORS.len();

    let codes = parts(TERNARY_RANGE, 1_100);
    let columns = weights(&codes, 1, &totals(1, draw));
    let panels = ternary::pack(&transposed(&columns), codes.len(), SUMS);
    let panels = Bytes::from_slice(&panels.expect("zeros and ones"));
    let w = device.ternary(panels, codes.len(), SUMS, 1.0);
    let mut dx = device.zeros(n * SUMS);
    device.ternary_backward(
        &w,
        &device.upload(&rows_of(&codes)),
        n,
        Write::Replace,
        &mut dx,
    )?;
    record.buffer(&dx);

    let codes = parts(INT8_RANGE, 70);
    let columns = weights(&codes, 127, &totals(10, draw));
    let panels = int8::pack(&transposed(&columns), codes.len(), SUMS);
    let panels = Bytes::from_slice(&panels.expect("within +-127"));
    let w = device.int8(panels, codes.len(), SUMS, &vec![1.0; codes.len()]);
    device.int8_backward(
        &w,
        &device.upload(&rows_of(&codes)),
        n,
        Write::Replace,
        &mut dx,
    )?;
    record.buffer(&dx);

    let codes = parts(ACTIVATION_RANGE, 1_093);
    let rows = weights(&codes, 127, &totals(0, draw)).concat();
    let panels = int8::pack(&rows, SUMS, codes.len()).expect("within +-127");
    let w = device.int8(Bytes::from_slice(&panels), SUMS, codes.len(), &[1.0; SUMS]);
    let mut x = device.codes(n, codes.len());
    device.quantize(&device.upload(&rows_of(&codes)), n, &mut x)?;
    let mut y = device.zeros(n * SUMS);
    device.int8_forward(&w, &x, &mut y);
    record.buffer(&y);
    Ok(record.finish("halves of sums' steps"))
}

fn activations<D: Device>(draw: &mut Draw, record: &mut Record<'_, D>) -> Result<(), NotFinite> {
    let device = record.device;
    let x = rows(ACTIVATION_RANGE, SMALLEST_ABSMAX, draw);
    let n = x.len() / COLUMNS;
    let mut codes = device.codes(n, COLUMNS);
    device.quantize(&device.upload(&x), n, &mut codes)?;
    record.codes(&codes, n, COLUMNS);
    Ok(())
}

/// Codes show in what the identity makes of them. The smaller of two scales leaves subnormals.
fn ternary_gradients<D: Device>(
    draw: &mut Draw,
    record: &mut Record<'_, D>,
) -> Result<(), NotFinite> {
    let device = record.device;
    let dy = rows(TERNARY_RANGE, SMALLEST_GRADIENT, draw);
    let n = dy.len() / COLUMNS;
    let panels = ternary::pack(&identity(), COLUMNS, COLUMNS).expect("zeros and ones");
    let panels = Bytes::from_slice(&panels);
    for scale in [1.0, f32::EPSILON] {
        let w = device.ternary(panels.clone(), COLUMNS, COLUMNS, scale);
        let mut dx = device.zeros(dy.len());
        device.ternary_backward(&w, &device.upload(&dy), n, Write::Replace, &mut dx)?;
        record.buffer(&dx);
    }
    Ok(())
}

fn int8_gradients<D: Device>(
    panels: &Bytes,
    draw: &mut Draw,
    record: &mut Record<'_, D>,
) -> Result<(), NotFinite> {
    let device = record.device;
    let dy = rows(INT8_RANGE, SMALLEST_GRADIENT, draw);
    let w = device.int8(panels.clone(), COLUMNS, COLUMNS, &[1.0; COLUMNS]);
    let mut dx = device.zeros(dy.len());
    let n = dy.len() / COLUMNS;
    device.int8_backward(&w, &device.upload(&dy), n, Write::Replace, &mut dx)?;
    record.buffer(&dx);
    Ok(())
}

/// Of logits that are all zero each gradient is the scale of its row of weights times a power of two:
/// the scales lie near halves, and so do 255 times them, which the targets' gradients are.
fn head_gradients<D: Device>(
    panels: &Bytes,
    most: f32,
    draw: &mut Draw,
    record: &mut Record<'_, D>,
) -> Result<(), NotFinite> {
    let device = record.device;
    let mut scales = Vec::new();
    undisturbed(|| row(INT8_RANGE, most, most, draw, &mut scales));
    for scale in &mut scales {
        *scale = scale.abs();
    }
    // No target's gradient is the largest, by which all are divided.
    let is_small = |at: &usize| scales[*at] > 0.0 && scales[*at] <= most / COLUMNS as f32;
    let small: Vec<usize> = (0..COLUMNS).rev().filter(is_small).collect();
    let targets = small.iter().cycle().take(TOKENS);
    let targets: Vec<u32> = targets.map(|&at| at as u32).collect();
    let head = device.int8(panels.clone(), COLUMNS, COLUMNS, &scales);
    let zeros = device.zeros(TOKENS * COLUMNS);
    let mut x = device.codes(TOKENS, COLUMNS);
    device.quantize(&zeros, TOKENS, &mut x)?;
    let mut dx = zeros;
    let sum = device.head_loss(&head, &x, &targets, TOKENS, Some(&mut dx))?;
    record.buffer(&dx);
    record.hasher.i64(&[sum]);
    Ok(())
}

/// The loss of the likelier of two tokens.
fn loss<D: Device>(draw: &mut Draw, record: &mut Record<'_, D>) -> Result<(), NotFinite> {
    let device = record.device;
    let panels = int8::pack(&[1, -1], 2, 1).expect("within +-127");
    let head = device.int8(Bytes::from_slice(&panels), 2, 1, &[1.0; 2]);
    let mut x = device.codes(1, 1);
    device.quantize(&device.upload(&[logit(draw)]), 1, &mut x)?;
    let loss = device.head_loss(&head, &x, &[0], 1, None)?;
    record.hasher.i64(&[loss]);
    Ok(())
}

/// A logit that, beside its negative, has a loss between 1/4 and 1/2: there every second f32 is a
/// half of a step of the fixed point.
fn logit(draw: &mut Draw) -> f32 {
    undisturbed(|| 0.4 + 0.18 * signed_unit(draw.word()))
}

/// Exponents whose weights lie near halves: for large weights one in four is a tie.
fn exponents(draw: &mut Draw) -> Vec<f32> {
    let mut exponents = vec![0.0, -0.0, -16.0];
    while exponents.len() < EXPONENTS {
        let half = (code(1 << 22, draw) as f32 + 0.5) / 4_194_304.0;
        exponents.extend(neighbours(ln(half)));
    }
    exponents
}

/// Rows of [`COLUMNS`] values near halves of the steps of a quantizer to +-`range`, whose rows are
/// divided by their largest magnitude where that is `least` or more.
fn rows(range: f32, least: f32, draw: &mut Draw) -> Vec<f32> {
    undisturbed(|| {
        let [below, above] = [least.to_bits() - 1, least.to_bits() + 1].map(f32::from_bits);
        let drawn = [(); 3].map(|()| 10.0 * signed_unit(draw.word()).abs() + least);
        // Exact ties lie beside the range and its multiples by powers of two.
        let first = [range, range / 1024.0, below, least, above];
        let mut values = Vec::new();
        for most in first.into_iter().chain(MAXIMA).chain(drawn) {
            let divisor = if most < least { least } else { most };
            row(range, divisor, most, draw, &mut values);
        }
        values.extend(
            TINY.iter()
                .cycle()
                .take(COLUMNS)
                .copied()
                .map(f32::from_bits),
        );
        values
    })
}

/// Adds a row of values of magnitude `most` at the most, near halves of the steps of a quantizer that
/// multiplies by `range / divisor`.
fn row(range: f32, divisor: f32, most: f32, draw: &mut Draw, values: &mut Vec<f32>) {
    let end = values.len() + COLUMNS;
    values.push(most);
    values.extend(TINY.map(f32::from_bits));
    let factor = range / divisor;
    while values.len() < end {
        let half = (code(range as usize, draw) as f32 + 0.5) / factor;
        let half = f32::from_bits(half.to_bits() | draw.word() & 1 << 31);
        values.extend(neighbours(half).filter(|value| value.abs() <= most));
    }
    values.truncate(end);
}

/// A code below `range`: small and large ones are as likely.
fn code(range: usize, draw: &mut Draw) -> usize {
    draw.between(0, range - 1) >> draw.between(0, range.ilog2() as usize)
}

/// A value, and two on either side.
fn neighbours(value: f32) -> impl Iterator<Item = f32> {
    let bits = value.to_bits();
    (bits - 2..=bits + 2).map(f32::from_bits)
}

fn identity() -> Vec<i8> {
    let mut weights = vec![0; COLUMNS * COLUMNS];
    weights.iter_mut().step_by(COLUMNS + 1).for_each(|w| *w = 1);
    weights
}

/// `count` times the range, and every power of two below it, descending: codes of which any sum can be
/// made. The range is the largest, so that they are their own codes.
fn parts(range: f32, count: usize) -> Vec<i64> {
    let range = range as i64;
    let powers = (0..=range.ilog2()).rev().map(|power| 1 << power);
    let mut parts = vec![range; count];
    parts.extend(powers.filter(|power| *power < range));
    parts
}

/// The codes as a row for each of [`FACTORS`].
fn rows_of(codes: &[i64]) -> Vec<f32> {
    let row = |factor: f32| codes.iter().map(move |code| *code as f32 * factor);
    undisturbed(|| FACTORS.into_iter().flat_map(row).collect())
}

/// Sums that lie on halves of f32's steps, or one beside, from 2^24 up to 2^(25 + `doublings`).
fn totals(doublings: usize, draw: &mut Draw) -> Vec<i64> {
    let mut total = || {
        let base = 1 << (24 + draw.between(0, doublings));
        let half = base >> 24;
        let odd = 2 * draw.between(0, 1_000) as i64 + 1;
        base + odd * half + draw.between(0, 2) as i64 - 1
    };
    (0..SUMS).map(|_| total()).collect()
}

/// For each total weights of at most `most` with which the codes sum up to it.
fn weights(codes: &[i64], most: i64, totals: &[i64]) -> Vec<Vec<i8>> {
    let of_total = |total: &i64| {
        let mut rest = *total;
        let mut weight = |code: &i64| {
            let weight = most.min(rest / code);
            rest -= weight * code;
            weight as i8
        };
        let weights = codes.iter().map(&mut weight).collect();
        assert_eq!(rest, 0, "the codes make {total}");
        weights
    };
    totals.iter().map(of_total).collect()
}

/// Columns as a row-major matrix.
fn transposed(columns: &[Vec<i8>]) -> Vec<i8> {
    let rows = columns.first().map_or(0, Vec::len);
    let row = |row: usize| columns.iter().map(move |column| column[row]);
    (0..rows).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GOLDEN_SEED;
    use crate::elementary::{exp, round_even};
    use crate::scalar::loss::LOSS_ONE;

    /// A half away from zero, as `f32::round` has it.
    fn away_from_zero(x: f32) -> i32 {
        let magnitude = (f64::from(x).abs() + 0.5) as i32;
        if x < 0.0 { -magnitude } else { magnitude }
    }

    #[test]
    fn rows_tell_each_quantizer_from_one_that_rounds_otherwise() {
        let quantizers = [
            (ACTIVATION_RANGE, SMALLEST_ABSMAX),
            (TERNARY_RANGE, SMALLEST_GRADIENT),
            (INT8_RANGE, SMALLEST_GRADIENT),
        ];
        for (range, least) in quantizers {
            let values = rows(range, least, &mut Draw::new(GOLDEN_SEED));
            let (mut ties_of_even, mut ties_of_odd, mut below, mut above) = (0, 0, 0, 0);
            let (mut divided, mut wide) = (0, 0);
            for row in values.chunks_exact(COLUMNS) {
                let largest = |m: f32, x: &f32| if x.abs() > m { x.abs() } else { m };
                let m = row.iter().fold(least, largest);
                let factor = range / m;
                for x in row {
                    let product = x * factor;
                    let code = round_even(product);
                    let past = f64::from(product).abs() - f64::from(product.abs() as i32) - 0.5;
                    let near = past.abs() < 1e-3;
                    below += u32::from(near && past < 0.0);
                    above += u32::from(near && past > 0.0);
                    ties_of_even += u32::from(past == 0.0 && code == away_from_zero(product));
                    ties_of_odd += u32::from(past == 0.0 && code != away_from_zero(product));
                    divided += u32::from(round_even(x / (m / range)) != code);
                    wide += u32::from(
                        (f64::from(*x) * (f64::from(range) / f64::from(m))).round_ties_even()
                            as i32
                            != code,
                    );
                }
            }
            let found = [ties_of_even, ties_of_odd, below, above, divided, wide];
            assert!(found.iter().all(|count| *count > 5), "{range}: {found:?}");
        }
    }

    #[test]
    fn losses_and_weights_lie_on_halves() {
        let mut draw = Draw::new(GOLDEN_SEED);
        let halves = |x: f64| x.fract() == 0.5;
        let losses = (0..LOSSES).filter(|_| {
            let logit = 127.0 * (logit(&mut draw) / 127.0);
            let loss = ln(1.0 + exp(-logit - logit));
            halves(f64::from(loss) * LOSS_ONE as f64)
        });
        let losses = losses.count();
        let exponents = exponents(&mut draw);
        assert!(exponents.iter().all(|x| (-16.0..=0.0).contains(x)));
        let weights = exponents.iter().map(|x| 4_194_304.0 * f64::from(exp(*x)));
        let weights = weights.filter(|weight| halves(*weight)).count();
        assert!(losses > 10 && weights > 10, "{losses} {weights}");
    }

    #[test]
    fn sums_lie_on_halves_of_the_steps_of_f32() {
        let mut draw = Draw::new(GOLDEN_SEED);
        for doublings in [0, 1, 10] {
            let totals = totals(doublings, &mut draw);
            let step = |total: &i64| 2 << (total.ilog2() - 24);
            let tie = |total: &&i64| *total % step(total) * 2 == step(total);
            let up = |total: &&i64| **total as f32 as i64 > **total;
            let ties: Vec<&i64> = totals.iter().filter(tie).collect();
            let ties_up = ties.iter().copied().filter(up).count();
            assert!(ties_up > 2 && ties.len() > ties_up + 2 && ties.len() < totals.len());
        }
    }
}
