//! The engine's handle: checks requests, queues them, and says what is served.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, PoisonError, RwLock};

use r3mes_exact::Device;
use r3mes_model::{
    Adapter, AdapterError, AdapterLayout, ChatTemplate, LoadedAdapter, LoraConfig, Model, Tokenizer,
};
use r3mes_types::Hash;
use tokio::sync::mpsc::Sender;
use tracing::Span;

use super::{Limits, MAX_SLOTS, Parts, Worker};
use crate::answer::Terms;
use crate::engine::{Engine, Event, Generation, Load, ServedModel};
use crate::receipt::{AdapterTerms, SamplingTerms};
use crate::request::{Prompt, Request, RequestError};

/// Most adapters served beside the base model.
pub const MAX_ADAPTERS: usize = 64;

/// Handle of the exact engine; cheap to clone.
pub struct ExactEngine<D: Device> {
    shared: Arc<Shared<D>>,
    commands: SyncSender<Command<D>>,
}

/// What handle and worker both see.
pub(super) struct Shared<D: Device> {
    pub(super) model: Arc<Model<D>>,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// Most bytes of text that the context can stand for.
    most_text: usize,
    template: ChatTemplate,
    limits: Limits,
    /// What is served; the base model first.
    variants: RwLock<Vec<Arc<Variant<D>>>>,
    pub(super) counters: Counters,
    pub(super) stopping: AtomicBool,
}

/// A model under a name: the base, or the base with an adapter.
pub(super) struct Variant<D: Device> {
    name: String,
    round: Option<u64>,
    pub(super) adapter: Option<ServedAdapter<D>>,
}

/// An adapter, with what receipts say of it.
pub(super) struct ServedAdapter<D: Device> {
    pub(super) loaded: LoadedAdapter<D>,
    pub(super) terms: AdapterTerms,
}

/// Figures that the worker keeps for [`Load`].
#[derive(Default)]
pub(super) struct Counters {
    pub(super) running: AtomicUsize,
    pub(super) waiting: AtomicUsize,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) generated_tokens: AtomicU64,
    pub(super) finished: AtomicU64,
}

/// What the worker is asked.
pub(super) enum Command<D: Device> {
    /// Answer a request.
    Answer(Box<Job<D>>),
    /// Look at the flags.
    Wake,
}

/// A request that has been accepted. It keeps its variant to the end, whatever is served by then.
pub(super) struct Job<D: Device> {
    pub(super) variant: Arc<Variant<D>>,
    pub(super) terms: Terms,
    pub(super) ignore_eos: bool,
    pub(super) nonce: Hash,
    pub(super) events: Sender<Event>,
    /// The request in the log, from its acceptance to its end.
    pub(super) span: Span,
}

/// Why an adapter cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdapterRefused {
    /// It does not fit the model.
    #[error("the adapter does not fit the served model")]
    Adapter(#[from] AdapterError),
    /// Its name is that of the base model.
    #[error("`{name}` is the base model's name: serve the adapter under another")]
    Name {
        /// The name.
        name: String,
    },
    /// Too many are served already.
    #[error("{MAX_ADAPTERS} adapters are served already: withdraw one first")]
    TooMany,
}

/// Makes handle and worker.
pub(super) fn new<D: Device>(parts: Parts<D>) -> (ExactEngine<D>, Worker<D>) {
    let Parts {
        model,
        tokenizer,
        template,
        name,
        key,
        limits,
    } = parts;
    let limits = Limits {
        slots: limits.slots.clamp(1, MAX_SLOTS),
        queue: limits.queue.max(1),
        prefill: limits.prefill.clamp(1, r3mes_model::MAX_ROWS - MAX_SLOTS),
        cache_bytes: limits.cache_bytes,
    };
    let base = Arc::new(Variant {
        name,
        round: None,
        adapter: None,
    });
    let (commands, inbox) = mpsc::sync_channel(limits.queue);
    let ids = 0..u32::try_from(tokenizer.vocabulary()).unwrap_or(u32::MAX);
    let longest = ids.filter_map(|id| tokenizer.token(id)).map(|it| it.len());
    let most_text = longest.max().unwrap_or(0) * model.config().context;
    let shared = Arc::new(Shared {
        model,
        tokenizer,
        most_text,
        template,
        limits,
        variants: RwLock::new(vec![base]),
        counters: Counters::default(),
        stopping: AtomicBool::new(false),
    });
    let worker = Worker::new(Arc::clone(&shared), inbox, key, limits);
    (ExactEngine { shared, commands }, worker)
}

impl<D: Device> ExactEngine<D> {
    /// Serves `adapter` under `name` from now on, in place of the one served under it so far;
    /// requests that run keep theirs to the end. `round` is the training round that gave it.
    ///
    /// # Errors
    /// When the adapter does not fit the model, or the name is taken by the base model.
    pub fn serve_adapter(
        &self,
        name: &str,
        lora: LoraConfig,
        adapter: &Adapter,
        round: Option<u64>,
    ) -> Result<(), AdapterRefused> {
        let model = &self.shared.model;
        let layout = AdapterLayout::new(model.config(), lora)?;
        let loaded = LoadedAdapter::new(model.device(), &layout, adapter)?;
        let terms = AdapterTerms {
            hash: adapter.hash(),
            rank: lora.rank as u32,
            alpha: lora.alpha.to_bits(),
            targets: u32::from(lora.targets.bits()),
        };
        let adapter = Some(ServedAdapter { loaded, terms });
        let variant = Arc::new(Variant {
            name: name.to_owned(),
            round,
            adapter,
        });
        let mut variants = self
            .shared
            .variants
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match variants.iter().position(|served| served.name == name) {
            Some(0) => {
                return Err(AdapterRefused::Name {
                    name: name.to_owned(),
                });
            }
            Some(index) => variants[index] = variant,
            None if variants.len() > MAX_ADAPTERS => return Err(AdapterRefused::TooMany),
            None => variants.push(variant),
        }
        Ok(())
    }

    /// Serves nothing under `name` any more; requests that run go on.
    pub fn withdraw_adapter(&self, name: &str) {
        let mut variants = self
            .shared
            .variants
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut index = 0;
        variants.retain(|variant| {
            index += 1;
            index == 1 || variant.name != name
        });
    }

    /// Ends the worker: requests that run or wait fail with a clear error.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        // A full queue wakes the worker as well.
        let _ = self.commands.try_send(Command::Wake);
    }

    /// The base model.
    pub fn model(&self) -> &Arc<Model<D>> {
        &self.shared.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.shared.tokenizer
    }

    fn variant(&self, name: &str) -> Result<Arc<Variant<D>>, RequestError> {
        let variants = self
            .shared
            .variants
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        variants
            .iter()
            .find(|variant| variant.name == name)
            .cloned()
            .ok_or_else(|| RequestError::UnknownModel {
                model: name.to_owned(),
                served: variants
                    .iter()
                    .map(|variant| variant.name.clone())
                    .collect(),
            })
    }

    fn tokens(&self, prompt: &Prompt) -> Result<Vec<u32>, RequestError> {
        let config = self.shared.model.config();
        let refused = |error: &dyn std::error::Error| {
            let mut reason = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                reason = format!("{reason}: {cause}");
                source = cause.source();
            }
            RequestError::Prompt { reason }
        };
        let encode = |text: &str| {
            // What cannot fit is not tokenized, which takes long.
            let most = self.shared.most_text;
            if text.len() > most {
                return Err(RequestError::TextTooLong {
                    bytes: text.len(),
                    most,
                    context: config.context,
                });
            }
            let mut tokens = self
                .shared
                .tokenizer
                .encode(text)
                .map_err(|e| refused(&e))?;
            // Texts begin with the beginning-of-sequence token, if the model knows one.
            if let Some(bos) = config.bos.filter(|bos| tokens.first() != Some(bos)) {
                tokens.insert(0, bos);
            }
            Ok(tokens)
        };
        match prompt {
            Prompt::Text(text) => encode(text),
            Prompt::Chat(messages) => {
                let text = self
                    .shared
                    .template
                    .render(messages)
                    .map_err(|e| refused(&e))?;
                encode(&text)
            }
            Prompt::Tokens(tokens) => {
                match tokens.iter().find(|&&token| token as usize >= config.vocab) {
                    Some(&token) => Err(RequestError::Token {
                        token,
                        vocab: config.vocab,
                    }),
                    None => Ok(tokens.clone()),
                }
            }
        }
    }

    fn terms(&self, request: &Request) -> Result<Terms, RequestError> {
        let config = self.shared.model.config();
        let prompt = self.tokens(&request.prompt)?;
        if prompt.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        let (tokens, context) = (prompt.len(), config.context);
        if tokens >= context {
            return Err(RequestError::PromptTooLong { tokens, context });
        }
        let room = context - tokens;
        let max_tokens = request.max_tokens.map_or(room, |wanted| wanted.min(room));
        let terms = Terms {
            prompt,
            sampling: SamplingTerms::new(&request.sampling.to_exact(), request.sampling.seed),
            max_tokens,
            stop: request.stop.clone(),
            eos: if request.ignore_eos {
                Vec::new()
            } else {
                config.eos.clone()
            },
            logprobs: request.logprobs,
        };
        let most = self.shared.limits.cache_bytes / self.shared.model.cache_bytes_per_position();
        if terms.positions() > most {
            return Err(RequestError::OutOfRange {
                field: "prompt and max_tokens",
                value: format!("{} positions", terms.positions()),
                expected: format!("at most {most}, the server's memory for keys and values"),
            });
        }
        Ok(terms)
    }
}

impl<D: Device> Engine for ExactEngine<D> {
    fn models(&self) -> Vec<ServedModel> {
        let model = &self.shared.model;
        let variants = self
            .shared
            .variants
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let describe = |variant: &Arc<Variant<D>>| ServedModel {
            name: variant.name.clone(),
            model: model.id(),
            adapter: variant.adapter.as_ref().map(|adapter| adapter.terms.hash),
            round: variant.round,
            context: model.config().context,
        };
        variants.iter().map(describe).collect()
    }

    fn load(&self) -> Load {
        let counters = &self.shared.counters;
        Load {
            running: counters.running.load(Ordering::Relaxed),
            waiting: counters.waiting.load(Ordering::Relaxed),
            slots: self.shared.limits.slots,
            prompt_tokens: counters.prompt_tokens.load(Ordering::Relaxed),
            generated_tokens: counters.generated_tokens.load(Ordering::Relaxed),
            finished: counters.finished.load(Ordering::Relaxed),
        }
    }

    fn submit(&self, request: Request) -> Result<Generation, RequestError> {
        request.check()?;
        let variant = self.variant(&request.model)?;
        let terms = self.terms(&request)?;
        // Room for every event that a request can cause: a slow reader never stops the worker.
        let (events, generation) = Generation::channel(terms.prompt.len(), terms.max_tokens + 2);
        let span = tracing::info_span!(
            "inference.request.answer",
            model = variant.name,
            prompt_tokens = terms.prompt.len(),
            max_tokens = terms.max_tokens,
        );
        let job = Job {
            variant,
            terms,
            ignore_eos: request.ignore_eos,
            nonce: Hash::from(request.nonce),
            events,
            span,
        };
        let waiting = &self.shared.counters.waiting;
        waiting.fetch_add(1, Ordering::Relaxed);
        if self.shared.stopping.load(Ordering::Acquire) {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(RequestError::Stopped);
        }
        self.commands
            .try_send(Command::Answer(Box::new(job)))
            .map_err(|error| {
                waiting.fetch_sub(1, Ordering::Relaxed);
                match error {
                    TrySendError::Full(_) => RequestError::Busy {
                        waiting: self.shared.limits.queue,
                    },
                    TrySendError::Disconnected(_) => RequestError::Stopped,
                }
            })?;
        Ok(generation)
    }
}

impl<D: Device> Clone for ExactEngine<D> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            commands: self.commands.clone(),
        }
    }
}

impl<D: Device> std::fmt::Debug for ExactEngine<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExactEngine")
            .field("models", &self.models())
            .finish_non_exhaustive()
    }
}
