//! The products that are measured, each ready to be called again and again.

use std::hint::black_box;

use r3mes_exact::{Codes, Isa, Tile, WideCodes, Write, int8, panels::padded, ternary};

use crate::measure::Work;
#[cfg(target_arch = "x86_64")]
use crate::reference;

/// Scales do not change how long anything takes.
const SCALE: f32 = 0.01;

/// A product of a matrix with rows of codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) kernel: Kernel,
    /// Outputs and inputs; for a ternary gradient those of the layer, whose inputs it gives.
    pub(crate) shape: (usize, usize),
    /// Rows of codes.
    pub(crate) rows: usize,
}

/// A kind of product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    TernaryForward,
    TernaryBackward,
    Int8Forward,
    /// Codes with upper parts, in a thousand.
    Int8Backward(u64),
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let one = self.rows == 1;
        match self.kernel {
            Kernel::TernaryForward if one => "ternary GEMV".into(),
            Kernel::TernaryForward => "ternary GEMM".into(),
            Kernel::TernaryBackward => "ternary backward".into(),
            Kernel::Int8Forward if one => "int8 GEMV".into(),
            Kernel::Int8Forward => "int8 GEMM".into(),
            Kernel::Int8Backward(wide) => {
                format!("int8 backward, {:.1}% of codes wide", wide as f64 / 10.0)
            }
        }
    }

    /// Multiplications and additions in one call.
    pub(crate) fn macs(&self) -> f64 {
        (self.shape.0 * self.shape.1 * self.rows) as f64
    }

    /// The product by our kernels.
    pub(crate) fn work(&self, isa: Isa) -> Work<'static> {
        match self.kernel {
            Kernel::TernaryForward => self.ternary_forward(isa),
            Kernel::TernaryBackward => self.ternary_backward(isa),
            Kernel::Int8Forward => self.int8_forward(isa),
            Kernel::Int8Backward(wide) => self.int8_backward(isa, wide),
        }
    }

    /// The product by the prototype, which knows ternary forward products only.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn prototype(&self) -> Option<Work<'static>> {
        let (Kernel::TernaryForward, (outputs, inputs)) = (self.kernel, self.shape) else {
            return None;
        };
        let weights = Numbers(1).ternary(outputs * inputs);
        let matrix = reference::Matrix::new(&weights, outputs, inputs);
        let x = reference::Rows::new(&self.codes(), inputs);
        let mut out = vec![0; self.rows * outputs];
        Some(Box::new(move || matrix.product(black_box(&x), &mut out)))
    }

    /// No prototype is known elsewhere.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn prototype(&self) -> Option<Work<'static>> {
        None
    }

    /// Rows of eight-bit codes.
    fn codes(&self) -> Vec<i8> {
        Numbers(2).codes(self.rows * self.shape.1)
    }

    /// Rows of the lower sixteen bits of gradients.
    fn gradients(&self) -> Vec<i16> {
        let codes = Numbers(2).codes(self.rows * self.shape.1);
        codes.into_iter().map(|x| i16::from(x) * 255).collect()
    }

    fn ternary_panels(&self) -> Vec<u8> {
        let (outputs, inputs) = self.shape;
        let weights = Numbers(1).ternary(outputs * inputs);
        ternary::pack(&weights, outputs, inputs).expect("weights are ternary")
    }

    fn int8_panels(&self) -> Vec<u8> {
        let (outputs, inputs) = self.shape;
        let weights = Numbers(1).codes(outputs * inputs);
        int8::pack(&weights, outputs, inputs).expect("no -128")
    }

    fn ternary_forward(&self, isa: Isa) -> Work<'static> {
        let Self {
            shape: (outputs, inputs),
            rows,
            ..
        } = *self;
        let (bytes, codes) = (self.ternary_panels(), self.codes());
        let (sums, scales) = (vec![0; rows], vec![SCALE; rows]);
        let mut y = vec![0.0; rows * outputs];
        Box::new(move || {
            let w = ternary::Panels::trusted(black_box(&bytes), outputs, inputs);
            let x = Codes {
                codes: &codes,
                stride: padded(inputs),
                sums: &sums,
                scales: &scales,
                rows,
            };
            let y = Tile::new(&mut y, rows, outputs);
            ternary::forward(isa, w, 0..w.panels(), x, SCALE, y);
        })
    }

    fn ternary_backward(&self, isa: Isa) -> Work<'static> {
        let transposed = Self {
            shape: (self.shape.1, self.shape.0),
            ..*self
        };
        let Self {
            shape: (outputs, inputs),
            rows,
            ..
        } = transposed;
        let (bytes, low) = (transposed.ternary_panels(), transposed.gradients());
        let scales = vec![SCALE; rows];
        let mut dx = vec![0.0; rows * outputs];
        Box::new(move || {
            let wt = ternary::Panels::trusted(black_box(&bytes), outputs, inputs);
            let g = WideCodes {
                low: &low,
                high: &[],
                stride: padded(inputs),
                scales: &scales,
                rows,
            };
            let dx = Tile::new(&mut dx, rows, outputs);
            ternary::backward(isa, wt, 0..wt.panels(), g, SCALE, Write::Replace, dx);
        })
    }

    fn int8_forward(&self, isa: Isa) -> Work<'static> {
        let Self {
            shape: (outputs, inputs),
            rows,
            ..
        } = *self;
        let (bytes, codes) = (self.int8_panels(), self.codes());
        let (sums, scales, row_scales) = (vec![0; rows], vec![SCALE; rows], vec![SCALE; outputs]);
        let mut y = vec![0.0; rows * outputs];
        Box::new(move || {
            let w = int8::Panels::trusted(black_box(&bytes), outputs, inputs);
            let x = Codes {
                codes: &codes,
                stride: padded(inputs),
                sums: &sums,
                scales: &scales,
                rows,
            };
            let y = Tile::new(&mut y, rows, outputs);
            int8::forward(isa, w, 0..w.panels(), x, &row_scales, y);
        })
    }

    fn int8_backward(&self, isa: Isa, wide: u64) -> Work<'static> {
        let Self {
            shape: (outputs, inputs),
            rows,
            ..
        } = *self;
        let (bytes, low) = (self.int8_panels(), self.gradients());
        let mut numbers = Numbers(3);
        let high = |_| if numbers.next() % 1000 < wide { 9 } else { 0 };
        let high: Vec<i8> = (0..low.len()).map(high).collect();
        let scales = vec![SCALE; rows];
        let mut dx = vec![0.0; rows * outputs];
        Box::new(move || {
            let wt = int8::Panels::trusted(black_box(&bytes), outputs, inputs);
            let g = WideCodes {
                low: &low,
                high: &high,
                stride: padded(inputs),
                scales: &scales,
                rows,
            };
            let dx = Tile::new(&mut dx, rows, outputs);
            int8::backward(isa, wt, 0..wt.panels(), g, Write::Replace, dx);
        })
    }
}

/// Xorshift: the same numbers in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn ternary(&mut self, len: usize) -> Vec<i8> {
        (0..len).map(|_| (self.next() % 3) as i8 - 1).collect()
    }

    pub(crate) fn codes(&mut self, len: usize) -> Vec<i8> {
        (0..len)
            .map(|_| (self.next() % 255) as u8 as i8)
            .map(|x| x.max(-127))
            .collect()
    }
}
