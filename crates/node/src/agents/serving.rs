//! Role 2: answers prompts with a registered model, and with the newest adapter that the ledger has for it.

use std::sync::Arc;

use anyhow::Context as _;
use r3mes_exact::Cpu;
use r3mes_gateway::openai::{self, ApiLimits};
use r3mes_http::{metrics::Metrics, server::serve};
use r3mes_inference::exact::{self, ExactEngine, Limits, Parts};
use r3mes_model::{Model, Tokenizer};
use r3mes_training::job::adapter_layout;
use r3mes_types::{
    Hash, SecretKey,
    models::{ModelSpec, QueryModel, Version},
    task::AdapterRef,
    training::QueryRun,
};

use super::{
    RETRY_PAUSE, bench,
    context::Context,
    listen,
    models::{self, ModelFiles},
    ready,
};
use crate::config::RoleConfig;

/// Pin of what is served.
const PIN: &str = "served";
/// Longest tokenizer that is fetched.
const MAX_TOKENIZER_BYTES: u64 = r3mes_model::MAX_TOKENIZER_BYTES;
/// What the newest adapter's name adds to the base model's.
pub const TUNED: &str = "-tuned";

/// Serves until shutdown.
pub(super) async fn run(
    agent: Context,
    device: Cpu,
    settings: &RoleConfig,
    key: SecretKey,
    files: &ModelFiles,
) -> anyhow::Result<()> {
    let spec = served_model(&agent, settings.model.as_deref()).await?;
    let packed = files.open(&agent.depot, &agent.chain, spec.id).await?;
    let bytes = agent
        .depot
        .get(spec.tokenizer, MAX_TOKENIZER_BYTES, None, PIN)
        .await?;
    let tokenizer = Tokenizer::from_bytes(&bytes)?;
    anyhow::ensure!(
        tokenizer.hash() == spec.tokenizer_hash,
        "the tokenizer fetched is not the one on the ledger"
    );
    let (engine, worker) = exact::engine(Parts {
        model: Arc::new(Model::load(device, &packed)),
        tokenizer: Arc::new(tokenizer),
        template: packed
            .chat_template()
            .with_context(|| format!("the model {} cannot be conversed with", spec.name))?,
        name: spec.name.to_string(),
        key,
        limits: Limits::default(),
    });
    let engine = Arc::new(engine);
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || worker.run())?;

    let address = settings
        .api_listen
        .context("roles.serving.api_listen is missing in the configuration")?;
    let listener = listen(address, "roles.serving.api_listen").await?;
    let metrics = Metrics::new();
    let api = openai::Api::new(
        engine.clone(),
        Arc::clone(agent.depot.store()),
        &metrics,
        ApiLimits::default(),
    )?;
    let router = api.router().merge(metrics.router());
    let serving = tokio::spawn(serve(listener, router, agent.shutdown.clone()));
    follow(&agent, &engine, &spec).await;
    serving.await?;
    engine.stop();
    tokio::task::spawn_blocking(move || thread.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the engine panicked"))
}

/// Swaps the adapter whenever the ledger has a newer one; requests that run keep theirs.
async fn follow(agent: &Context, engine: &ExactEngine<Cpu>, spec: &ModelSpec) {
    let mut served = None;
    let mut announced = false;
    let mut height = 0;
    loop {
        let turn = async {
            match swap(agent, engine, spec, &mut served).await {
                Ok(()) if !announced => {
                    ready();
                    announced = true;
                }
                Ok(()) => {}
                Err(error) => tracing::warn!("cannot take the newest adapter: {error:#}"),
            }
            match agent.chain.wait_height(height).await {
                Ok(newest) => height = newest,
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        };
        tokio::select! {
            () = agent.shutdown.cancelled() => return,
            () = turn => {}
        }
    }
}

async fn swap(
    agent: &Context,
    engine: &ExactEngine<Cpu>,
    spec: &ModelSpec,
    served: &mut Option<Hash>,
) -> anyhow::Result<()> {
    let newest = agent.chain.query(&QueryModel { id: spec.id }).await?.newest;
    let Some(version) = newest.filter(|version| *served != Some(version.adapter_hash)) else {
        return Ok(());
    };
    let hash = version.adapter_hash;
    load(agent, engine, spec, &version).await?;
    tracing::info!(round = version.round, adapter = %hash, "serving a new adapter");
    *served = Some(hash);
    Ok(())
}

async fn load(
    agent: &Context,
    engine: &ExactEngine<Cpu>,
    spec: &ModelSpec,
    version: &Version,
) -> anyhow::Result<()> {
    let run = agent.chain.query(&QueryRun { run: version.run }).await?;
    let reference = AdapterRef {
        cid: Some(version.adapter),
        adapter: version.adapter_hash,
        state: Hash::ZERO,
    };
    let bytes = bench::fetch_adapter(&agent.depot, &reference, PIN)
        .await?
        .unwrap_or_default();
    let layout = adapter_layout(engine.model().config(), &run.params.hyper)?;
    let adapter = r3mes_model::Adapter::from_bytes(&layout, &bytes)?;
    anyhow::ensure!(
        adapter.hash() == version.adapter_hash,
        "the adapter fetched is not the one on the ledger"
    );
    let name = format!("{}{TUNED}", spec.name.as_str());
    engine.serve_adapter(&name, *layout.config(), &adapter, Some(version.round))?;
    Ok(())
}

/// The model to serve: that of the name, or the first one that was registered, whatever came later.
async fn served_model(agent: &Context, name: Option<&str>) -> anyhow::Result<ModelSpec> {
    let models = models::registered(&agent.chain).await?;
    let chosen = match name {
        Some(name) => {
            let named = models.iter().find(|model| *model.spec.name == *name);
            named.with_context(|| format!(
                "no model is registered under the name {name:?}, which roles.serving.model in the configuration asks for; `r3mes query models` lists what there is"
            ))?
        }
        None => models
            .iter()
            .min_by_key(|model| (model.registered_at, model.spec.id))
            .context("no model is registered on the ledger")?,
    };
    Ok(chosen.spec.clone())
}
