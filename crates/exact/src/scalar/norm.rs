//! RMSNorm of one row (rule 12).

use super::lane_sum_of;

/// `1 / sqrt(lanesum(x^2) / n + epsilon)`
pub(crate) fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    let squares = lane_sum_of(x.iter().map(|v| v * v));
    1.0 / (squares / x.len() as f32 + epsilon).sqrt()
}

/// `out = (x * r) * gain`
pub(crate) fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]) {
    let r = inverse_rms(x, epsilon);
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = (x * r) * gain;
    }
}

/// `dx = dx + (u - xh * c) * r` with `u = dy * gain`, `xh = x * r`, `c = lanesum(u * xh) / n`.
pub(crate) fn rms_norm_backward(x: &[f32], gain: &[f32], epsilon: f32, dy: &[f32], dx: &mut [f32]) {
    let r = inverse_rms(x, epsilon);
    let terms = x.iter().zip(gain).zip(dy);
    let c = lane_sum_of(terms.map(|((x, gain), dy)| (dy * gain) * (x * r))) / x.len() as f32;
    for (((dx, x), gain), dy) in dx.iter_mut().zip(x).zip(gain).zip(dy) {
        *dx += (dy * gain - (x * r) * c) * r;
    }
}
