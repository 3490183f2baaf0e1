//! How tiles read the panels of a matrix.

use super::Lanes;
use crate::panels::LANES;

/// How the panels of a matrix are read.
pub(super) trait Layout {
    /// Bytes of a panel for sixteen columns.
    const BLOCK: usize;

    /// What the kernel's products add for each unit of a code.
    const OFFSET: i32;

    /// Adds the products of all columns to `acc`.
    ///
    /// # Safety
    /// As for [`Lanes`]; the panel and each row of codes are valid for `blocks` blocks.
    unsafe fn tile<L: Lanes, const C: usize>(
        panel: *const u8,
        codes: [*const i8; C],
        blocks: usize,
        acc: &mut [L; C],
    );
}

/// Two-bit codes w+1.
pub(super) struct Ternary;

impl Layout for Ternary {
    const BLOCK: usize = 64;
    const OFFSET: i32 = 1;

    #[inline(always)]
    unsafe fn tile<L: Lanes, const C: usize>(
        panel: *const u8,
        codes: [*const i8; C],
        blocks: usize,
        acc: &mut [L; C],
    ) {
        for block in 0..blocks {
            // SAFETY: the caller vouches for all memory up to `blocks`.
            unsafe {
                let bytes = L::load(panel.add(block * Self::BLOCK));
                for g in 0..4 {
                    let weights = bytes.codes(g);
                    for (acc, codes) in acc.iter_mut().zip(codes) {
                        let x = codes.add(block * LANES + g * 4).cast::<i32>();
                        *acc = acc.dot(weights, x.read_unaligned());
                    }
                }
            }
        }
    }
}

/// int8 weights; `SKIP` looks for groups without codes.
pub(super) struct Int8<const SKIP: bool>;

impl<const SKIP: bool> Layout for Int8<SKIP> {
    const BLOCK: usize = 256;
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn tile<L: Lanes, const C: usize>(
        panel: *const u8,
        codes: [*const i8; C],
        blocks: usize,
        acc: &mut [L; C],
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
                let weights = L::load(panel.add(group * 64));
                for (acc, x) in acc.iter_mut().zip(x) {
                    *acc = acc.dot(weights, x);
                }
            }
        }
    }
}
