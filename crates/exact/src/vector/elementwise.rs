//! Operations that treat every element alike.

use super::simd::Simd;
use super::{exp, load_part, store_part};
use crate::scalar::elementwise::AdamWStep;
use crate::{Activation, RopePairs};

/// An operation on `IN` inputs and `OUT` outputs, which it may read before it replaces them.
trait Operation<S: Simd, const IN: usize, const OUT: usize> {
    fn apply(&self, s: S, inputs: [S::F; IN], outputs: [S::F; OUT]) -> [S::F; OUT];
}

/// Applies an operation to every element.
#[inline(always)]
fn map<S: Simd, const IN: usize, const OUT: usize>(
    s: S,
    operation: &impl Operation<S, IN, OUT>,
    inputs: [&[f32]; IN],
    mut outputs: [&mut [f32]; OUT],
) {
    let len = outputs[0].len();
    for input in &inputs {
        assert_eq!(input.len(), len, "operands of one length");
    }
    for output in &outputs {
        assert_eq!(output.len(), len, "operands of one length");
    }
    let zero = s.splat(0.0);
    for at in 0..len / 16 {
        let mut x = [zero; IN];
        let mut y = [zero; OUT];
        for (x, input) in x.iter_mut().zip(&inputs) {
            *x = s.load(&input.as_chunks().0[at]);
        }
        for (y, output) in y.iter_mut().zip(&outputs) {
            *y = s.load(&output.as_chunks().0[at]);
        }
        for (y, output) in operation.apply(s, x, y).into_iter().zip(&mut outputs) {
            s.store(y, &mut output.as_chunks_mut().0[at]);
        }
    }
    let tail = len / 16 * 16;
    if tail < len {
        let mut x = [zero; IN];
        let mut y = [zero; OUT];
        for (x, input) in x.iter_mut().zip(&inputs) {
            *x = load_part(s, &input[tail..], 1.0);
        }
        for (y, output) in y.iter_mut().zip(&outputs) {
            *y = load_part(s, &output[tail..], 1.0);
        }
        for (y, output) in operation.apply(s, x, y).into_iter().zip(&mut outputs) {
            store_part(s, y, &mut output[tail..]);
        }
    }
}

struct Add;
impl<S: Simd> Operation<S, 1, 1> for Add {
    #[inline(always)]
    fn apply(&self, s: S, [x]: [S::F; 1], [y]: [S::F; 1]) -> [S::F; 1] {
        [s.add(y, x)]
    }
}

#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    map(s, &Add, [x], [y]);
}

struct Multiply;
impl<S: Simd> Operation<S, 1, 1> for Multiply {
    #[inline(always)]
    fn apply(&self, s: S, [x]: [S::F; 1], [y]: [S::F; 1]) -> [S::F; 1] {
        [s.mul(y, x)]
    }
}

#[inline(always)]
pub(crate) fn multiply<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    map(s, &Multiply, [x], [y]);
}

struct Scale(f32);
impl<S: Simd> Operation<S, 1, 1> for Scale {
    #[inline(always)]
    fn apply(&self, s: S, [x]: [S::F; 1], _: [S::F; 1]) -> [S::F; 1] {
        [s.mul(s.splat(self.0), x)]
    }
}

#[inline(always)]
pub(crate) fn scale<S: Simd>(s: S, factor: f32, x: &[f32], y: &mut [f32]) {
    map(s, &Scale(factor), [x], [y]);
}

/// SiLU and its derivative.
#[inline(always)]
fn silu<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let one = s.splat(1.0);
    // The sign bit flipped, as unary minus does; 0 - x would lose the sign of a zero.
    let negated = s.floats(s.sub_int(s.bits(x), s.splat_int(i32::MIN)));
    let denominator = s.add(one, exp(s, negated));
    let p = s.div(one, denominator);
    let derivative = s.mul(p, s.add(one, s.mul(x, s.sub(one, p))));
    (s.div(x, denominator), derivative)
}

/// Squared ReLU and its derivative.
#[inline(always)]
fn relu2<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let zero = s.splat(0.0);
    let relu = s.select_less(zero, x, x, zero);
    (s.mul(relu, relu), s.mul(s.splat(2.0), relu))
}

struct Swiglu;
impl<S: Simd> Operation<S, 2, 1> for Swiglu {
    #[inline(always)]
    fn apply(&self, s: S, [gate, up]: [S::F; 2], _: [S::F; 1]) -> [S::F; 1] {
        [s.mul(silu(s, gate).0, up)]
    }
}

struct Reglu2;
impl<S: Simd> Operation<S, 2, 1> for Reglu2 {
    #[inline(always)]
    fn apply(&self, s: S, [gate, up]: [S::F; 2], _: [S::F; 1]) -> [S::F; 1] {
        [s.mul(relu2(s, gate).0, up)]
    }
}

#[inline(always)]
pub(crate) fn gated<S: Simd>(s: S, kind: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match kind {
        Activation::Silu => map(s, &Swiglu, [gate, up], [out]),
        Activation::Relu2 => map(s, &Reglu2, [gate, up], [out]),
    }
}

impl<S: Simd> Operation<S, 3, 2> for Swiglu {
    #[inline(always)]
    fn apply(&self, s: S, [gate, up, dout]: [S::F; 3], _: [S::F; 2]) -> [S::F; 2] {
        let (value, derivative) = silu(s, gate);
        [s.mul(s.mul(dout, up), derivative), s.mul(dout, value)]
    }
}

impl<S: Simd> Operation<S, 3, 2> for Reglu2 {
    #[inline(always)]
    fn apply(&self, s: S, [gate, up, dout]: [S::F; 3], _: [S::F; 2]) -> [S::F; 2] {
        let (value, derivative) = relu2(s, gate);
        [s.mul(s.mul(dout, up), derivative), s.mul(dout, value)]
    }
}

#[inline(always)]
pub(crate) fn gated_backward<S: Simd>(
    s: S,
    kind: Activation,
    inputs: [&[f32]; 3],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    match kind {
        Activation::Silu => map(s, &Swiglu, inputs, [dgate, dup]),
        Activation::Relu2 => map(s, &Reglu2, inputs, [dgate, dup]),
    }
}

/// Inputs cosine and sine; outputs the first and the second of each pair.
struct RotateHalves {
    backward: bool,
}
impl<S: Simd> Operation<S, 2, 2> for RotateHalves {
    #[inline(always)]
    fn apply(&self, s: S, [cos, sin]: [S::F; 2], [a, b]: [S::F; 2]) -> [S::F; 2] {
        let (ac, bs) = (s.mul(a, cos), s.mul(b, sin));
        let (bc, as_) = (s.mul(b, cos), s.mul(a, sin));
        if self.backward {
            [s.add(ac, bs), s.sub(bc, as_)]
        } else {
            [s.sub(ac, bs), s.add(as_, bc)]
        }
    }
}

/// Inputs cosine and sine, each twice, the first sine negated: a negated product rounds alike, so
/// `a * c - b * s` is `a * c + b * -s`.
struct RotatePairs {
    backward: bool,
}
impl<S: Simd> Operation<S, 2, 1> for RotatePairs {
    #[inline(always)]
    fn apply(&self, s: S, [cos, sin]: [S::F; 2], [x]: [S::F; 1]) -> [S::F; 1] {
        let straight = s.mul(x, cos);
        let crossed = s.mul(s.exchange::<1>(x), sin);
        if self.backward {
            [s.sub(straight, crossed)]
        } else {
            [s.add(straight, crossed)]
        }
    }
}

#[inline(always)]
pub(crate) fn rotate<S: Simd>(
    s: S,
    pairs: RopePairs,
    cos: &[f32],
    sin: &[f32],
    backward: bool,
    head: &mut [f32],
) {
    match pairs {
        RopePairs::HalfSplit => {
            let half = head.len() / 2;
            let (first, second) = head.split_at_mut(half);
            map(
                s,
                &RotateHalves { backward },
                [&cos[..half], &sin[..half]],
                [first, second],
            );
        }
        RopePairs::Interleaved => map(s, &RotatePairs { backward }, [cos, sin], [head]),
    }
}

struct AdamWOperation<'a>(&'a AdamWStep);
impl<S: Simd> Operation<S, 1, 3> for AdamWOperation<'_> {
    #[inline(always)]
    fn apply(&self, s: S, [g]: [S::F; 1], [w, m, v]: [S::F; 3]) -> [S::F; 3] {
        let AdamWStep {
            settings,
            corrections,
            decay,
        } = self.0;
        let m = s.add(
            s.mul(s.splat(settings.beta1), m),
            s.mul(s.splat(settings.c1), g),
        );
        let v = s.add(
            s.mul(s.splat(settings.beta2), v),
            s.mul(s.splat(settings.c2), s.mul(g, g)),
        );
        let mean = s.div(m, s.splat(corrections[0]));
        let square = s.div(v, s.splat(corrections[1]));
        let decayed = s.sub(w, s.mul(s.splat(*decay), w));
        let step = s.mul(s.splat(settings.learning_rate), mean);
        let root = s.add(s.sqrt(square), s.splat(settings.epsilon));
        [s.sub(decayed, s.div(step, root)), m, v]
    }
}

#[inline(always)]
pub(crate) fn adamw<S: Simd>(
    s: S,
    step: &AdamWStep,
    gradient: &[f32],
    weights: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    map(
        s,
        &AdamWOperation(step),
        [gradient],
        [weights, first, second],
    );
}
