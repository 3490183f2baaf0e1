//! One answer as it grows: choosing tokens, text, and the conditions that end it. The server and
//! whoever checks it run this same code.

use std::collections::{BTreeMap, VecDeque};

use r3mes_exact::elementary::{exp, ln};
use r3mes_exact::{Isa, NotFinite, Philox, undisturbed};
use r3mes_model::{Decoder, Tokenizer, TokenizerError};

use crate::engine::{Alternative, Piece, TokenInfo};
use crate::receipt::{FinishReason, SamplingTerms};
use crate::stop::StopWatch;

/// What an answer has to keep to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terms {
    pub(crate) prompt: Vec<u32>,
    pub(crate) sampling: SamplingTerms,
    pub(crate) max_tokens: usize,
    pub(crate) stop: Vec<String>,
    /// Tokens that end the answer.
    pub(crate) eos: Vec<u32>,
    /// Alternatives to report for each token; `None` for no log-probabilities.
    pub(crate) logprobs: Option<usize>,
}

impl Terms {
    /// Positions that prompt and answer take together at most.
    pub(crate) fn positions(&self) -> usize {
        self.prompt.len() + self.max_tokens
    }
}

/// An answer as it grows.
#[derive(Debug)]
pub(crate) struct Growing<'a> {
    terms: Terms,
    /// The kernels that choose tokens.
    isa: Isa,
    random: Philox,
    output: Vec<u32>,
    seen: BTreeMap<u32, u32>,
    decoder: Decoder<'a>,
    watch: StopWatch,
    /// Tokens whose text is not certain yet, with the byte at which it begins.
    held: VecDeque<(usize, TokenInfo)>,
    /// Bytes of text decoded so far, stop strings included.
    decoded: usize,
    finish: Option<FinishReason>,
}

/// Why an answer cannot grow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrowError {
    #[error("the logits are not finite")]
    NotFinite(#[from] NotFinite),
    #[error("the chosen token cannot be decoded")]
    Decode(#[from] TokenizerError),
}

impl<'a> Growing<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, isa: Isa, terms: Terms) -> Self {
        Self {
            isa,
            random: Philox::from_seed(terms.sampling.seed),
            output: Vec::new(),
            seen: BTreeMap::new(),
            decoder: tokenizer.decoder(&terms.prompt),
            watch: StopWatch::new(terms.stop.clone()),
            held: VecDeque::new(),
            decoded: 0,
            finish: None,
            terms,
        }
    }

    /// The tokens chosen so far.
    pub(crate) fn output(&self) -> &[u32] {
        &self.output
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Why the answer ended, once it has.
    pub(crate) fn finish(&self) -> Option<FinishReason> {
        self.finish
    }

    /// The token that `logits` and the terms lead to at the next position.
    pub(crate) fn choose(&self, logits: &[f32]) -> Result<u32, NotFinite> {
        let position = (self.terms.prompt.len() + self.output.len()) as u64;
        let sampler = self.terms.sampling.sampler();
        sampler.choose(self.isa, logits, &self.seen, &self.random, position)
    }

    /// Adds `token`; returns what has become certain of the answer. `logits` are those that it
    /// was chosen from, before penalties.
    pub(crate) fn push(&mut self, token: u32, logits: &[f32]) -> Result<Piece, GrowError> {
        self.output.push(token);
        *self.seen.entry(token).or_default() += 1;
        let mut piece = Piece::default();
        if self.terms.eos.contains(&token) {
            self.finish = Some(FinishReason::Stop);
        } else {
            let info = self.describe(token, logits)?;
            let text = self.decoder.push(token)?;
            self.held.push_back((self.decoded, info));
            self.decoded += text.len();
            piece.text = self.watch.push(&text);
            if self.watch.stopped() {
                self.finish = Some(FinishReason::Stop);
            } else if self.output.len() >= self.terms.max_tokens {
                self.finish = Some(FinishReason::Length);
            }
        }
        if self.finish.is_some() && !self.watch.stopped() {
            let rest = self.decoder.clone().finish()?;
            self.decoded += rest.len();
            piece.text.push_str(&self.watch.push(&rest));
            piece.text.push_str(&self.watch.finish());
        }
        self.release(&mut piece);
        Ok(piece)
    }

    /// Moves the tokens whose text has become certain to `piece`.
    fn release(&mut self, piece: &mut Piece) {
        while let Some((start, _)) = self.held.front() {
            // A token's text ends where the next one's begins.
            let end = self.held.get(1).map_or(self.decoded, |(next, _)| *next);
            let certain = end <= self.watch.released();
            let cut = self.finish.is_some() && *start < self.watch.released();
            if !(certain || cut) {
                break;
            }
            let token = self.held.pop_front();
            piece.tokens.extend(token.map(|(_, info)| info));
        }
    }

    fn describe(&self, token: u32, logits: &[f32]) -> Result<TokenInfo, TokenizerError> {
        let text = self.decoder.peek(token)?;
        let Some(alternatives) = self.terms.logprobs else {
            return Ok(TokenInfo {
                id: token,
                text,
                logprob: None,
                top: Vec::new(),
            });
        };
        let total = log_sum(logits);
        let logprob = |id: u32| undisturbed(|| logits[id as usize] - total);
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let likelier = |a: &u32, b: &u32| {
            logits[*b as usize]
                .total_cmp(&logits[*a as usize])
                .then(a.cmp(b))
        };
        let count = alternatives.min(order.len());
        if count > 0 {
            order.select_nth_unstable_by(count - 1, likelier);
        }
        order.truncate(count);
        order.sort_unstable_by(likelier);
        let describe = |id: u32| -> Result<Alternative, TokenizerError> {
            Ok(Alternative {
                id,
                text: self.decoder.peek(id)?,
                logprob: logprob(id),
            })
        };
        let top = order.into_iter().map(describe).collect::<Result<_, _>>()?;
        Ok(TokenInfo {
            id: token,
            text,
            logprob: Some(logprob(token)),
            top,
        })
    }
}

/// The logarithm of the sum of exponentials: what a logit is above its log-probability.
fn log_sum(logits: &[f32]) -> f32 {
    undisturbed(|| {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|logit| exp(logit - most)).sum();
        most + ln(sum)
    })
}
