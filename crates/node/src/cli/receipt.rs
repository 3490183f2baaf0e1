//! `r3mes verify answer`: compute an answer again from its receipt.

use std::path::Path;

use anyhow::Context;
use r3mes_exact::Cpu;
use r3mes_gateway::{openai, rpc};
use r3mes_inference::{AdapterTerms, Evidence, Receipt, verify as verify_receipt};
use r3mes_model::{Adapter, AdapterLayout, LinearSet, LoadedAdapter, LoraConfig, Model, Tokenizer};
use r3mes_types::{
    Cid, Hash,
    models::{QueryModel, QueryVersions, Version},
};
use serde::Serialize;

use crate::{
    agents::{self, bench::MAX_ADAPTER_BYTES, depot::Depot, models::ModelFiles},
    config::Config,
    home::Home,
};

/// Disk that fetched blobs may take, in MiB.
const STORAGE_MB: u64 = 4096;
/// Pin of what is fetched for one command.
const PIN: &str = "verify";

/// What recomputing an answer found, when everything agreed.
#[derive(Debug, Serialize)]
pub(crate) struct AnswerReport {
    receipt: String,
    model: String,
    adapter: Option<String>,
    prompt_tokens: usize,
    answer_tokens: usize,
    signed_by: String,
}

impl AnswerReport {
    /// One line for people.
    pub(crate) fn text(&self) -> String {
        let adapter = self
            .adapter
            .as_ref()
            .map_or_else(String::new, |adapter| format!(" with adapter {adapter}"));
        format!(
            "the answer recomputes: {} tokens after a prompt of {}, model {}{adapter}, signed by {}",
            self.answer_tokens, self.prompt_tokens, self.model, self.signed_by
        )
    }
}

/// Reads a receipt from a file, a URL or the API, fetches what it names, and computes the answer again.
///
/// # Errors
/// Names the first position that differs, or what could not be had.
pub(crate) async fn verify(
    home: &Home,
    config: &Config,
    named: &str,
    api: &str,
) -> anyhow::Result<AnswerReport> {
    let bytes = match Path::new(named).is_file() {
        true => std::fs::read(named).with_context(|| format!("cannot read {named}"))?,
        false => openai::Client::new(api)?.receipt(named).await?,
    };
    let receipt =
        Receipt::from_bytes(&bytes).with_context(|| format!("{named} is not a receipt"))?;
    let claim = &receipt.claim;

    let folder = tempfile::tempdir()?;
    let client = agents::chain::connect(home, config)?;
    let store = agents::open_store(folder.path(), STORAGE_MB, false)?;
    let depot = Depot::new(home, config, store, client.clone())?;
    let files = ModelFiles::of_command(&folder);
    let packed = files.open(&depot, &client, claim.model).await?;
    let spec = client
        .query(&QueryModel { id: claim.model })
        .await?
        .model
        .context("the model is not registered")?
        .spec;
    let tokenizer = depot
        .get(spec.tokenizer, r3mes_model::MAX_TOKENIZER_BYTES, None, PIN)
        .await?;
    let tokenizer = Tokenizer::from_bytes(&tokenizer)?;
    let model = Model::load(agents::device(config)?, &packed);
    let adapter = match &claim.adapter {
        None => None,
        Some(terms) => Some(load_adapter(&client, &depot, &model, terms).await?),
    };
    let evidence = Evidence {
        model: &model,
        adapter: adapter.as_ref().map(|(loaded, hash)| (loaded, *hash)),
        tokenizer: &tokenizer,
    };
    tokio::task::block_in_place(|| verify_receipt(&receipt, &evidence))?;
    Ok(AnswerReport {
        receipt: receipt.id().to_string(),
        model: spec.name.to_string(),
        adapter: claim.adapter.as_ref().map(|terms| terms.hash.to_string()),
        prompt_tokens: claim.prompt.len(),
        answer_tokens: claim.output.len(),
        signed_by: receipt.key.address().to_string(),
    })
}

/// Fetches the adapter that a receipt names, and loads it with its hash.
async fn load_adapter(
    client: &rpc::Client,
    depot: &Depot,
    model: &Model<Cpu>,
    terms: &AdapterTerms,
) -> anyhow::Result<(LoadedAdapter<Cpu>, Hash)> {
    let cid = adapter_cid(client, model.id(), terms.hash).await?;
    let bytes = depot.get(cid, MAX_ADAPTER_BYTES, None, PIN).await?;
    let targets = u8::try_from(terms.targets)
        .ok()
        .and_then(LinearSet::from_bits);
    let lora = LoraConfig {
        rank: terms.rank as usize,
        alpha: f32::from_bits(terms.alpha),
        targets: targets.context("the receipt names linear layers that do not exist")?,
    };
    let layout = AdapterLayout::new(model.config(), lora)?;
    let adapter = Adapter::from_bytes(&layout, &bytes)?;
    let loaded = LoadedAdapter::new(model.device(), &layout, &adapter)?;
    Ok((loaded, adapter.hash()))
}

/// Where an adapter lies that the network trained.
async fn adapter_cid(client: &rpc::Client, model: Hash, adapter: Hash) -> anyhow::Result<Cid> {
    let mut page = None;
    loop {
        let answer = client
            .query(&QueryVersions {
                model,
                page: page.take(),
            })
            .await?;
        let found = answer
            .versions
            .iter()
            .find(|version: &&Version| version.adapter_hash == adapter);
        if let Some(version) = found {
            return Ok(version.adapter);
        }
        anyhow::ensure!(
            !answer.next.is_empty(),
            "the ledger knows no version with adapter {adapter}"
        );
        page = Some(r3mes_types::query::PageRequest {
            after: answer.next,
            limit: 0,
        });
    }
}
