//! The API of a broker: what it allows, what its handlers share, and which path leads to which.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::HeaderName,
    routing::{get, post},
};
use r3mes_functions::{
    client::Client, federation::KeptCalls, listen::Other, serve::Hub, tls::ServerTls,
};
use r3mes_http::{metrics::Metrics, requests, server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    Origins, WebhookHosts, call, dashboard, figures, jobs::Jobs, kept::Kept, limit::RateLimit,
    lists, mcp, openapi, problem, webhook::Sender,
};

/// Which call an answer belongs to.
pub(super) const CALL_HEADER: HeaderName = HeaderName::from_static("x-r3mes-call");

/// What the API allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a request's body, and of an item of a result. Frames have no such limit.
    pub body_bytes: usize,
    /// Calls that one token, or one address without one, may begin in a minute.
    pub calls_per_minute: NonZeroU32,
    /// Asynchronous calls that this process keeps, ended ones included. Where all gateways keep them,
    /// [`KeptCalls`] has its own limit.
    pub jobs: usize,
    /// Bytes of results that this process keeps for asynchronous calls, and of one result anywhere; each
    /// item of a result counts for 128 more.
    pub job_bytes: usize,
    /// How long this process keeps the result of an asynchronous call.
    pub job_life: Duration,
    /// Who may be told that an asynchronous call is over.
    pub webhooks: WebhookHosts,
    /// Pages of which origins may call from a browser.
    pub origins: Origins,
    /// What a connection over HTTP is held to. How many there may be, frames included, the hub says.
    pub connection: server::Limits,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            body_bytes: 64 << 20,
            calls_per_minute: NonZeroU32::new(60_000).expect("it is not zero"),
            jobs: 10_000,
            job_bytes: 256 << 20,
            job_life: Duration::from_secs(3600),
            webhooks: WebhookHosts::default(),
            origins: Origins::default(),
            connection: server::Limits::default(),
        }
    }
}

/// What every handler needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hub: Arc<Hub>,
    pub(super) client: Arc<Client>,
    /// Calls whose results this gateway keeps.
    pub(super) jobs: Arc<Jobs>,
    /// Calls whose results all gateways keep, in place of `jobs`.
    pub(super) kept: Option<Kept>,
    pub(super) rate: RateLimit,
    pub(super) webhooks: Arc<Sender>,
    pub(super) limits: HttpLimits,
}

/// The API of a broker. To be made inside a runtime.
#[derive(Clone, Debug)]
pub struct Functions {
    shared: Arc<Shared>,
    metrics: Metrics,
}

impl Functions {
    /// An API for `hub`. Asynchronous calls are kept in `calls`, and in this process's memory without.
    #[must_use]
    pub fn new(hub: Arc<Hub>, limits: HttpLimits, calls: Option<Arc<KeptCalls>>) -> Self {
        let metrics = Metrics::new();
        figures::register(&metrics, &hub);
        let client = Arc::new(Client::within(Arc::clone(&hub)));
        let webhooks = Arc::new(Sender::new(limits.webhooks.clone(), &metrics));
        let kept = calls.map(|calls| {
            let (client, webhooks) = (Arc::clone(&client), Arc::clone(&webhooks));
            Kept::new(calls, client, webhooks, limits.job_bytes)
        });
        let shared = Shared {
            kept,
            client,
            jobs: Arc::new(Jobs::new(&limits, Arc::clone(&webhooks))),
            webhooks,
            rate: RateLimit::new(limits.calls_per_minute),
            hub,
            limits,
        };
        Self {
            shared: Arc::new(shared),
            metrics,
        }
    }

    /// Everything that is answered over HTTP.
    pub fn router(&self) -> Router {
        let documentation = SwaggerUi::new("/docs").config(Config::from("/openapi.json"));
        let router = Router::new()
            .route("/api/fn/{function}", post(call::by_function))
            .route("/api/{target}", post(call::by_node))
            .route("/api/nodes", get(lists::nodes))
            .route("/api/functions", get(lists::functions))
            .route("/api/usage", get(lists::usage))
            .route("/api/calls", get(lists::calls))
            .route("/api/calls/{id}", get(call::poll).delete(call::cancel))
            .route("/api/webhook-secret", get(call::webhook_secret))
            .route("/api/metrics", get(figures::gateway))
            .route("/openapi.json", get(openapi::document))
            .route("/health", get(lists::health))
            .fallback(problem::no_such_path)
            .method_not_allowed_fallback(problem::no_such_method)
            .layer(DefaultBodyLimit::max(self.shared.limits.body_bytes))
            .with_state(Arc::clone(&self.shared))
            .merge(documentation)
            .merge(dashboard::router())
            .merge(mcp::router(Arc::clone(&self.shared)))
            .merge(self.metrics.router());
        self.shared.limits.origins.guard(router)
    }

    /// Serves HTTP and frames on `listener` until `shutdown`, over TLS if it is given.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Option<ServerTls>,
        shutdown: CancellationToken,
    ) {
        let hub = Arc::clone(&self.shared.hub);
        let forget = self.shared.jobs.forget_old(shutdown.clone());
        let running = async {
            if let Some(kept) = &self.shared.kept {
                kept.run(&hub, shutdown.clone()).await;
            }
        };
        let (router, stop) = (requests::named(self.router()), shutdown.clone());
        let limits = self.shared.limits.connection;
        let others = move |other: Other| {
            let router = match other.lacks_tls {
                true => Router::new().fallback(problem::only_tls),
                false => router.clone(),
            };
            server::serve_connection(other.stream, other.client, router, limits, stop.clone())
        };
        let serving = hub.serve_beside(listener, tls, others, shutdown.clone());
        tokio::join!(serving, forget, running);
    }
}
