//! The Model Context Protocol: functions as tools of language models, at `POST /mcp`.
//!
//! Requests are served one by one, without sessions: each says by its token for whom it is. A client
//! that gives a request up closes it, and that cancels the call.

mod tools;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    body::Bytes,
    extract::{ConnectInfo, Query, Request, State},
    http::{HeaderName, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use r3mes_functions::{
    Failure, Reason,
    broker::FunctionView,
    client::Event,
    wire::messages::{CallHead, Caller, Progress},
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
        ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProgressToken,
        ServerCapabilities, ServerConfig,
    },
    service::{Peer, RequestContext},
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
    },
};
use serde::Deserialize;
use serde_json::Value;

use self::tools::Target;
use super::{
    Shared, arguments, call,
    problem::Problem,
    values::{self, ValueError},
};

/// What requests repeat of themselves for those on their way, and pages in browsers must be let say.
pub(super) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(super) const METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub(super) const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// Where a call says in its `_meta` what it may cost, in uremes.
const MAX_PRICE: &str = "r3mes/max_price";
/// Most bytes of a request: models write them.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Most bytes of a result: models read it whole.
const MAX_RESULT_BYTES: usize = 4 << 20;

/// `POST /mcp`.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let tools = Tools {
        shared: Arc::clone(&shared),
    };
    let service = StreamableHttpService::new(
        move || Ok(tools.clone()),
        Arc::new(NeverSessionManager::default()),
        StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_max_request_body_bytes(MAX_REQUEST_BYTES.min(shared.limits.body_bytes))
            .disable_allowed_hosts(),
    );
    Router::new()
        .route_service("/mcp", service)
        .layer(middleware::from_fn_with_state(shared, identify))
}

/// Finds out for whom a request is and what it may cost, before anything of it is read.
async fn identify(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let agreed = match Query::<Agreed>::try_from_uri(request.uri()) {
        Ok(Query(agreed)) => agreed,
        Err(refusal) => return Problem::invalid(refusal.body_text()).into_response(),
    };
    match call::caller(&shared, request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(agreed);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// What stands behind `?` in the URL of `/mcp`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Agreed {
    /// The most that each call may cost, in uremes.
    max_price: Option<u64>,
}

impl Agreed {
    /// The most that a call may cost: what its host's settings say, or less as the call itself says.
    ///
    /// # Errors
    /// When the call says something else than a number of uremes.
    fn for_call(self, context: &RequestContext<RoleServer>) -> Result<Option<u64>, ErrorData> {
        let Some(value) = context.meta.get(MAX_PRICE) else {
            return Ok(self.max_price);
        };
        let said = value.as_u64().ok_or_else(|| {
            let words = format!("{MAX_PRICE} must be a whole number of uremes, not {value}");
            ErrorData::invalid_params(words, None)
        })?;
        Ok(Some(self.max_price.map_or(said, |most| most.min(said))))
    }
}

/// The functions behind a gateway, as tools.
#[derive(Clone)]
struct Tools {
    shared: Arc<Shared>,
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let mut program = Implementation::new("r3mes", env!("CARGO_PKG_VERSION"));
        program.title = Some("R3MES functions".into());
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(program)
            .with_instructions(
                "Each tool is a function that runs on another machine. Bytes in arguments and results \
                 are written as {\"$bytes\": base64}.",
            )
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let functions = self.functions(&caller(&context));
        let after = request.and_then(|request| request.cursor);
        let (page, next) = tools::page(&functions, after.as_deref());
        Ok(ListToolsResult {
            next_cursor: next,
            ..ListToolsResult::with_all_items(page)
        })
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let caller = caller(&context);
        if let Some(address) = address(&context)
            && let Err(failure) = self.shared.rate.admit(&caller.user, address)
        {
            return Ok(failed(&failure));
        }
        let target = Target::of(&request.name);
        let streams = target.streams(&self.functions(&caller));
        let arguments = arguments::named(request.arguments.unwrap_or_default())
            .map_err(|problem| ErrorData::invalid_params(problem.detail().to_owned(), None))?;
        let id = call::new_id()
            .map_err(|problem| ErrorData::internal_error(problem.detail().to_owned(), None))?;
        let head = CallHead {
            node: target.node.map(str::to_owned),
            caller: Some(Caller { call: id, ..caller }),
            max_price: known::<Agreed>(&context)
                .unwrap_or_default()
                .for_call(&context)?,
            ..CallHead::new(target.function)
        };
        let listener = context.meta.get_progress_token();
        let listener = listener.map(|token| (context.peer.clone(), token));
        let result = tokio::select! {
            result = self.call(&head, arguments, listener, streams) => result,
            () = context.ct.cancelled() => Err(Failure::new(Reason::Cancelled, "the caller cancelled")),
        };
        match result {
            Ok(value) => Ok(shown(value).into()),
            Err(failure) if failure.reason == Reason::NotFound => {
                Err(ErrorData::invalid_params(failure.message, None))
            }
            Err(failure) => Ok(failed(&failure)),
        }
    }
}

/// What an earlier layer found out about a request.
fn known<T: Clone + Send + Sync + 'static>(context: &RequestContext<RoleServer>) -> Option<T> {
    let parts = context.extensions.get::<Parts>()?;
    parts.extensions.get::<T>().cloned()
}

/// For whom a request is.
fn caller(context: &RequestContext<RoleServer>) -> Caller {
    known(context).unwrap_or_default()
}

/// From where a request came.
fn address(context: &RequestContext<RoleServer>) -> Option<IpAddr> {
    known(context).map(|ConnectInfo::<SocketAddr>(address)| address.ip())
}

impl Tools {
    fn functions(&self, caller: &Caller) -> Vec<FunctionView> {
        let (user, groups) = (&caller.user, &caller.groups);
        self.shared
            .hub
            .with(|broker, now| broker.function_views(user, groups, now))
    }

    /// Calls a function; its result, or all items that it yields as a list.
    async fn call(
        &self,
        head: &CallHead,
        arguments: Bytes,
        listener: Option<(Peer<RoleServer>, ProgressToken)>,
        streams: bool,
    ) -> Result<Value, Failure> {
        let reply = self.shared.client.call(head, arguments).await?;
        let mut reply = reply.bounded(MAX_RESULT_BYTES);
        let (mut items, mut bytes, mut reports) = (Vec::new(), 0, 0);
        while let Some(event) = reply.event().await? {
            match event {
                Event::Item(item) => {
                    bytes += item.len();
                    if bytes > MAX_RESULT_BYTES {
                        return Err(too_long());
                    }
                    items.push(values::unpack(&item).map_err(unshowable)?);
                }
                Event::Progress(progress) => {
                    if let Some((peer, token)) = &listener {
                        reports += 1;
                        let report = report(token.clone(), progress, reports);
                        // A client that is gone cancels the call by itself.
                        let _ = peer.notify_progress(report).await;
                    }
                }
                Event::Queued(_) | Event::Started(_) => {}
            }
        }
        match (streams, items.pop()) {
            (true, last) => {
                items.extend(last);
                Ok(Value::Array(items))
            }
            (false, Some(value)) => Ok(value),
            (false, None) => Err(Failure::new(
                Reason::Internal,
                "the function ended without a result",
            )),
        }
    }
}

fn unshowable(error: ValueError) -> Failure {
    Failure::new(Reason::Invalid, error.to_string())
}

fn too_long() -> Failure {
    let words = format!(
        "the result is longer than the {MAX_RESULT_BYTES} bytes that a tool may answer: \
         call the function over HTTP or from a program"
    );
    Failure::new(Reason::Invalid, words)
}

/// The protocol wants a number that grows: the share that is done, or how often was reported.
fn report(token: ProgressToken, progress: Progress, reports: u32) -> ProgressNotificationParam {
    let report = match progress.done {
        Some(done) => ProgressNotificationParam::new(token, done).with_total(1.0),
        None => ProgressNotificationParam::new(token, f64::from(reports)),
    };
    match progress.note.is_empty() {
        true => report,
        false => report.with_message(progress.note),
    }
}

/// A value as text for models and, if it is more than text, as it is for programs.
fn shown(value: Value) -> CallToolResult {
    let text = |text: String| CallToolResult::success(vec![ContentBlock::text(text)]);
    match value {
        Value::String(words) => text(words),
        other => {
            let mut result = text(other.to_string());
            result.structured_content = Some(other);
            result
        }
    }
}

/// What went wrong, in words that a model can act on.
fn failed(failure: &Failure) -> CallToolResponse {
    let words = match (&failure.exception, failure.reason) {
        (Some(exception), _) => format!("{exception}: {}", failure.message),
        (None, Reason::PaymentRequired) => format!(
            "{} (over MCP: max_price=UREMES behind ? in the server's URL, or {MAX_PRICE} in _meta of the \
             call)",
            failure.message
        ),
        (None, _) => failure.message.clone(),
    };
    CallToolResult::error(vec![ContentBlock::text(words)]).into()
}
