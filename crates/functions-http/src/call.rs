//! Calls: who calls, what is called, and in which form the answer is wanted.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json,
    extract::{ConnectInfo, Path, Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use r3mes_functions::{
    registry::{Requirements, Strategy},
    webhook::Webhook,
    wire::messages::{CallHead, Caller, logged_call},
};
use serde::Deserialize;
use serde_json::Value;
use tracing::Instrument;

use super::{
    CALL_HEADER, Shared,
    answer::{self, Form},
    arguments,
    jobs::{self, Asked, Begun, digest},
    kept::KeptCall,
    problem::Problem,
    webhook,
};

pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that a result is one that an earlier call with the same key had.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Most characters of an idempotency key.
const MAX_KEY: usize = 255;

/// What a call asks for besides its arguments.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wishes {
    /// Only on a node that can do this.
    capability: Option<String>,
    /// Only on a node that has this: a JSON object such as `{"gpu_memory": "16GB"}`.
    requirements: Option<String>,
    /// How a node is chosen.
    strategy: Option<Strategy>,
    /// Milliseconds in which the call must end.
    deadline_ms: Option<u64>,
    /// The most that it may cost, in uremes.
    max_price: Option<u64>,
    /// How old a kept result may be, in milliseconds.
    max_age_ms: Option<u64>,
}

/// `POST /api/{node_id}.{function}`
pub(super) async fn by_node(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    Path(target): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let Some((node, function)) = target.rsplit_once('.') else {
        let words = format!(
            "{target:?} names no function: POST /api/NODE.FUNCTION, or /api/fn/FUNCTION for any node"
        );
        return Err(Problem::new(StatusCode::NOT_FOUND, words));
    };
    let mut head = CallHead::new(function);
    head.node = Some(node.to_owned());
    call(&shared, address, head, request).await
}

/// `POST /api/fn/{function}`
pub(super) async fn by_function(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    Path(function): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    call(&shared, address, CallHead::new(function), request).await
}

async fn call(
    shared: &Arc<Shared>,
    address: SocketAddr,
    mut head: CallHead,
    request: Request,
) -> Result<Response, Problem> {
    let Query(wishes) = Query::<Wishes>::try_from_uri(request.uri())
        .map_err(|refusal| Problem::invalid(refusal.body_text()))?;
    let headers = request.headers().clone();
    let who = caller(shared, &headers)?;
    shared.rate.admit(&who.user, address.ip())?;
    let id = new_id()?;
    head.capability = wishes.capability;
    head.strategy = wishes.strategy;
    head.deadline_ms = wishes.deadline_ms;
    head.max_price = wishes.max_price;
    head.max_age_ms = wishes.max_age_ms;
    if let Some(text) = wishes.requirements {
        let read: Result<Requirements, _> = serde_json::from_str(&text);
        head.requirements = read.map_err(|error| {
            let form = r#"a JSON object such as {"gpu_memory": "16GB"}"#;
            Problem::invalid(format!("requirements must be {form}: {error}"))
        })?;
    }
    head.caller = Some(Caller {
        call: id.clone(),
        ..who.clone()
    });
    let streams = shared.hub.with(|broker, _| {
        let info = broker.function(head.node.as_deref(), &head.function);
        info.is_some_and(|info| info.streams)
    });
    let form = Form::of(&headers, streams)?;
    let asynchronous = headers.get_all(PREFER).iter().any(is_respond_async);
    let key = idempotency_key(&headers)?;
    let webhook = webhook::of_request(&headers, token(&headers)?, &shared.webhooks)?;
    if webhook.is_some() && !asynchronous {
        return Err(Problem::invalid(
            "Callback-URL is for asynchronous calls: add the header Prefer: respond-async",
        ));
    }
    let arguments = arguments::read(request).await?;
    let span = tracing::debug_span!(
        "functions.call.answer",
        call = logged_call(&id),
        node = head.node,
        function = head.function,
    );
    let answering = async {
        if !asynchronous && key.is_none() {
            let reply = shared.client.call(&head, arguments).await?;
            let reply = reply.bounded(shared.limits.body_bytes);
            let mut response = answer::stream(reply, form).await?;
            response.headers_mut().insert(CALL_HEADER, value_of(&id));
            return Ok(response);
        }
        let (job, replayed) = begin(shared, &who, key, head, arguments, webhook).await?;
        let mut response = job.answer(form, asynchronous).await?;
        if replayed {
            let replayed = HeaderValue::from_static("true");
            response.headers_mut().insert(REPLAYED, replayed);
        }
        Ok(response)
    };
    answering.instrument(span).await
}

/// A call whose result is kept.
enum Job {
    /// By this gateway.
    Here(Arc<jobs::Job>),
    /// By all gateways of the network.
    Everywhere(Box<KeptCall>),
}

impl Job {
    fn everywhere(call: KeptCall) -> Self {
        Self::Everywhere(Box::new(call))
    }

    fn id(&self) -> &str {
        match self {
            Self::Here(job) => job.id(),
            Self::Everywhere(call) => call.id(),
        }
    }

    async fn view(&self) -> Result<Value, Problem> {
        match self {
            Self::Here(job) => Ok(job.view()),
            Self::Everywhere(call) => call.view().await,
        }
    }

    async fn ended(&self) -> Result<Arc<[Bytes]>, Problem> {
        match self {
            Self::Here(job) => Ok(job.ended().await?),
            Self::Everywhere(call) => call.ended().await,
        }
    }

    /// Its result in this form, once it has one; where it is asynchronous, what it is now.
    async fn answer(&self, form: Form, asynchronous: bool) -> Result<Response, Problem> {
        let mut response = match asynchronous {
            true => {
                let location = value_of(&format!("/api/calls/{}", self.id()));
                let body = Json(self.view().await?);
                (StatusCode::ACCEPTED, [(header::LOCATION, location)], body).into_response()
            }
            false => answer::whole(&self.ended().await?, form)?,
        };
        let id = value_of(self.id());
        response.headers_mut().insert(CALL_HEADER, id);
        Ok(response)
    }
}

/// Begins a call whose result is kept, and whether it is the one that had the same key before.
async fn begin(
    shared: &Arc<Shared>,
    who: &Caller,
    key: Option<String>,
    head: CallHead,
    arguments: Bytes,
    webhook: Option<Webhook>,
) -> Result<(Job, bool), Problem> {
    if let Some(kept) = &shared.kept {
        let begun = kept.begin(&shared.hub, key, head, arguments, webhook);
        let (call, known) = begun.await?;
        return Ok((Job::everywhere(call), known));
    }
    let calling = Arc::clone(shared);
    let asked = Asked {
        id: head.caller.clone().unwrap_or_default().call,
        user: who.user.clone(),
        key,
        same: digest(&head, &arguments, webhook.as_ref()),
        function: head.function.clone(),
        node: head.node.clone(),
        webhook,
    };
    let begun = shared.jobs.begin(
        asked,
        async move { calling.client.call(&head, arguments).await },
    )?;
    Ok(match begun {
        Begun::New(job) => (Job::Here(job), false),
        Begun::Known(job) => (Job::Here(job), true),
    })
}

/// `GET /api/calls/{id}`
pub(super) async fn poll(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let who = caller(&shared, &headers)?;
    let job = match &shared.kept {
        Some(kept) => kept.get(&who.user, &id).await?.map(Job::everywhere),
        None => shared.jobs.get(&id, &who.user).map(Job::Here),
    };
    let job = job.ok_or_else(|| unknown(&id))?;
    Ok(Json(job.view().await?).into_response())
}

/// `DELETE /api/calls/{id}`: nobody waits for it any more.
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let who = caller(&shared, &headers)?;
    let job = match &shared.kept {
        Some(kept) => kept.cancel(&who.user, &id).await?.map(Job::everywhere),
        None => shared.jobs.get(&id, &who.user).map(|job| {
            job.cancel();
            Job::Here(job)
        }),
    };
    let job = job.ok_or_else(|| unknown(&id))?;
    Ok(Json(job.view().await?).into_response())
}

/// `GET /api/webhook-secret`
pub(super) async fn webhook_secret(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller(&shared, &headers)?;
    let token = token(&headers)?.ok_or_else(|| {
        let words =
            "each token has a secret of its own: come with one (Authorization: Bearer TOKEN)";
        Problem::new(StatusCode::UNAUTHORIZED, words)
    })?;
    Ok(webhook::secret_of(token).into_response())
}

fn unknown(id: &str) -> Problem {
    let words = format!("there is no call {id:?} of yours, or its result is kept no longer");
    Problem::new(StatusCode::NOT_FOUND, words)
}

/// Whose a request is: `Authorization: Bearer TOKEN`, or nobody's in particular.
pub(super) fn caller(shared: &Shared, headers: &HeaderMap) -> Result<Caller, Problem> {
    let token = token(headers)?;
    let known = shared.hub.with(|broker, now| broker.identify(token, now));
    Ok(known?)
}

/// The token that a request came with.
fn token(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    match text.strip_prefix("Bearer ") {
        Some(token) => Ok(Some(token.trim())),
        None => Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "the Authorization header must be: Bearer TOKEN",
        )),
    }
}

fn is_respond_async(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or_default();
    let mut wishes = text.split([',', ';']);
    wishes.any(|wish| wish.trim().eq_ignore_ascii_case("respond-async"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY => Ok(Some(key.to_owned())),
        _ => Err(Problem::invalid(format!(
            "Idempotency-Key must be 1 to {MAX_KEY} printable characters"
        ))),
    }
}

/// 32 hexadecimal digits that nobody guesses: whoever knows them may ask for the call's result.
pub(super) fn new_id() -> Result<String, Problem> {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(hex::encode(bytes)),
        Err(error) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the operating system gives no random bytes: {error}"),
        )),
    }
}

/// Hexadecimal digits and slashes are valid in a header.
fn value_of(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
