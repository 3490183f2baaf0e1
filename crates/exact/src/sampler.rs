//! Choosing the next token, exactly (rule 19): after the weights everything is integer.

use std::collections::{BTreeMap, BinaryHeap};
use std::iter;

use crate::elementary::{exp, round_even_f64};
use crate::environment::Environment;
use crate::order::descending_bits;
use crate::{NotFinite, Philox};

/// A `top_p` of one in Q32: keep everything.
pub const TOP_P_ALL: u64 = 1 << 32;
/// Weight of the most likely token: 2^22.
const WEIGHT_ONE: f64 = 4_194_304.0;

/// How a token is chosen. Parameters are exact values, which a receipt carries as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 1 / temperature in f32; `None` for temperature 0, which takes the first in order.
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
    /// Chooses a token for `position` of the stream `random`.
    ///
    /// `seen` says how often each token occurred; tokens outside the vocabulary are ignored.
    /// Logits are changed by the penalties.
    ///
    /// # Errors
    /// [`NotFinite`] when a logit, before or after penalties, is NaN or infinite.
    ///
    /// # Panics
    /// When there are no logits.
    pub fn choose(
        &self,
        logits: &mut [f32],
        seen: &BTreeMap<u32, u32>,
        random: &Philox,
        position: u64,
    ) -> Result<u32, NotFinite> {
        let _environment = Environment::enter();
        self.penalize(logits, seen);
        if logits.iter().any(|z| !z.is_finite()) {
            return Err(NotFinite { row: 0 });
        }
        let (best, highest) = first_in_order(logits);
        let Some(inverse_temperature) = self.inverse_temperature else {
            return Ok(best);
        };
        // A heap gives the order only as far as it is looked at, which is seldom far.
        let mut rest = BinaryHeap::from(weights(logits, highest, inverse_temperature));
        if self.top_k > 0 && (self.top_k as usize) < rest.len() {
            rest = (0..self.top_k).filter_map(|_| rest.pop()).collect();
        }
        let mut total = rest.iter().map(|w| u128::from(w.weight)).sum();
        let mut prefix = Vec::new();
        if self.top_p < TOP_P_ALL {
            (prefix, total) = take_prefix(&mut rest, self.top_p, total);
        }
        let r = (u128::from(random.bits64(position)) * total) >> 64;
        let mut cumulative = 0;
        for candidate in prefix.into_iter().chain(iter::from_fn(|| rest.pop())) {
            cumulative += u128::from(candidate.weight);
            if cumulative > r {
                return Ok(candidate.token());
            }
        }
        Ok(best)
    }

    /// Repetition, then frequency, then presence: each operation rounds on its own.
    fn penalize(&self, logits: &mut [f32], seen: &BTreeMap<u32, u32>) {
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
    }
}

/// A token that may be chosen; the greatest is the first in order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Weighted {
    /// Larger for larger logits.
    order: u32,
    /// The token's complement: among equal logits the lowest id comes first.
    complement: u32,
    weight: u32,
}

impl Weighted {
    fn token(&self) -> u32 {
        !self.complement
    }
}

/// The token of the largest logit, the lowest id among equals, and that logit.
fn first_in_order(logits: &[f32]) -> (u32, f32) {
    let mut best = 0;
    for (i, z) in logits.iter().enumerate() {
        if descending_bits(*z) > descending_bits(logits[best]) {
            best = i;
        }
    }
    (best as u32, logits[best])
}

/// Every token whose weight is not 0: the others can neither be drawn nor change a sum, and they
/// are last in order.
fn weights(logits: &[f32], highest: f32, inverse_temperature: f32) -> Vec<Weighted> {
    let weigh = |(token, z): (u32, &f32)| {
        let e = exp((*z - highest) * inverse_temperature);
        let weight = round_even_f64(WEIGHT_ONE * f64::from(e)) as u32;
        (weight > 0).then(|| Weighted {
            order: descending_bits(*z),
            complement: !token,
            weight,
        })
    };
    (0..).zip(logits).filter_map(weigh).collect()
}

/// Takes the shortest prefix with `cumulative * 2^32 >= top_p * total`, at least one token; also
/// gives its weight.
fn take_prefix(rest: &mut BinaryHeap<Weighted>, top_p: u64, total: u128) -> (Vec<Weighted>, u128) {
    let wanted = u128::from(top_p) * total;
    let (mut prefix, mut cumulative) = (Vec::new(), 0);
    while let Some(candidate) = rest.pop() {
        cumulative += u128::from(candidate.weight);
        prefix.push(candidate);
        if cumulative << 32 >= wanted {
            break;
        }
    }
    (prefix, cumulative)
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "compared with the standard library, within a tolerance"
)]
mod tests {
    use super::*;

    fn choose(sampling: Sampling, logits: &[f32], seed: u64, position: u64) -> u32 {
        let random = Philox::from_seed(seed);
        sampling
            .choose(&mut logits.to_vec(), &BTreeMap::new(), &random, position)
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
        let mut logits = vec![4.0, -1.0, 0.5];
        let token = sampling.choose(&mut logits, &seen, &Philox::from_seed(0), 0);
        assert_eq!(logits, [0.75, -2.75, 0.5]);
        assert_eq!(token, Ok(0));
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error() {
        let random = Philox::from_seed(0);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let outcome = warm().choose(&mut [0.0, bad], &BTreeMap::new(), &random, 0);
            assert_eq!(outcome, Err(NotFinite { row: 0 }));
        }
    }

    /// The rule word for word: everything sorted, then cut, then cut again.
    fn by_sorting(sampling: &Sampling, logits: &[f32], random: &Philox, position: u64) -> u32 {
        let (_, highest) = first_in_order(logits);
        let inverse = sampling.inverse_temperature.expect("a temperature");
        let mut kept = weights(logits, highest, inverse);
        kept.sort_by(|a, b| b.cmp(a));
        if sampling.top_k > 0 {
            kept.truncate(sampling.top_k as usize);
        }
        let total: u128 = kept.iter().map(|w| u128::from(w.weight)).sum();
        let cumulative =
            |kept: &[Weighted]| kept.iter().map(|w| u128::from(w.weight)).sum::<u128>();
        let enough =
            |n: &usize| cumulative(&kept[..*n]) << 32 >= u128::from(sampling.top_p) * total;
        let prefix = &kept[..(1..=kept.len()).find(enough).expect("all is enough")];
        let r = (u128::from(random.bits64(position)) * cumulative(prefix)) >> 64;
        let drawn = (1..=prefix.len()).find(|n| cumulative(&prefix[..*n]) > r);
        prefix[drawn.expect("r is below the total") - 1].token()
    }

    #[test]
    fn looking_only_at_the_front_draws_what_sorting_everything_would() {
        for seed in 0..60 {
            let random = Philox::from_seed(seed);
            // Steps of a quarter make many equal logits.
            let logits: Vec<f32> = random
                .words()
                .take(90)
                .map(|w| (w % 64) as f32 / 4.0)
                .collect();
            for top_k in [0, 1, 7, 90, 200] {
                for top_p in [0, 1 << 30, 3_865_470_566, TOP_P_ALL] {
                    let inverse_temperature = Some(0.3 + seed as f32 / 20.0);
                    let sampling = Sampling {
                        inverse_temperature,
                        top_k,
                        top_p,
                        ..warm()
                    };
                    let expected = by_sorting(&sampling, &logits, &random, seed);
                    assert_eq!(choose(sampling, &logits, seed, seed), expected);
                }
            }
        }
    }
}
