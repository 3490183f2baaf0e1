//! Checking a receipt: the whole answer computed again, in one teacher-forced prefill.

use r3mes_exact::Device;
use r3mes_model::{InferenceWorkspace, LoadedAdapter, LogitRows, Model, Segment, Tokenizer};
use r3mes_types::Hash;

use crate::answer::{Growing, Terms};
use crate::exact::EXACT_VERSION;
use crate::receipt::{AdapterTerms, Claim, MARK_BYTES, Receipt, Transcript};

/// Rows of one forward pass; bounds the memory for logits.
const CHUNK: usize = 128;

/// What a receipt is checked against.
#[derive(Debug)]
pub struct Evidence<'a, D: Device> {
    /// The base model that the receipt names.
    pub model: &'a Model<D>,
    /// The adapter that the receipt names, with its hash, if it names one.
    pub adapter: Option<(&'a LoadedAdapter<D>, Hash)>,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
}

/// Why a receipt is false, or cannot be checked with this evidence.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The signature is not that of the key over the claim.
    #[error("the receipt's signature is not that of its key: it was altered after signing")]
    Signature,
    /// The receipt is of another version of the arithmetic.
    #[error(
        "the receipt is of version {found} of the exact arithmetic, this program of {EXACT_VERSION}"
    )]
    Version {
        /// The receipt's version.
        found: u32,
    },
    /// The receipt is about another model.
    #[error("the receipt is about model {claimed}, but {given} was given to check it with")]
    Model {
        /// The receipt's model.
        claimed: Hash,
        /// The model given.
        given: Hash,
    },
    /// The receipt is about another adapter.
    #[error(
        "the receipt is about {}, but {} was given to check it with",
        adapter_name(claimed),
        adapter_name(given)
    )]
    Adapter {
        /// The receipt's adapter.
        claimed: Option<Hash>,
        /// The adapter given.
        given: Option<Hash>,
    },
    /// The adapter's rank, alpha or targets are not as the receipt says.
    #[error("the adapter was given with other rank, alpha or targets than the receipt says")]
    AdapterTerms,
    /// The claim contradicts itself.
    #[error("the receipt contradicts itself: {reason}")]
    Malformed {
        /// How.
        reason: &'static str,
    },
    /// The state of the model at a position is not the one claimed.
    #[error("at position {position} the model's state is not the one claimed")]
    State {
        /// The first such position, counted from the beginning of the prompt.
        position: usize,
    },
    /// The token at a position is not the one that the sampler chooses.
    #[error("at position {position} the sampler chooses token {chosen}, but {claimed} is claimed")]
    Token {
        /// The first such position, counted from the beginning of the prompt.
        position: usize,
        /// The token that follows from the state.
        chosen: u32,
        /// The token claimed.
        claimed: u32,
    },
    /// The answer ends too early, too late or for another reason.
    #[error("the answer does not end at position {position} as claimed")]
    Finish {
        /// Position after the last token that belongs to the answer.
        position: usize,
    },
    /// The computation itself failed, so nothing can be said.
    #[error("the answer cannot be computed again on this machine")]
    Computation(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl VerifyError {
    /// The position at which claim and recomputation part, where there is one.
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::State { position } | Self::Token { position, .. } | Self::Finish { position } => {
                Some(*position)
            }
            _ => None,
        }
    }
}

/// Checks everything that `receipt` claims: signature, model, adapter, every state, every chosen
/// token, and the end of the answer.
///
/// # Errors
/// The first thing that differs.
pub fn verify<D: Device>(receipt: &Receipt, evidence: &Evidence<'_, D>) -> Result<(), VerifyError> {
    if !receipt.is_signed() {
        return Err(VerifyError::Signature);
    }
    let claim = &receipt.claim;
    check_names(claim, evidence)?;
    check_sizes(claim, evidence)?;
    recompute(claim, evidence)
}

fn check_names<D: Device>(claim: &Claim, evidence: &Evidence<'_, D>) -> Result<(), VerifyError> {
    if claim.exact_version != EXACT_VERSION {
        return Err(VerifyError::Version {
            found: claim.exact_version,
        });
    }
    let (claimed, given) = (claim.model, evidence.model.id());
    if claimed != given {
        return Err(VerifyError::Model { claimed, given });
    }
    let claimed = claim.adapter.as_ref().map(|adapter| adapter.hash);
    let given = evidence.adapter.map(|(_, hash)| hash);
    if claimed != given {
        return Err(VerifyError::Adapter { claimed, given });
    }
    let (Some(claimed), Some((loaded, hash))) = (&claim.adapter, evidence.adapter) else {
        return Ok(());
    };
    let lora = loaded.layout().config();
    let given = AdapterTerms {
        hash,
        rank: lora.rank as u32,
        alpha: lora.alpha.to_bits(),
        targets: u32::from(lora.targets.bits()),
    };
    if *claimed == given {
        Ok(())
    } else {
        Err(VerifyError::AdapterTerms)
    }
}

fn check_sizes<D: Device>(claim: &Claim, evidence: &Evidence<'_, D>) -> Result<(), VerifyError> {
    let config = evidence.model.config();
    let malformed = |reason| Err(VerifyError::Malformed { reason });
    if claim.prompt.is_empty() || claim.output.is_empty() {
        return malformed("it has no prompt or no answer");
    }
    let tokens = claim.prompt.len() + claim.output.len();
    if tokens > config.context || claim.output.len() > claim.max_tokens as usize {
        return malformed("it has more tokens than its limits allow");
    }
    if claim
        .prompt
        .iter()
        .chain(claim.output.iter())
        .any(|&t| t as usize >= config.vocab)
    {
        return malformed("it has tokens that are not in the vocabulary");
    }
    if claim.marks.len() != (tokens - 1) * MARK_BYTES {
        return malformed("it has not one mark for each position");
    }
    if claim
        .stop
        .iter()
        .any(|stop| std::str::from_utf8(stop).is_err())
    {
        return malformed("a stop string is not text");
    }
    Ok(())
}

fn recompute<D: Device>(claim: &Claim, evidence: &Evidence<'_, D>) -> Result<(), VerifyError> {
    let Evidence {
        model,
        adapter,
        tokenizer,
    } = evidence;
    let loaded = adapter.map(|(loaded, _)| loaded);
    let mut growing = Growing::new(
        tokenizer,
        model.device().host_isa(),
        terms(claim, model.config().eos.clone()),
    );
    let mut transcript =
        Transcript::new(EXACT_VERSION, &model.id(), adapter.as_ref().map(|a| &a.1));
    let mut cache = model.cache();
    let mut workspace = InferenceWorkspace::new();

    // The last token was chosen but never computed with.
    let (_, fed) = claim.output.split_last().expect("sizes were checked");
    let tokens: Vec<u32> = claim.prompt.iter().chain(fed).copied().collect();
    let first_choice = claim.prompt.len() - 1;
    let mut position = 0;
    while position < tokens.len() {
        // No chunk spans the place from which logits are needed.
        let limit = if position < first_choice {
            first_choice
        } else {
            tokens.len()
        };
        let end = limit.min(position + CHUNK);
        let logits = if position < first_choice {
            LogitRows::None
        } else {
            LogitRows::All
        };
        let segment = Segment {
            tokens: &tokens[position..end],
            cache: &mut cache,
            logits,
        };
        model
            .advance(loaded, &mut [segment], &mut workspace)
            .map_err(computation)?;
        for row in 0..end - position {
            let (codes, scale) = workspace.final_state(row);
            transcript.push(codes, scale);
            let marks = MARK_BYTES * (position + row)..MARK_BYTES * (position + row + 1);
            if transcript.marks()[marks.clone()] != claim.marks[marks] {
                return Err(VerifyError::State {
                    position: position + row,
                });
            }
            if position + row >= first_choice {
                let index = position + row - first_choice;
                check_choice(claim, index, workspace.logits(row), &mut growing)?;
            }
        }
        position = end;
    }
    if transcript.link() != claim.transcript {
        return Err(VerifyError::State {
            position: tokens.len() - 1,
        });
    }
    if growing.finish() != Some(claim.finish) {
        return Err(VerifyError::Finish {
            position: tokens.len() + 1,
        });
    }
    Ok(())
}

/// Checks that the `index`-th token of the answer follows from `logits`, and adds it.
fn check_choice(
    claim: &Claim,
    index: usize,
    logits: &[f32],
    growing: &mut Growing<'_>,
) -> Result<(), VerifyError> {
    let position = claim.prompt.len() + index;
    if growing.finish().is_some() {
        return Err(VerifyError::Finish { position });
    }
    let (claimed, chosen) = (
        claim.output[index],
        growing.choose(logits).map_err(computation)?,
    );
    if claimed != chosen {
        return Err(VerifyError::Token {
            position,
            chosen,
            claimed,
        });
    }
    growing.push(claimed, logits).map_err(computation)?;
    Ok(())
}

fn terms(claim: &Claim, eos: Vec<u32>) -> Terms {
    let text = |stop: &[u8]| String::from_utf8_lossy(stop).into_owned();
    Terms {
        prompt: claim.prompt.to_vec(),
        sampling: claim.sampling.clone(),
        max_tokens: claim.max_tokens as usize,
        stop: claim.stop.iter().map(|stop| text(stop)).collect(),
        eos: if claim.ignore_eos { Vec::new() } else { eos },
        logprobs: None,
    }
}

fn computation(error: impl std::error::Error + Send + Sync + 'static) -> VerifyError {
    VerifyError::Computation(Box::new(error))
}

fn adapter_name(hash: &Option<Hash>) -> String {
    match hash {
        Some(hash) => format!("adapter {hash}"),
        None => "the base model without an adapter".to_owned(),
    }
}
