//! What there is: nodes, functions, what was used, asynchronous calls.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::{Json, extract::State};
use r3mes_functions::broker::FunctionView;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Shared, call::caller, problem::Problem, values};

/// A node, as `GET /api/nodes` shows it.
#[derive(Serialize)]
struct Node {
    node_id: String,
    capabilities: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    functions: Vec<String>,
    max_concurrent: u32,
    running: u32,
    cpu_usage: Option<f64>,
    memory_usage: Option<f64>,
    gpu_usage: Option<f64>,
    latency_s: Option<f64>,
    registered_at_us: u64,
}

pub(super) async fn nodes(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    caller(&shared, &headers)?;
    let views = shared.hub.with(|broker, _| broker.node_views());
    let nodes = views.into_iter().map(|view| Node {
        node_id: view.id,
        capabilities: values::show(view.capabilities.0).unwrap_or(Value::Null),
        gateway: view.gateway,
        functions: view.functions,
        max_concurrent: view.max_concurrent,
        running: view.running,
        cpu_usage: view.cpu,
        memory_usage: view.memory,
        gpu_usage: view.gpu,
        latency_s: view.latency_s,
        registered_at_us: view.registered_at_us,
    });
    Ok(Json(json!({ "nodes": nodes.collect::<Vec<_>>() })))
}

/// The functions that the caller may call.
pub(super) async fn functions(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = caller(&shared, &headers)?;
    let user = &caller.user;
    let views = shared.hub.with(|broker, now| {
        let views = broker.function_views(user, &caller.groups, now);
        let used = |view: FunctionView| {
            let quota = view.info.quota;
            let used = quota.map(|quota| broker.quota_used(user, &view.info.name, quota, now));
            (view, used)
        };
        views.into_iter().map(used).collect::<Vec<_>>()
    });
    let functions = views.into_iter().map(|(view, quota_used)| {
        let info = view.info;
        json!({
            "node_id": view.node,
            "function_name": info.name,
            "path": format!("/api/{}.{}", view.node, info.name),
            "description": info.description,
            "parameters": values::show(info.parameters).unwrap_or(Value::Null),
            "returns": values::show(info.returns).unwrap_or(Value::Null),
            "streams": info.streams,
            "access_level": info.access.to_string(),
            "quota_per_user": info.quota.map(|quota| quota.to_string()),
            "quota_used": quota_used,
            "max_concurrent": info.max_concurrent,
            "timeout_s": info.timeout_ms.map(|ms| ms as f64 / 1e3),
            "requirements": info.requirements,
            "idempotent": info.idempotent,
            "cacheable": info.cacheable,
            "metadata": info.labels,
            "health_status": if view.healthy { "healthy" } else { "failing" },
            "running": view.running,
            "expected_wait_s": view.expected_wait_s,
            "succeeded": view.succeeded,
            "failed": view.failed,
            "busy_s": view.busy_s,
        })
    });
    Ok(Json(json!({ "functions": functions.collect::<Vec<_>>() })))
}

/// What the caller has used since the gateway started.
pub(super) async fn usage(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = caller(&shared, &headers)?;
    let user = match caller.user.as_str() {
        "" => "anonymous",
        user => user,
    };
    let used = shared.hub.with(|broker, _| broker.usage_views(Some(user)));
    Ok(Json(json!({ "usage": used })))
}

/// The caller's asynchronous calls. Without a token there is no telling whose they are.
pub(super) async fn calls(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = caller(&shared, &headers)?;
    let calls = match &shared.kept {
        Some(kept) => kept.of(&caller.user).await?,
        None => shared.jobs.of(&caller.user),
    };
    Ok(Json(json!({ "calls": calls })))
}

pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let view = shared.hub.with(|broker, _| broker.view());
    Json(json!({ "status": "ok", "broker": view }))
}
