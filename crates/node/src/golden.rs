//! Golden hashes: what this machine computes, to be compared with what every machine must compute.
//!
//! Each hash is pinned once, beside the code that computes it: [`pinned`] puts them together for
//! `r3mes golden`, which `tools/golden` runs, and for the roles, which compare before they work.

use std::{collections::BTreeMap, sync::Arc};

use r3mes_exact::{Bytes, Cpu, GOLDEN, Isa, NotFinite};
use r3mes_inference::{
    Engine, Prompt, Request, Sampling,
    exact::{self, Limits, Parts},
};
use r3mes_model::{ChatTemplate, Model, PLAIN_TEMPLATE, PackedModel, Tokenizer};
use r3mes_training::golden::{PACKAGE, ROUND, STEP, package_hash, round_hash, step_hash};
use r3mes_types::{Role, SecretKey};

use crate::assets;

/// Text that the golden generation goes on from.
const PROMPT: &str = "Once upon a time, in a forest far away,";
/// Tokens of the golden generation.
const TOKENS: usize = 24;
/// Seed of the golden generation.
const SEED: u64 = 42;
/// What the golden generation must give.
const GENERATION: &str = "939340b6865c4f489362cf31e7cbe1c872121a4c687a1100d8bb54b4e0fbd6a3";

/// Most differing hashes that an error tells in full.
const MAX_SHOWN: usize = 3;

/// Names of what is more than one family of kernels.
const STEP_NAME: &str = "training step";
const ROUND_NAME: &str = "training round";
const PACKAGE_NAME: &str = "packages and aggregates";
const GENERATION_NAME: &str = "generation";

/// Hashes in hexadecimal, by the name of what is hashed.
pub type Hashes = BTreeMap<String, String>;

/// Why a machine is not to compute for others.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It computes, but something else.
    #[error(
        "this machine computes something else than the network: {isa} kernels, {}. {}",
        shown(differing),
        advice(*isa)
    )]
    Differs {
        /// The back end.
        isa: Isa,
        /// Name of what differs, what was computed, and what is pinned.
        differing: Vec<[String; 3]>,
    },
    /// It does not even compute numbers.
    #[error("the {isa} kernels fail on this machine. {}", advice(*isa))]
    Fails {
        /// The back end.
        isa: Isa,
        /// What they gave.
        #[source]
        source: NotFinite,
    },
    /// The base model, which is part of this program, cannot go on from a prompt.
    #[error("the base model generates nothing with {isa} kernels. {}", advice(*isa))]
    Silent {
        /// The back end.
        isa: Isa,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What every machine must compute.
pub fn pinned() -> Hashes {
    let whole = [
        (STEP_NAME, STEP),
        (ROUND_NAME, ROUND),
        (PACKAGE_NAME, PACKAGE),
        (GENERATION_NAME, GENERATION),
    ];
    GOLDEN.into_iter().chain(whole).map(named).collect()
}

/// Every golden hash as this machine computes it.
///
/// # Errors
/// When the machine cannot compute them at all.
pub fn hashes(device: &Cpu) -> Result<Hashes, Unfit> {
    let mut all = kernels(device)?;
    all.extend([
        (STEP_NAME.to_owned(), step_hash(device.clone()).to_string()),
        (
            ROUND_NAME.to_owned(),
            round_hash(device.clone()).to_string(),
        ),
        (PACKAGE_NAME.to_owned(), package_hash().to_string()),
        (GENERATION_NAME.to_owned(), generation(device)?),
    ]);
    Ok(all)
}

/// Compares what a role is about to do with `pinned`: every family of kernels, then a training step
/// with them and packages, or a generation where the role serves.
///
/// # Errors
/// When a hash differs, or the machine cannot compute them at all.
pub fn require(device: &Cpu, role: Role, pinned: &Hashes) -> Result<(), Unfit> {
    compare(device.isa(), &kernels(device)?, pinned)?;
    let whole = match role {
        Role::Serving => vec![(GENERATION_NAME, generation(device)?)],
        Role::Miner | Role::Validator | Role::Proposer => vec![
            (STEP_NAME, step_hash(device.clone()).to_string()),
            (PACKAGE_NAME, package_hash().to_string()),
        ],
    };
    let whole = whole
        .into_iter()
        .map(|(name, hash)| (name.to_owned(), hash));
    compare(device.isa(), &whole.collect(), pinned)
}

/// Compares hashes that this machine computed with the `pinned` ones of the same names.
///
/// # Errors
/// [`Unfit::Differs`] names those that differ.
pub fn compare(isa: Isa, computed: &Hashes, pinned: &Hashes) -> Result<(), Unfit> {
    let differing: Vec<_> = computed
        .iter()
        .filter(|&(name, hash)| pinned.get(name) != Some(hash))
        .map(|(name, hash)| {
            let wanted = pinned.get(name).cloned().unwrap_or_default();
            [name.clone(), hash.clone(), wanted]
        })
        .collect();
    match differing.is_empty() {
        true => Ok(()),
        false => Err(Unfit::Differs { isa, differing }),
    }
}

fn kernels(device: &Cpu) -> Result<Hashes, Unfit> {
    let computed = r3mes_exact::golden(device).map_err(|source| Unfit::Fails {
        isa: device.isa(),
        source,
    })?;
    let hash = |family: &r3mes_exact::Golden| (family.name.to_owned(), family.hex());
    Ok(computed.iter().map(hash).collect())
}

fn named((name, hash): (&str, &str)) -> (String, String) {
    (name.to_owned(), hash.to_owned())
}

fn shown(differing: &[[String; 3]]) -> String {
    let one = |[name, computed, pinned]: &[String; 3]| {
        format!("`{name}` gives {computed} instead of {pinned}")
    };
    let mut shown: Vec<_> = differing.iter().take(MAX_SHOWN).map(one).collect();
    if differing.len() > MAX_SHOWN {
        shown.push(format!("and {} more differ", differing.len() - MAX_SHOWN));
    }
    shown.join(", ")
}

fn advice(isa: Isa) -> &'static str {
    match isa {
        Isa::Scalar => {
            "Nobody would accept its work, so it does none. These are the plain kernels: the fault is this build's or this machine's. Report what `r3mes golden` prints, and the processor"
        }
        _ => {
            "Nobody would accept its work, so it does none. Start with R3MES_KERNELS=scalar, which is slower and uses no special instructions, and report what `r3mes golden` prints, and the processor"
        }
    }
}

/// The chained hash over every hidden state of a sampled generation on the base model.
fn generation(device: &Cpu) -> Result<String, Unfit> {
    generate(device.clone()).map_err(|source| Unfit::Silent {
        isa: device.isa(),
        source,
    })
}

fn generate(device: Cpu) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let packed = PackedModel::from_bytes(&Bytes::from_slice(assets::BASE_MODEL))?;
    let (engine, worker) = exact::engine(Parts {
        model: Arc::new(Model::load(device, &packed)),
        tokenizer: Arc::new(Tokenizer::from_bytes(assets::BASE_TOKENIZER)?),
        template: ChatTemplate::new(PLAIN_TEMPLATE, "", "")?,
        name: assets::BASE_MODEL_NAME.to_owned(),
        key: SecretKey::from_bytes(&[1; 32])?,
        limits: Limits::default(),
    });
    let thread = std::thread::spawn(move || worker.run());
    let request = Request {
        model: assets::BASE_MODEL_NAME.to_owned(),
        prompt: Prompt::Text(PROMPT.to_owned()),
        sampling: Sampling {
            temperature: 0.8,
            top_p: 0.95,
            seed: SEED,
            ..Sampling::GREEDY
        },
        max_tokens: Some(TOKENS),
        stop: Vec::new(),
        ignore_eos: true,
        logprobs: None,
        nonce: [0; 32],
    };
    let answer = engine.submit(request)?.blocking_answer()?;
    engine.stop();
    thread.join().map_err(|_| "the engine panicked")?;
    let receipt = answer.completion.receipt;
    let receipt = receipt.ok_or("the engine gave no receipt")?;
    Ok(receipt.claim.transcript.to_string())
}

#[cfg(test)]
mod tests {
    use r3mes_exact::CpuOptions;

    use super::*;

    #[test]
    fn this_machine_computes_what_is_pinned() {
        let device = Cpu::new(CpuOptions::default()).unwrap();
        let computed = hashes(&device).unwrap();
        assert_eq!(computed, pinned());
    }

    #[test]
    fn what_differs_is_named_with_what_to_do() {
        let mut forged = pinned();
        forged.insert(STEP_NAME.to_owned(), "00".to_owned());
        let refusal = |isa| compare(isa, &pinned(), &forged).unwrap_err().to_string();
        let said = refusal(Isa::Avx2);
        assert!(
            said.contains("avx2 kernels, `training step` gives d08f"),
            "{said}"
        );
        assert!(said.contains("instead of 00. "), "{said}");
        assert!(said.contains("R3MES_KERNELS=scalar"), "{said}");
        let all = compare(Isa::Avx2, &pinned(), &Hashes::new()).unwrap_err();
        assert!(all.to_string().contains("and 16 more differ"), "{all}");
        let plain = refusal(Isa::Scalar);
        assert!(!plain.contains("R3MES_KERNELS"), "{plain}");
    }
}
