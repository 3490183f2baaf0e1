//! Role 2: answers prompts with a registered model, and with the newest adapter that the ledger has for it.

use std::sync::Arc;

use anyhow::Context as _;
use r3mes_exact::Cpu;
use r3mes_gateway::openai::{self, ApiLimits};
use r3mes_http::{metrics::Metrics, server::serve};
use r3mes_inference::{
    agent::{Action, Facts, Fetched, choose, plan},
    exact::{self, ExactEngine, Limits, Parts, Worker},
};
use r3mes_model::{Adapter, AdapterError, LoraConfig, Model, Tokenizer};
use r3mes_training::job::adapter_layout;
use r3mes_types::{
    Hash, Role, SecretKey,
    models::{ModelSpec, QueryModel, Version},
    training::{QueryRun, Run},
};
use tracing::{Instrument, Span};

use super::{
    bench::MAX_ADAPTER_BYTES,
    context::Context,
    listen,
    models::{self, ModelFiles},
    ready,
    turns::{self, Failed},
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
    let models = models::registered(&agent.chain).await?;
    let chosen = choose(&models, settings.model.as_deref()).context(
        "there is nothing to serve: `r3mes query models` lists the models, and roles.serving.model in the configuration names one of them",
    )?;
    let spec = chosen.spec.clone();
    let (engine, worker) = open(&agent, device, &spec, key, files).await?;
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || worker.run())?;

    let address = settings
        .api_listen
        .context("roles.serving.api_listen is missing in the configuration")?;
    let listener = listen(address, "roles.serving.api_listen").await?;
    let metrics = Metrics::new();
    let api = openai::Api::new(
        Arc::new(engine.clone()),
        Arc::clone(agent.depot.store()),
        &metrics,
        ApiLimits::default(),
    )?;
    let router = api.router().merge(metrics.router());
    let serving = tokio::spawn(serve(listener, router, agent.http, agent.shutdown.clone()));
    let host = Host {
        agent,
        engine: engine.clone(),
        spec,
        checked: None,
    };
    host.follow().await;
    serving.await?;
    engine.stop();
    tokio::task::spawn_blocking(move || thread.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the engine panicked"))
}

/// Fetches a model with its tokenizer, and makes an engine of them.
async fn open(
    agent: &Context,
    device: Cpu,
    spec: &ModelSpec,
    key: SecretKey,
    files: &ModelFiles,
) -> anyhow::Result<(ExactEngine<Cpu>, Worker<Cpu>)> {
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
    Ok(exact::engine(Parts {
        model: Arc::new(Model::load(device, &packed)),
        tokenizer: Arc::new(tokenizer),
        template: packed
            .chat_template()
            .with_context(|| format!("the model {} cannot be conversed with", spec.name))?,
        name: spec.name.to_string(),
        key,
        limits: Limits::default(),
    }))
}

/// Does what the plan says for an engine that answers already.
struct Host {
    agent: Context,
    engine: ExactEngine<Cpu>,
    spec: ModelSpec,
    /// What became of the adapter of [`Facts::fetched`].
    checked: Option<Result<(LoraConfig, Adapter), Unusable>>,
}

impl Host {
    /// Asks, plans and acts until shutdown.
    async fn follow(mut self) {
        let shutdown = self.agent.shutdown.clone();
        let (mut facts, mut height) = (Facts::default(), 0);
        let next = async || self.turn(&mut facts, &mut height).await;
        turns::repeat(&shutdown, next).await;
    }

    /// Asks, plans and acts once; waits for a block when there is nothing to do.
    async fn turn(&mut self, facts: &mut Facts, height: &mut u64) -> Result<(), Failed> {
        let question = QueryModel { id: self.spec.id };
        let seen = self.agent.chain.query(&question).await;
        let seen = seen.map_err(|error| turns::tell(&error.into()))?;
        let Some(action) = plan(facts, &seen) else {
            let waited = self.agent.chain.wait_height(*height).await;
            *height = waited.map_err(|error| turns::tell(&error.into()))?;
            return Ok(());
        };
        let span = span(&action);
        let acting = async {
            let done = self.execute(facts, action).await;
            done.map_err(|error| turns::tell(&error))
        };
        acting.instrument(span).await
    }

    /// Does one action and keeps its outcome in `facts`.
    async fn execute(&mut self, facts: &mut Facts, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Fetch(version) => {
                let fetched = self.fetch(&version).await;
                let fetched = fetched.context("cannot fetch the newest adapter")?;
                facts.fetched = Some(fetched);
            }
            Action::Serve(version) => {
                let Some(Ok((lora, adapter))) = &self.checked else {
                    anyhow::bail!("no adapter is ready");
                };
                let name = format!("{}{TUNED}", self.spec.name.as_str());
                let round = Some(version.round);
                self.engine.serve_adapter(&name, *lora, adapter, round)?;
                tracing::info!(round = version.round, adapter = %version.adapter_hash, "serving a new adapter");
                facts.served = Some(version.number);
                self.checked = None;
            }
            Action::GiveUp(version) => {
                if let Some(Err(error)) = self.checked.take() {
                    let error = anyhow::Error::new(error);
                    tracing::error!(
                        round = version.round,
                        adapter = %version.adapter,
                        "what was served so far goes on, for the newest adapter cannot be: {error:#}"
                    );
                }
                facts.given_up = Some(version.number);
            }
            Action::Announce => {
                ready();
                facts.announced = true;
            }
        }
        Ok(())
    }

    /// Fetches and pins a version's adapter, and checks it.
    async fn fetch(&mut self, version: &Version) -> anyhow::Result<Fetched> {
        let Context { chain, depot, .. } = &self.agent;
        let run = chain.query(&QueryRun { run: version.run }).await?;
        let bytes = depot
            .get(version.adapter, MAX_ADAPTER_BYTES, None, PIN)
            .await?;
        let checked = self.check(&run, version, &bytes);
        let fetched = Fetched {
            number: version.number,
            fits: checked.is_ok(),
        };
        self.checked = Some(checked);
        Ok(fetched)
    }

    /// Holds an adapter's bytes against the ledger and the model.
    fn check(
        &self,
        run: &Run,
        version: &Version,
        bytes: &[u8],
    ) -> Result<(LoraConfig, Adapter), Unusable> {
        let layout = adapter_layout(self.engine.model().config(), &run.params.hyper)?;
        let adapter = Adapter::from_bytes(&layout, bytes)?;
        let (found, recorded) = (adapter.hash(), version.adapter_hash);
        match found == recorded {
            true => Ok((*layout.config(), adapter)),
            false => Err(Unusable::Hash { found, recorded }),
        }
    }
}

/// An action in the log.
fn span(action: &Action) -> Span {
    let (name, about) = match action {
        Action::Fetch(version) => ("fetch", Some(version)),
        Action::Serve(version) => ("serve", Some(version)),
        Action::GiveUp(version) => ("give up", Some(version)),
        Action::Announce => ("announce", None),
    };
    let (run, round) = (about.map(|it| it.run), about.map(|it| it.round));
    turns::action(Role::Serving, name, run, round)
}

/// Why an adapter that is here can never be served.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    /// It has another form.
    #[error("the adapter does not fit the served model")]
    Form {
        /// What is wrong with it.
        #[from]
        source: AdapterError,
    },
    /// It is another one.
    #[error("the adapter has hash {found}, and the ledger says {recorded}")]
    Hash {
        /// Hash of its numbers.
        found: Hash,
        /// What the ledger says.
        recorded: Hash,
    },
}
