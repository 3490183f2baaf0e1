//! RMSNorm of one row.

use super::simd::Simd;
use super::{load_part, store_part};

#[inline(always)]
fn inverse_rms<S: Simd>(s: S, x: &[f32], epsilon: f32) -> f32 {
    let (chunks, tail) = x.as_chunks();
    let mut lanes = s.splat(0.0);
    for chunk in chunks {
        let v = s.load(chunk);
        lanes = s.add(lanes, s.mul(v, v));
    }
    // Absent lanes add +0.0, which changes no sum of squares.
    let v = load_part(s, tail, 0.0);
    lanes = s.add(lanes, s.mul(v, v));
    1.0 / (s.add_lanes(lanes) / x.len() as f32 + epsilon).sqrt()
}

#[inline(always)]
pub(crate) fn rms_norm<S: Simd>(s: S, x: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]) {
    let r = s.splat(inverse_rms(s, x, epsilon));
    let (xs, x_tail) = x.as_chunks();
    let (gains, gain_tail) = gain.as_chunks();
    let (outs, out_tail) = out.as_chunks_mut();
    for ((x, gain), out) in xs.iter().zip(gains).zip(outs) {
        s.store(s.mul(s.mul(s.load(x), r), s.load(gain)), out);
    }
    let (x, gain) = (load_part(s, x_tail, 0.0), load_part(s, gain_tail, 0.0));
    store_part(s, s.mul(s.mul(x, r), gain), out_tail);
}

#[inline(always)]
pub(crate) fn rms_norm_backward<S: Simd>(
    s: S,
    x: &[f32],
    gain: &[f32],
    epsilon: f32,
    dy: &[f32],
    dx: &mut [f32],
) {
    let r = s.splat(inverse_rms(s, x, epsilon));
    let (xs, x_tail) = x.as_chunks();
    let (gains, gain_tail) = gain.as_chunks();
    let (dys, dy_tail) = dy.as_chunks();
    let (dxs, dx_tail) = dx.as_chunks_mut();
    let tails = (
        load_part(s, x_tail, 0.0),
        load_part(s, gain_tail, 0.0),
        load_part(s, dy_tail, 0.0),
    );
    let mut lanes = s.splat(0.0);
    for ((x, gain), dy) in xs.iter().zip(gains).zip(dys) {
        let u = s.mul(s.load(dy), s.load(gain));
        lanes = s.add(lanes, s.mul(u, s.mul(s.load(x), r)));
    }
    if !x_tail.is_empty() {
        // Absent lanes add +0.0; a lane's sum is never -0.0, so that changes none.
        let u = s.mul(tails.2, tails.1);
        lanes = s.add(lanes, s.mul(u, s.mul(tails.0, r)));
    }
    let c = s.splat(s.add_lanes(lanes) / x.len() as f32);
    for (((x, gain), dy), dx) in xs.iter().zip(gains).zip(dys).zip(dxs) {
        let u = s.mul(s.load(dy), s.load(gain));
        let v = s.mul(s.sub(u, s.mul(s.mul(s.load(x), r), c)), r);
        s.store(s.add(s.load(dx), v), dx);
    }
    let u = s.mul(tails.2, tails.1);
    let v = s.mul(s.sub(u, s.mul(s.mul(tails.0, r), c)), r);
    store_part(s, s.add(load_part(s, dx_tail, 0.0), v), dx_tail);
}
