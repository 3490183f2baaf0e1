//! Choosing the next token, exactly (rule 19): after the weights everything is integer.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::elementary::round_even;
use crate::environment::undisturbed;
use crate::order::descending_bits;
use crate::scalar::LANES;
use crate::{Isa, NotFinite, Philox, kernels};

/// A `top_p` of one in Q32: keep everything.
pub const TOP_P_ALL: u64 = 1 << 32;
/// Weight of the most likely token: 2^22.
const WEIGHT_ONE: f32 = 4_194_304.0;
/// Exponents below this have weights that round to 0: 2^22 exp(-16) is 0.47.
const LEAST_EXPONENT: f32 = -16.0;
/// Classes of candidates, and how many of them go to an exponent of one.
const CLASSES: usize = 256;
const PER_NAT: f32 = 15.0;
/// Logits that are looked at together.
const TOGETHER: usize = 256;

/// How a token is chosen. Parameters are exact values, which a receipt carries as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 1 / temperature in f32; `None` for temperature 0, which takes the first in order, as does
    /// whatever is not positive and finite.
    pub inverse_temperature: Option<f32>,
    /// Number of tokens kept, in order; 0 keeps all.
    pub top_k: u32,
    /// Share of the kept weight that is kept again, in Q32; at most [`TOP_P_ALL`].
    pub top_p: u64,
    /// Seen tokens: positive logits divided by this, others multiplied. 1 changes nothing.
    pub repetition_penalty: f32,
    /// Taken from a seen token's logit for each time it was seen.
    pub frequency_penalty: f32,
    /// Taken from a seen token's logit.
    pub presence_penalty: f32,
}

impl Default for Sampling {
    /// Greedy: temperature 0 without penalties.
    fn default() -> Self {
        Self {
            inverse_temperature: None,
            top_k: 0,
            top_p: TOP_P_ALL,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
        }
    }
}

impl Sampling {
    /// Chooses a token for `position` of the stream `random`, with the kernels of `isa`.
    ///
    /// `seen` says how often each token occurred; tokens outside the vocabulary are ignored.
    ///
    /// # Errors
    /// [`NotFinite`] when a logit, before or after penalties, is NaN or infinite.
    ///
    /// # Panics
    /// When there are no logits.
    pub fn choose(
        &self,
        isa: Isa,
        logits: &[f32],
        seen: &BTreeMap<u32, u32>,
        random: &Philox,
        position: u64,
    ) -> Result<u32, NotFinite> {
        undisturbed(|| self.chosen(isa, logits, seen, random, position))
    }

    /// [`Self::choose`] in the environment that it asks for.
    fn chosen(
        &self,
        isa: Isa,
        logits: &[f32],
        seen: &BTreeMap<u32, u32>,
        random: &Philox,
        position: u64,
    ) -> Result<u32, NotFinite> {
        let logits = &*self.penalized(logits, seen);
        let highest = kernels::maximum(isa, logits).ok_or(NotFinite { row: 0 })?;
        let best = first_in_order(logits, highest);
        let positive = |inverse: &f32| *inverse > 0.0 && inverse.is_finite();
        let Some(inverse_temperature) = self.inverse_temperature.filter(positive) else {
            return Ok(best);
        };
        let mut candidates = Candidates::new(isa, logits, highest, inverse_temperature);
        if self.top_k > 0 {
            candidates.keep_first(self.top_k as usize);
        }
        let mut total = candidates.total();
        if self.top_p < TOP_P_ALL {
            let wanted = u128::from(self.top_p) * total;
            let prefix = candidates.first_with(|cumulative| cumulative << 32 >= wanted);
            total = prefix.map_or(0, |(_, cumulative)| cumulative);
        }
        let r = (u128::from(random.bits64(position)) * total) >> 64;
        let drawn = candidates.first_with(|cumulative| cumulative > r);
        Ok(drawn.map_or(best, |(token, _)| token))
    }

    /// Repetition, then frequency, then presence: each operation rounds on its own.
    fn penalized<'a>(&self, logits: &'a [f32], seen: &BTreeMap<u32, u32>) -> Cow<'a, [f32]> {
        let taken = [self.frequency_penalty, self.presence_penalty];
        // Bits, since taking -0.0 away would turn a -0.0 to +0.0.
        if self.repetition_penalty == 1.0 && taken.iter().all(|penalty| penalty.to_bits() == 0) {
            return logits.into();
        }
        let mut logits = logits.to_vec();
        for (token, count) in seen {
            let Some(z) = logits.get_mut(*token as usize) else {
                continue;
            };
            *z = if *z > 0.0 {
                *z / self.repetition_penalty
            } else {
                *z * self.repetition_penalty
            };
            *z -= self.frequency_penalty * *count as f32;
            *z -= self.presence_penalty;
        }
        logits.into()
    }
}

/// The token of the largest logit, the lowest id among equals; `highest` is that logit, but for
/// the sign of a zero.
fn first_in_order(logits: &[f32], highest: f32) -> u32 {
    let equals = |z: &f32| *z == highest;
    let is_first = |z: &f32| *z == highest && (highest != 0.0 || z.is_sign_positive());
    // Parts without the value are passed by at the speed of vectors.
    let mut first_equal = None;
    for (at, part) in (0..).step_by(TOGETHER).zip(logits.chunks(TOGETHER)) {
        if !part.iter().fold(false, |any, z| any | equals(z)) {
            continue;
        }
        if let Some(place) = part.iter().position(is_first) {
            return at + place as u32;
        }
        first_equal = first_equal.or(part.iter().position(equals).map(|place| at + place as u32));
    }
    // Only zeros below zero are equal to the highest and not the first of their value.
    first_equal.expect("the highest logit is one of them")
}

/// The tokens that have a weight, in classes by their place in order: a place in the order is found by
/// classes first, so that only the tokens of one class are ever sorted.
struct Candidates<'a> {
    logits: &'a [f32],
    /// Ascending.
    tokens: Vec<u32>,
    /// 0 for tokens that take no part.
    weights: Vec<u32>,
    /// The class of each token: those of a lower class come first in order.
    classes: Vec<u8>,
    /// Weight of each class.
    sums: [u64; CLASSES],
}

impl<'a> Candidates<'a> {
    fn new(isa: Isa, logits: &'a [f32], highest: f32, inverse_temperature: f32) -> Self {
        let (tokens, exponents) = weighty(logits, highest, inverse_temperature);
        let mut found = Self {
            logits,
            tokens,
            classes: exponents.iter().map(|x| class(*x)).collect(),
            weights: weigh(isa, exponents),
            sums: [0; CLASSES],
        };
        found.add_up();
        found
    }

    fn add_up(&mut self) {
        // Neighbours are often of one class; sums that take turns do not wait for each other.
        let mut turns = [[0; CLASSES]; 4];
        let classes = self.classes.chunks(turns.len());
        for (weights, classes) in self.weights.chunks(turns.len()).zip(classes) {
            for ((weight, class), sums) in weights.iter().zip(classes).zip(&mut turns) {
                sums[usize::from(*class)] += u64::from(*weight);
            }
        }
        self.sums = std::array::from_fn(|class| turns.iter().map(|sums| sums[class]).sum::<u64>());
    }

    /// Lets only the first `count` tokens in order take part.
    fn keep_first(&mut self, count: usize) {
        let mut counts = [0; CLASSES];
        for (weight, class) in self.weights.iter().zip(&*self.classes) {
            counts[usize::from(*class)] += usize::from(*weight > 0);
        }
        let mut left = count;
        let last = counts.iter().position(|here| {
            let ends = *here >= left;
            left -= if ends { 0 } else { *here };
            ends
        });
        let Some(last) = last else { return };
        for place in self.members(last).split_off(left) {
            self.weights[place] = 0;
        }
        for (weight, class) in self.weights.iter_mut().zip(&*self.classes) {
            *weight = if usize::from(*class) > last {
                0
            } else {
                *weight
            };
        }
        self.add_up();
    }

    fn total(&self) -> u128 {
        self.sums.iter().map(|sum| u128::from(*sum)).sum::<u128>()
    }

    /// The first token in order at which the cumulative weight, its own included, has grown
    /// enough, and that weight.
    fn first_with(&self, enough: impl Fn(u128) -> bool) -> Option<(u32, u128)> {
        let mut before = 0;
        let class = self.sums.iter().position(|sum| {
            let ends = *sum > 0 && enough(before + u128::from(*sum));
            before += if ends { 0 } else { u128::from(*sum) };
            ends
        })?;
        self.members(class).into_iter().find_map(|place| {
            before += u128::from(self.weights[place]);
            enough(before).then_some((self.tokens[place], before))
        })
    }

    /// The places of a class's tokens that take part, in order.
    fn members(&self, class: usize) -> Vec<usize> {
        let mut members = Vec::new();
        let parts = self.classes.chunks(TOGETHER).enumerate();
        for (part, classes) in parts {
            let is_here = |here: &u8| usize::from(*here) == class;
            if classes.iter().fold(false, |any, here| any | is_here(here)) {
                let places = (part * TOGETHER..).zip(classes);
                let here = places.filter(|(_, here)| is_here(here));
                members.extend(here.map(|(place, _)| place));
            }
        }
        members.retain(|&place| self.weights[place] > 0);
        let order = |&place: &usize| {
            let token = self.tokens[place];
            (!descending_bits(self.logits[token as usize]), token)
        };
        members.sort_unstable_by_key(order);
        members
    }
}

/// The tokens whose exponents are not below [`LEAST_EXPONENT`], and those exponents.
fn weighty(logits: &[f32], highest: f32, inverse_temperature: f32) -> (Vec<u32>, Vec<f32>) {
    let (mut tokens, mut exponents) = (Vec::new(), Vec::new());
    // Loops over arrays, without branches and calls, go by vectors.
    let mut here = [0.0; TOGETHER];
    let (mut kept_tokens, mut kept) = ([0; TOGETHER], [0.0; TOGETHER]);
    for (at, part) in (0..).step_by(TOGETHER).zip(logits.chunks(TOGETHER)) {
        let here = &mut here[..part.len()];
        for (x, z) in here.iter_mut().zip(part) {
            *x = (*z - highest) * inverse_temperature;
        }
        let counts = |x: &f32| *x >= LEAST_EXPONENT;
        if !here.iter().fold(false, |any, x| any | counts(x)) {
            continue;
        }
        let mut count = 0;
        for (token, x) in (at..).zip(&*here) {
            kept_tokens[count % TOGETHER] = token;
            kept[count % TOGETHER] = *x;
            count += usize::from(counts(x));
        }
        tokens.extend_from_slice(&kept_tokens[..count]);
        exponents.extend_from_slice(&kept[..count]);
    }
    (tokens, exponents)
}

/// The weights `rne(2^22 e^x)` of exponents, none of which is positive.
pub(crate) fn weigh(isa: Isa, mut exponents: Vec<f32>) -> Vec<u32> {
    kernels::exponentials(isa, &mut exponents, 0.0, &mut [0.0; LANES]);
    // The products are exact, and at most 2^22.
    let weight = |e: &f32| round_even(WEIGHT_ONE * *e).cast_unsigned();
    exponents.iter().map(weight).collect()
}

/// The class of an exponent that is not below [`LEAST_EXPONENT`]: at most 240.
fn class(x: f32) -> u8 {
    round_even(x * -PER_NAT) as u8
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "compared with the standard library, within a tolerance"
)]
mod tests {
    use super::*;
    use crate::elementary::{exp, round_even_f64};

    fn choose(sampling: Sampling, logits: &[f32], seed: u64, position: u64) -> u32 {
        let random = Philox::from_seed(seed);
        sampling
            .choose(Isa::best(), logits, &BTreeMap::new(), &random, position)
            .expect("finite logits")
    }

    fn warm() -> Sampling {
        Sampling {
            inverse_temperature: Some(1.0),
            ..Sampling::default()
        }
    }

    #[test]
    fn temperature_zero_takes_the_largest_and_the_lowest_id_among_equals() {
        assert_eq!(choose(Sampling::default(), &[1.0, 3.0, 3.0, -5.0], 0, 0), 1);
    }

    #[test]
    fn tokens_are_drawn_as_often_as_their_probability_says() {
        let logits = [0.0, 1.0, 2.0, -40.0];
        let mut counts = [0u32; 4];
        for position in 0..20_000 {
            counts[choose(warm(), &logits, 5, position) as usize] += 1;
        }
        let z = 1.0 + 1f64.exp() + 2f64.exp();
        for (i, count) in counts.iter().take(3).enumerate() {
            let expected = (i as f64).exp() / z * 20_000.0;
            let sigma = expected.sqrt();
            assert!(
                (f64::from(*count) - expected).abs() < 4.0 * sigma,
                "{counts:?}"
            );
        }
        assert_eq!(counts[3], 0);
    }

    #[test]
    fn cuts_keep_the_first_in_order() {
        let logits = [1.0, 2.0, 3.0, 2.0];
        let top_k = Sampling { top_k: 2, ..warm() };
        let top_p = Sampling {
            top_p: TOP_P_ALL / 2,
            ..warm()
        };
        for position in 0..2000 {
            assert!([1, 2].contains(&choose(top_k, &logits, 1, position)));
            assert_eq!(choose(top_p, &logits, 1, position), 2);
        }
        let nothing = Sampling { top_p: 0, ..warm() };
        assert_eq!(choose(nothing, &logits, 1, 0), 2);
    }

    #[test]
    fn penalties_lower_seen_tokens() {
        let seen = BTreeMap::from([(0, 2), (1, 1), (99, 1)]);
        let sampling = Sampling {
            repetition_penalty: 2.0,
            frequency_penalty: 0.5,
            presence_penalty: 0.25,
            ..Sampling::default()
        };
        let logits = [4.0, -1.0, 0.5];
        assert_eq!(*sampling.penalized(&logits, &seen), [0.75, -2.75, 0.5]);
        let token = sampling.choose(Isa::best(), &logits, &seen, &Philox::from_seed(0), 0);
        assert_eq!(token, Ok(0));
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error() {
        let random = Philox::from_seed(0);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let outcome = warm().choose(Isa::best(), &[0.0, bad], &BTreeMap::new(), &random, 0);
            assert_eq!(outcome, Err(NotFinite { row: 0 }));
        }
    }

    /// The rule word for word: everything sorted, then cut, then cut again.
    fn by_sorting(sampling: &Sampling, logits: &[f32], random: &Philox, position: u64) -> u32 {
        let highest = logits.iter().copied().fold(f32::MIN, f32::max);
        let inverse = sampling.inverse_temperature.expect("a temperature");
        let weigh = |z: f32| round_even_f64(4_194_304.0 * f64::from(exp((z - highest) * inverse)));
        let mut kept: Vec<(u32, u128)> = (0..)
            .zip(logits)
            .map(|(token, z)| (token, weigh(*z) as u128))
            .filter(|(_, weight)| *weight > 0)
            .collect();
        kept.sort_by(|(a, _), (b, _)| logits[*b as usize].total_cmp(&logits[*a as usize]));
        if sampling.top_k > 0 {
            kept.truncate(sampling.top_k as usize);
        }
        let cumulative = |kept: &[(u32, u128)]| kept.iter().map(|(_, weight)| weight).sum::<u128>();
        let total = cumulative(&kept);
        let enough =
            |n: &usize| cumulative(&kept[..*n]) << 32 >= u128::from(sampling.top_p) * total;
        let prefix = &kept[..(1..=kept.len()).find(enough).expect("all is enough")];
        let r = (u128::from(random.bits64(position)) * cumulative(prefix)) >> 64;
        let drawn = (1..=prefix.len()).find(|n| cumulative(&prefix[..*n]) > r);
        prefix[drawn.expect("r is below the total") - 1].0
    }

    #[test]
    fn the_first_in_order_is_the_lowest_of_equals_and_a_positive_zero_before_negative_ones() {
        let mut logits = vec![-1.0; 3 * TOGETHER];
        logits[2 * TOGETHER + 7] = 4.0;
        logits[2 * TOGETHER + 9] = 4.0;
        assert_eq!(first_in_order(&logits, 4.0) as usize, 2 * TOGETHER + 7);
        logits[2 * TOGETHER..].fill(-0.0);
        for highest in [0.0, -0.0] {
            assert_eq!(first_in_order(&logits, highest) as usize, 2 * TOGETHER);
        }
        logits[3 * TOGETHER - 1] = 0.0;
        for highest in [0.0, -0.0] {
            assert_eq!(first_in_order(&logits, highest) as usize, 3 * TOGETHER - 1);
        }
    }

    #[test]
    fn looking_at_one_class_draws_what_sorting_everything_would() {
        for seed in 0..60 {
            let random = Philox::from_seed(seed);
            // Steps of a quarter make many equal logits.
            let logits: Vec<f32> = random
                .words()
                .take(TOGETHER + 50)
                .map(|w| (w % 64) as f32 / 4.0 - 8.0)
                .collect();
            for top_k in [0, 1, 7, 90, 306, 400] {
                for top_p in [0, 1 << 30, 3_865_470_566, TOP_P_ALL] {
                    let inverse_temperature = Some(0.01 + seed as f32 / 15.0);
                    let sampling = Sampling {
                        inverse_temperature,
                        top_k,
                        top_p,
                        ..warm()
                    };
                    let expected = by_sorting(&sampling, &logits, &random, seed);
                    for isa in Isa::available() {
                        let logits = &logits;
                        let token = sampling.choose(isa, logits, &BTreeMap::new(), &random, seed);
                        assert_eq!(token.unwrap(), expected, "{isa}");
                    }
                }
            }
        }
    }
}
