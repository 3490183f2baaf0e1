use std::{collections::BTreeMap, convert::Infallible, pin::Pin, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures::{Stream, StreamExt, stream};
use r3mes_blobs::{BlobStore, StoreError};
use r3mes_http::metrics::Metrics;
use r3mes_inference::{Engine, ServedModel};
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
};
use tracing::Span;

use super::{
    choice::{Choice, ChoiceEvent},
    error::{self, ApiError},
    figures::{EngineFigures, Figures, Open},
    models::{self, Aliases},
    receipts::{NONCE_HEADER, RECEIPT_HEADER, Receipts},
    request::{Asked, Kind},
    shape::{self, Envelope, Gathered, TokenUsage},
};

/// Limits of an [`Api`]; the engine has its own beside these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiLimits {
    /// Requests being answered at once; more are told to come back.
    pub concurrent_requests: usize,
    /// Longest request body in bytes.
    pub body_bytes: usize,
}

impl Default for ApiLimits {
    /// 128 requests at once of 4 MiB.
    fn default() -> Self {
        Self {
            concurrent_requests: 128,
            body_bytes: 4 << 20,
        }
    }
}

/// The OpenAI API over an engine in this process.
#[derive(Clone)]
pub struct Api {
    engine: Arc<dyn Engine>,
    receipts: Arc<Receipts>,
    figures: Figures,
    places: Arc<Semaphore>,
    limits: ApiLimits,
    aliases: Aliases,
    since: Instant,
}

impl Api {
    /// An API over `engine` that keeps receipts in `store` and counts in `metrics`.
    ///
    /// # Errors
    /// When the receipts of an earlier run cannot be listed.
    pub fn new(
        engine: Arc<dyn Engine>,
        store: Arc<dyn BlobStore>,
        metrics: &Metrics,
        limits: ApiLimits,
    ) -> Result<Self, StoreError> {
        let load = EngineFigures(Arc::clone(&engine));
        metrics.register(|registry| registry.register_collector(Box::new(load)));
        Ok(Self {
            engine,
            receipts: Arc::new(Receipts::open(store)?),
            figures: Figures::new(metrics),
            places: Arc::new(Semaphore::new(limits.concurrent_requests)),
            limits,
            aliases: Aliases::default(),
            since: Instant::now(),
        })
    }

    /// Lets clients ask for models under other names: alias -> name.
    #[must_use]
    pub fn with_aliases(mut self, aliases: BTreeMap<String, String>) -> Self {
        self.aliases = Aliases(aliases);
        self
    }

    /// The routes. `/metrics` is [`Metrics::router`]'s.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/completions", post(complete))
            .route("/v1/chat/completions", post(chat))
            .route("/v1/models", get(list_models))
            .route("/v1/models/{model}", get(show_model))
            .route("/v1/receipts/{id}", get(show_receipt))
            .route("/v1/status", get(status))
            .route("/health", get(health))
            .fallback(error::no_such_path)
            .method_not_allowed_fallback(error::no_such_method)
            .layer(DefaultBodyLimit::max(self.limits.body_bytes))
            .with_state(self)
    }

    fn models(&self) -> Vec<Value> {
        let models = self.engine.models();
        models
            .iter()
            .map(|model| self.aliases.json(model))
            .collect()
    }

    fn model(&self, name: &str) -> Result<ServedModel, ApiError> {
        let models = self.engine.models();
        if let Some(model) = self.aliases.find(&models, name) {
            return Ok(model.clone());
        }
        let served: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
        if served.is_empty() {
            return Err(ApiError::unavailable("no model is being served yet"));
        }
        let served = served.join(", ");
        let message = format!("the model `{name}` is not served here; served are: {served}");
        Err(ApiError::unknown_model(message))
    }

    async fn answer(
        &self,
        kind: Kind,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
        open: Arc<Open>,
    ) -> Result<Response, ApiError> {
        let asked = Asked::parse(kind, &read_body(body, self.limits.body_bytes)?)?;
        let nonce = nonce(headers)?;
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(ApiError::busy("too many requests at once: try again later"));
        };
        // A long prompt is tokenized where others do not wait for it.
        let (api, span) = (self.clone(), Span::current());
        let submitted =
            task::spawn_blocking(move || span.in_scope(|| api.submit(asked, nonce, place, open)));
        let answer = submitted.await.map_err(|_| {
            let message = "the request could not be prepared: see the node's log";
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        })??;
        if answer.stream {
            answer.streamed().await
        } else {
            answer.gathered().await
        }
    }

    fn submit(
        &self,
        mut asked: Asked,
        nonce: [u8; 32],
        place: OwnedSemaphorePermit,
        open: Arc<Open>,
    ) -> Result<Answer, ApiError> {
        let model = self.model(&asked.model)?;
        if !asked.seeded {
            asked.sampling.seed = u64::from_le_bytes(random()?);
        }
        let prefix = match asked.kind {
            Kind::Text => "cmpl",
            Kind::Chat => "chatcmpl",
        };
        let id = format!("{prefix}-{}", hex::encode(random::<16>()?));
        let mut usage = TokenUsage::default();
        let mut choices = Vec::new();
        for (index, request) in asked.requests(&model.name, nonce).into_iter().enumerate() {
            // A refusal drops, and so cancels, what was accepted before it.
            let generation = self.engine.submit(request)?;
            if index % asked.n == 0 {
                usage.prompt += generation.prompt_tokens();
            }
            let receipt_id = match index {
                0 => id.clone(),
                _ => format!("{id}.{index}"),
            };
            choices.push(Choice {
                index,
                receipt_id,
                generation,
                receipts: Arc::clone(&self.receipts),
            });
        }
        Ok(Answer {
            envelope: Envelope {
                kind: asked.kind,
                id,
                created: shape::now(),
                model: asked.model,
                fingerprint: models::fingerprint(&model),
                logprobs: asked.logprobs.is_some(),
                include_usage: asked.include_usage,
            },
            stream: asked.stream,
            usage,
            choices,
            held: Held { place, open },
        })
    }
}

/// What a request holds until its answer is sent or its client has gone.
struct Held {
    #[expect(dead_code, reason = "held for its drop")]
    place: OwnedSemaphorePermit,
    open: Arc<Open>,
}

/// A request whose answers are being generated.
struct Answer {
    envelope: Envelope,
    stream: bool,
    usage: TokenUsage,
    choices: Vec<Choice>,
    held: Held,
}

impl Answer {
    fn receipt_header(&self) -> [(HeaderName, String); 1] {
        let urls = self.choices.iter();
        let urls: Vec<_> = urls
            .map(|choice| format!("/v1/receipts/{}", choice.receipt_id))
            .collect();
        [(HeaderName::from_static(RECEIPT_HEADER), urls.join(", "))]
    }

    async fn gathered(self) -> Result<Response, ApiError> {
        let headers = self.receipt_header();
        let Self {
            envelope,
            mut usage,
            choices,
            held,
            ..
        } = self;
        let mut answers: Vec<_> = choices.iter().map(|_| Gathered::default()).collect();
        let mut events = merge(choices);
        while let Some(event) = events.next().await {
            match event? {
                (index, ChoiceEvent::Piece(piece)) => answers[index].push(piece),
                (index, ChoiceEvent::Finished(finished)) => {
                    usage.completion += finished.completion_tokens;
                    answers[index].finished = Some(finished);
                }
            }
        }
        held.open.begin(StatusCode::OK);
        Ok((headers, Json(envelope.whole(&answers, usage))).into_response())
    }

    async fn streamed(self) -> Result<Response, ApiError> {
        let headers = self.receipt_header();
        let Self {
            envelope,
            usage,
            choices,
            held,
            ..
        } = self;
        let count = choices.len();
        let mut events = Box::pin(merge(choices).peekable());
        // While nothing is sent, a failure can still have its own status.
        if let Some(Err(_)) = events.as_mut().peek().await
            && let Some(Err(error)) = events.next().await
        {
            return Err(error);
        }
        held.open.begin(StatusCode::OK);
        let stream = Streaming {
            envelope,
            usage,
            offsets: vec![0; count],
            events,
            held,
        };
        let sse = Sse::new(stream.into_chunks()).keep_alive(KeepAlive::default());
        let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
        Ok((headers, unbuffered, sse).into_response())
    }
}

fn merge(
    choices: Vec<Choice>,
) -> impl Stream<Item = Result<(usize, ChoiceEvent), ApiError>> + Send + Unpin {
    stream::select_all(choices.into_iter().map(|choice| Box::pin(choice.events())))
}

/// An answer being streamed. Dropped with its connection, it stops the generation.
struct Streaming<S> {
    envelope: Envelope,
    usage: TokenUsage,
    /// Characters sent of each answer.
    offsets: Vec<usize>,
    #[expect(dead_code, reason = "held for its drop")]
    held: Held,
    events: Pin<Box<S>>,
}

impl<S> Streaming<S>
where
    S: Stream<Item = Result<(usize, ChoiceEvent), ApiError>> + Send + 'static,
{
    fn into_chunks(self) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send {
        let opening = (0..self.offsets.len()).filter_map(|index| self.envelope.opening(index));
        let opening: Vec<_> = opening.map(|chunk| chunk.to_string()).collect();
        let rest = stream::unfold(Some(self), |streaming| async move {
            let mut streaming = streaming?;
            let (chunks, goes_on) = streaming.next_chunks().await;
            Some((stream::iter(chunks), goes_on.then_some(streaming)))
        });
        stream::iter(opening)
            .chain(rest.flatten())
            .map(|data| Ok(sse::Event::default().data(data)))
    }

    /// The next chunks, and whether more follow.
    async fn next_chunks(&mut self) -> (Vec<String>, bool) {
        match self.events.next().await {
            Some(Ok((index, ChoiceEvent::Piece(piece)))) => {
                if piece.text.is_empty() && piece.tokens.is_empty() {
                    return (Vec::new(), true);
                }
                let chunk = self.envelope.more(index, &piece, self.offsets[index]);
                self.offsets[index] += piece.text.chars().count();
                (vec![chunk.to_string()], true)
            }
            Some(Ok((index, ChoiceEvent::Finished(finished)))) => {
                self.usage.completion += finished.completion_tokens;
                (vec![self.envelope.end(index, &finished).to_string()], true)
            }
            Some(Err(error)) => (vec![error.body().to_string()], false),
            None => {
                let usage = self.envelope.usage(self.usage);
                let mut chunks: Vec<_> = usage.iter().map(Value::to_string).collect();
                chunks.push("[DONE]".to_owned());
                (chunks, false)
            }
        }
    }
}

async fn complete(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let open = api.figures.open("completions");
    let answered = api.answer(Kind::Text, &headers, body, Arc::clone(&open));
    respond_counted(answered.await, &open)
}

async fn chat(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let open = api.figures.open("chat_completions");
    let answered = api.answer(Kind::Chat, &headers, body, Arc::clone(&open));
    respond_counted(answered.await, &open)
}

pub(super) fn respond_counted(answered: Result<Response, ApiError>, open: &Open) -> Response {
    answered.unwrap_or_else(|error| {
        open.begin(error.status);
        error.into_response()
    })
}

async fn list_models(State(api): State<Api>) -> Json<Value> {
    let models = api.models();
    Json(json!({ "object": "list", "data": models }))
}

async fn show_model(State(api): State<Api>, Path(name): Path<String>) -> Response {
    match api.model(&name) {
        Ok(model) => Json(api.aliases.json(&model)).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn show_receipt(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let receipts = Arc::clone(&api.receipts);
    let read = task::spawn_blocking(move || receipts.read(&id)).await;
    match read {
        Ok(Ok(Some((cid, bytes)))) => {
            let headers = [
                (header::CONTENT_TYPE, "application/x-protobuf".to_owned()),
                (header::ETAG, format!("\"{cid}\"")),
            ];
            (headers, bytes).into_response()
        }
        Ok(Ok(None)) => {
            let message = "no such receipt: it exists once the answer is complete, and the oldest \
                           are dropped";
            ApiError::new(StatusCode::NOT_FOUND, message).into_response()
        }
        _ => {
            let message = "the receipt could not be read: see this node's log";
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
        }
    }
}

async fn status(State(api): State<Api>) -> Json<Value> {
    let load = api.engine.load();
    let models = api.models();
    Json(json!({
        "service": "serving",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": api.since.elapsed().as_secs(),
        "models": models,
        "load": {
            "running_requests": load.running,
            "waiting_requests": load.waiting,
            "slots": load.slots,
            "prompt_tokens": load.prompt_tokens,
            "generated_tokens": load.generated_tokens,
            "finished_requests": load.finished,
        },
    }))
}

async fn health(State(api): State<Api>) -> Response {
    if api.engine.models().is_empty() {
        return ApiError::unavailable("no model is being served yet").into_response();
    }
    Json(json!({ "status": "ok" })).into_response()
}

/// The body, unless it is too long or breaks off.
pub(super) fn read_body(
    body: Result<Bytes, BytesRejection>,
    limit: usize,
) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| {
        let message = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                format!("the body is longer than {limit} bytes: shorten the prompt")
            }
            _ => "the body could not be read".to_owned(),
        };
        ApiError::new(rejection.status(), message)
    })
}

/// The client's nonce, or a fresh one.
fn nonce(headers: &HeaderMap) -> Result<[u8; 32], ApiError> {
    let Some(given) = headers.get(NONCE_HEADER) else {
        return random();
    };
    let mut nonce = [0; 32];
    let decoded = given
        .to_str()
        .ok()
        .map(|text| hex::decode_to_slice(text, &mut nonce));
    match decoded {
        Some(Ok(())) => Ok(nonce),
        _ => {
            let message = format!("the header {NONCE_HEADER} must be 64 hexadecimal digits");
            Err(ApiError::field(NONCE_HEADER, message))
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| {
        let message = "this machine gives no random numbers";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    Ok(bytes)
}
