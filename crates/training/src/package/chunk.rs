//! One chunk of a package: what is sent of it, and how that is encoded.

use super::{DecodePackageError, MAX_SCALE_EXPONENT, MIN_SCALE_EXPONENT};
use crate::bits::{BitReader, BitWriter};

/// Below this code a chunk's largest entry would have deserved half the scale.
const MIN_LARGEST_CODE: u8 = 64;

/// The entries sent of one chunk: value = `code * 2^exponent`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    exponent: i8,
    /// Ascending positions in the chunk.
    positions: Vec<u16>,
    /// Never zero, never -128.
    codes: Vec<i8>,
}

impl Chunk {
    /// Takes the entries of chunk `number`, which has `length` entries of which at most `limit` may be
    /// sent. Without entries the exponent is 0.
    pub(super) fn new(
        number: usize,
        length: usize,
        limit: usize,
        parts: (i8, Vec<u16>, Vec<i8>),
    ) -> Result<Self, DecodePackageError> {
        let (exponent, positions, codes) = parts;
        let count = codes.len();
        if count > limit {
            return Err(DecodePackageError::Count {
                chunk: number,
                count,
                limit,
            });
        }
        let inside = positions
            .last()
            .is_none_or(|&last| usize::from(last) < length);
        let ascending = positions.is_sorted_by(|a, b| a < b);
        if positions.len() != count || !inside || !ascending {
            return Err(DecodePackageError::Positions { chunk: number });
        }
        match count {
            0 if exponent != 0 => {
                return Err(DecodePackageError::Scale {
                    chunk: number,
                    exponent,
                });
            }
            0 => {}
            _ => check_codes(number, exponent, &codes)?,
        }
        Ok(Self {
            exponent,
            positions,
            codes,
        })
    }

    /// The exponent of the scale; 0 when nothing is sent.
    #[must_use]
    pub fn exponent(&self) -> i8 {
        self.exponent
    }

    /// The scale: 2^exponent, exactly.
    #[must_use]
    pub fn scale(&self) -> f32 {
        power_of_two(self.exponent)
    }

    /// Positions in the chunk, ascending.
    #[must_use]
    pub fn positions(&self) -> &[u16] {
        &self.positions
    }

    /// One code for each position; never 0, never -128.
    #[must_use]
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// Takes the top-k entries out of `feedback`; the error is the position of an
    /// entry that is not finite or too large.
    pub(super) fn compress(
        feedback: &mut [f32],
        top_k: usize,
        keys: &mut Vec<u64>,
    ) -> Result<Self, usize> {
        // Magnitude descending, position ascending, as one ascending integer key.
        keys.clear();
        keys.extend(feedback.iter().enumerate().map(|(position, e)| {
            let magnitude = e.to_bits() & 0x7fff_ffff;
            (u64::from(!magnitude) << 32) | position as u64
        }));
        if top_k < keys.len() {
            keys.select_nth_unstable(top_k - 1);
            keys.truncate(top_k);
        }
        let mut largest = u64::MAX;
        for &key in keys.iter() {
            largest = largest.min(key);
        }
        let position = (largest & 0xffff_ffff) as usize;
        let exponent = scale_exponent(feedback[position].abs()).ok_or(position)?;
        let scale = power_of_two(exponent);
        let inverse = power_of_two(-exponent);

        let mut selected: Vec<u16> = keys.iter().map(|&key| key as u16).collect();
        selected.sort_unstable();
        let mut chunk = Self {
            exponent,
            ..Self::default()
        };
        for position in selected {
            let e = &mut feedback[usize::from(position)];
            let code = round_ties_even(*e * inverse);
            if code != 0 {
                *e -= code as f32 * scale;
                chunk.positions.push(position);
                chunk.codes.push(code as i8);
            }
        }
        if chunk.codes.is_empty() {
            chunk.exponent = 0;
        }
        Ok(chunk)
    }

    /// Appends the encoding; the chunk has `length` entries.
    pub(super) fn encode(&self, length: usize, out: &mut Vec<u8>) {
        let count = self.codes.len();
        out.extend_from_slice(&(count as u16).to_le_bytes());
        if count == 0 {
            return;
        }
        out.push(self.exponent as u8);
        out.extend(self.codes.iter().map(|&code| code as u8));
        let low_bits = rice_parameter(length, count);
        let mut gaps = BitWriter::new(out);
        let mut next = 0;
        for &position in &self.positions {
            gaps.write_rice(u32::from(position) - next, low_bits);
            next = u32::from(position) + 1;
        }
        gaps.finish();
    }

    /// Takes the encoding of chunk `number` off the front of `rest`.
    pub(super) fn decode(
        rest: &mut &[u8],
        number: usize,
        length: usize,
        limit: usize,
    ) -> Result<Self, DecodePackageError> {
        let truncated = || DecodePackageError::Truncated { chunk: number };
        let (count, tail) = rest.split_first_chunk().ok_or_else(truncated)?;
        *rest = tail;
        let count = usize::from(u16::from_le_bytes(*count));
        if count > limit {
            return Err(DecodePackageError::Count {
                chunk: number,
                count,
                limit,
            });
        }
        if count == 0 {
            return Ok(Self::default());
        }
        let exponent = *rest.split_off_first().ok_or_else(truncated)? as i8;
        let codes = rest.split_off(..count).ok_or_else(truncated)?;
        let codes: Vec<i8> = codes.iter().map(|&code| code as i8).collect();
        check_codes(number, exponent, &codes)?;

        let low_bits = rice_parameter(length, count);
        let mut gaps = BitReader::new(rest);
        let mut positions = Vec::with_capacity(count);
        let mut next = 0usize;
        for _ in 0..count {
            let room = (length - next) as u32;
            let gap = gaps.read_rice(low_bits, room).ok_or_else(truncated)?;
            let position = next + gap as usize;
            if position >= length {
                return Err(DecodePackageError::Positions { chunk: number });
            }
            positions.push(position as u16);
            next = position + 1;
        }
        *rest = gaps
            .finish()
            .ok_or(DecodePackageError::Positions { chunk: number })?;
        Ok(Self {
            exponent,
            positions,
            codes,
        })
    }
}

/// The exponent of the smallest power of two `s >= 2^-40` with
/// `largest <= 127 s`; none if that passes the largest exponent allowed.
fn scale_exponent(largest: f32) -> Option<i8> {
    let bits = largest.to_bits();
    // 127 * 2^x = (1 + 63/64) * 2^(x + 6): the mantissa decides which x.
    let above = (bits & 0x007f_ffff) > 0x007e_0000;
    let exponent = (bits >> 23) as i32 - 127 - 6 + i32::from(above);
    let exponent = exponent.max(i32::from(MIN_SCALE_EXPONENT));
    i8::try_from(exponent)
        .ok()
        .filter(|&x| x <= MAX_SCALE_EXPONENT)
}

/// 2^`exponent`, exact for every exponent of a scale.
fn power_of_two(exponent: i8) -> f32 {
    f32::from_bits(((i32::from(exponent) + 127) as u32) << 23)
}

/// Rounds a value within ±127 to an integer, ties to even.
fn round_ties_even(value: f32) -> i32 {
    // Adding 1.5 * 2^23 leaves no room for a fraction: the addition rounds.
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT).to_bits() as i32 - SHIFT.to_bits() as i32
}

/// Low bits of a gap between positions: with `count` of `length` entries sent
/// the gaps are near geometric, and this is the best power of two for them.
fn rice_parameter(length: usize, count: usize) -> u32 {
    let mean_gap_times_ln2 = (length - count) * 7 / (10 * count);
    mean_gap_times_ln2.max(1).ilog2()
}

fn check_codes(chunk: usize, exponent: i8, codes: &[i8]) -> Result<(), DecodePackageError> {
    if let Some(&code) = codes.iter().find(|&&code| code == 0 || code == i8::MIN) {
        return Err(DecodePackageError::Code { chunk, code });
    }
    let largest = codes
        .iter()
        .map(|code| code.unsigned_abs())
        .max()
        .unwrap_or(0);
    let in_range = (MIN_SCALE_EXPONENT..=MAX_SCALE_EXPONENT).contains(&exponent);
    let smallest = exponent == MIN_SCALE_EXPONENT || largest >= MIN_LARGEST_CODE;
    if in_range && smallest {
        Ok(())
    } else {
        Err(DecodePackageError::Scale { chunk, exponent })
    }
}
