//! Figures of the gateway and its nodes, for Prometheus and as JSON. What is not known is null, never 0.

use std::sync::Arc;

use axum::{Json, extract::State, http::HeaderMap};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};
use r3mes_functions::{
    broker::{BrokerView, FunctionView, NodeView},
    registry::{Sums, WINDOW_S},
    serve::Hub,
};
use r3mes_http::metrics::Metrics;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Shared, call::caller, problem::Problem};

/// The gateway as a whole.
#[derive(Debug, Serialize)]
struct Gateway {
    /// Nodes that are connected, those of other gateways included.
    connected_nodes: usize,
    /// Functions on offer, each as often as it is offered.
    active_functions: usize,
    /// Calls that ended in the last minute, by second.
    requests_per_second: f64,
    /// Jain's index of the nodes' shares of places in use: 1 when all are used alike, 1/n when one does
    /// everything; null while no call runs.
    node_utilization_balance: Option<f64>,
    /// Seconds from when a call came until a node had it: the mean of the last minute.
    request_routing_latency: Option<f64>,
    /// Seconds since this process began to serve.
    uptime: f64,
    /// Share of the last minute's calls that failed.
    error_rate: Option<f64>,
    /// Seconds from when a call came until it ended: the mean of the last minute.
    avg_response_time: Option<f64>,
}

/// A node, as its gateway sees it.
#[derive(Debug, Serialize)]
struct ComputeNode {
    node_id: String,
    /// As the node says, shares of one.
    cpu_usage: Option<f64>,
    memory_usage: Option<f64>,
    gpu_usage: Option<f64>,
    /// Calls that ended since it came.
    functions_executed: u64,
    /// Seconds, the mean of them.
    avg_execution_time: Option<f64>,
    /// Share of them that ended well.
    success_rate: Option<f64>,
    /// Seconds since it came.
    uptime: f64,
    /// Nobody measures these yet.
    connection_stability: Option<f64>,
    data_transfer_rate: Option<f64>,
    revenue_generated: Option<f64>,
    user_satisfaction: Option<f64>,
}

/// `GET /api/metrics`
pub(super) async fn gateway(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    caller(&shared, &headers)?;
    let (gateway, nodes) = look(&shared.hub);
    Ok(Json(json!({ "gateway": gateway, "nodes": nodes })))
}

/// How a gateway and its nodes do now.
fn look(hub: &Hub) -> (Gateway, Vec<ComputeNode>) {
    let (view, sums, nodes, functions, now) = hub.with(|broker, now| {
        (
            broker.view(),
            broker.recent(now),
            broker.node_views(),
            broker.all_function_views(now),
            now,
        )
    });
    let since = |us: u64| now.0.saturating_sub(us) as f64 / 1e6;
    let uptime = since(hub.began_us());
    let seen = nodes
        .iter()
        .map(|node| compute_node(node, &functions, since(node.registered_at_us)))
        .collect();
    (summary(view, sums, &nodes, uptime), seen)
}

fn summary(view: BrokerView, sums: Sums, nodes: &[NodeView], uptime: f64) -> Gateway {
    let mean = |us: u64, of: u64| (of > 0).then(|| us as f64 / 1e6 / of as f64);
    Gateway {
        connected_nodes: view.nodes,
        active_functions: view.functions,
        requests_per_second: sums.calls as f64 / uptime.clamp(1.0, WINDOW_S as f64),
        node_utilization_balance: balance(nodes),
        request_routing_latency: mean(sums.routing_us, sums.given),
        uptime,
        error_rate: (sums.calls > 0).then(|| sums.failed as f64 / sums.calls as f64),
        avg_response_time: mean(sums.response_us, sums.calls),
    }
}

fn balance(nodes: &[NodeView]) -> Option<f64> {
    let used = |node: &NodeView| f64::from(node.running) / f64::from(node.max_concurrent.max(1));
    let total: f64 = nodes.iter().map(used).sum();
    let squares: f64 = nodes.iter().map(|node| used(node).powi(2)).sum();
    (squares > 0.0).then(|| total.powi(2) / (nodes.len() as f64 * squares))
}

fn compute_node(node: &NodeView, functions: &[FunctionView], uptime: f64) -> ComputeNode {
    let mine = functions.iter().filter(|view| view.node == node.id);
    let (mut ended, mut well, mut busy_s) = (0, 0, 0.0);
    for view in mine {
        ended += view.succeeded + view.failed;
        well += view.succeeded;
        busy_s += view.busy_s;
    }
    let by_call = |sum: f64| (ended > 0).then(|| sum / ended as f64);
    ComputeNode {
        node_id: node.id.clone(),
        cpu_usage: node.cpu,
        memory_usage: node.memory,
        gpu_usage: node.gpu,
        functions_executed: ended,
        avg_execution_time: by_call(busy_s),
        success_rate: by_call(well as f64),
        uptime,
        connection_stability: None,
        data_transfer_rate: None,
        revenue_generated: None,
        user_satisfaction: None,
    }
}

/// Registers what Prometheus sees of a broker.
pub(super) fn register(metrics: &Metrics, hub: &Arc<Hub>) {
    let seen = Seen(Arc::clone(hub));
    metrics.register(|registry| registry.register_collector(Box::new(seen)));
}

/// A broker that is looked at whenever somebody asks.
struct Seen(Arc<Hub>);

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seen")
    }
}

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (view, totals, cache) = self.0.with(|broker, _| {
            let cache = (broker.cache_hits(), broker.cache_bytes() as u64);
            (broker.view(), broker.totals(), cache)
        });
        let gauges = [
            (
                "functions_nodes",
                "Nodes that are connected",
                view.nodes as u64,
            ),
            (
                "functions_offered",
                "Functions on offer",
                view.functions as u64,
            ),
            (
                "functions_connections",
                "Connections",
                view.connections as u64,
            ),
            (
                "functions_calls_open",
                "Calls that run or wait",
                view.calls as u64,
            ),
            (
                "functions_calls_waiting",
                "Calls that wait",
                view.waiting as u64,
            ),
            (
                "functions_calls_ended",
                "Calls that nodes ended",
                totals.calls,
            ),
            ("functions_calls_failed", "Calls that failed", totals.failed),
            (
                "functions_busy_microseconds",
                "Time for which calls ran",
                totals.busy_us,
            ),
            (
                "functions_argument_bytes",
                "Bytes of arguments",
                totals.argument_bytes,
            ),
            (
                "functions_result_bytes",
                "Bytes of results",
                totals.result_bytes,
            ),
            (
                "functions_cache_hits",
                "Calls that were answered with a kept result",
                cache.0,
            ),
            (
                "functions_cache_bytes",
                "Memory that kept results take",
                cache.1,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let (gateway, nodes) = look(&self.0);
        encode_known(&mut encoder, "gateway", &GATEWAY, &[(None, json!(gateway))])?;
        let nodes = nodes.into_iter().map(|node| {
            let seen = json!(node);
            (Some(node.node_id), seen)
        });
        encode_known(&mut encoder, "node", &NODE, &nodes.collect::<Vec<_>>())
    }
}

/// A figure as Prometheus sees it: its name in JSON, what it is, and its unit.
type Figure = (&'static str, &'static str, Option<Unit>);

const GATEWAY: [Figure; 8] = [
    ("connected_nodes", "Nodes that are connected", None),
    ("active_functions", "Functions on offer", None),
    (
        "requests_per_second",
        "Calls that ended in the last minute, by second",
        None,
    ),
    (
        "node_utilization_balance",
        "Jain's index of the nodes' busy shares, while calls run",
        None,
    ),
    (
        "request_routing_latency",
        "Time until a node had a call, mean of the last minute",
        Some(Unit::Seconds),
    ),
    (
        "uptime",
        "Time since the gateway began to serve",
        Some(Unit::Seconds),
    ),
    (
        "error_rate",
        "Share of the last minute's calls that failed",
        None,
    ),
    (
        "avg_response_time",
        "Time until a call ended, mean of the last minute",
        Some(Unit::Seconds),
    ),
];

/// Those of a node that somebody measures.
const NODE: [Figure; 7] = [
    (
        "cpu_usage",
        "Share of the processors in use, as the node says",
        None,
    ),
    (
        "memory_usage",
        "Share of the memory in use, as the node says",
        None,
    ),
    (
        "gpu_usage",
        "Share of the GPUs in use, as the node says",
        None,
    ),
    (
        "functions_executed",
        "Calls that ended since the node came",
        None,
    ),
    (
        "avg_execution_time",
        "Time for which calls ran, mean since the node came",
        Some(Unit::Seconds),
    ),
    (
        "success_rate",
        "Share of the ended calls that ended well",
        None,
    ),
    ("uptime", "Time since the node came", Some(Unit::Seconds)),
];

/// The figures of some of one kind that are known, those of one name together, with the id of each node.
fn encode_known(
    encoder: &mut DescriptorEncoder<'_>,
    kind: &str,
    figures: &[Figure],
    several: &[(Option<String>, Value)],
) -> Result<(), std::fmt::Error> {
    for (field, help, unit) in figures {
        let mut known = several
            .iter()
            .filter_map(|(id, of)| Some((id, of[field].as_f64()?)))
            .peekable();
        if known.peek().is_none() {
            continue;
        }
        let name = format!("functions_{kind}_{field}");
        let mut metric =
            encoder.encode_descriptor(&name, help, unit.as_ref(), MetricType::Gauge)?;
        for (id, value) in known {
            match id {
                Some(id) => metric
                    .encode_family(&[("node_id", id.as_str())])?
                    .encode_gauge(&value)?,
                None => metric.encode_gauge(&value)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn node(running: u32) -> NodeView {
        NodeView {
            id: "a".into(),
            capabilities: Default::default(),
            gateway: None,
            functions: Vec::new(),
            max_concurrent: 4,
            running,
            cpu: None,
            memory: None,
            gpu: None,
            latency_s: None,
            registered_at_us: 0,
        }
    }

    #[test]
    fn balance_is_one_when_all_are_used_alike() {
        assert_eq!(balance(&[node(2), node(2)]), Some(1.0));
        assert_eq!(balance(&[node(4), node(0)]), Some(0.5));
        assert_eq!(balance(&[node(0)]), None);
    }

    #[test]
    fn every_figure_that_somebody_measures_is_told_to_prometheus() {
        let view = BrokerView {
            nodes: 1,
            functions: 0,
            connections: 1,
            calls: 0,
            waiting: 0,
        };
        let gateway = json!(summary(view, Sums::default(), &[node(0)], 5.0));
        let seen = json!(compute_node(&node(0), &[], 3.0));
        let unmeasured = [
            "node_id",
            "connection_stability",
            "data_transfer_rate",
            "revenue_generated",
            "user_satisfaction",
        ];
        for (json, figures) in [(gateway, &GATEWAY[..]), (seen, &NODE)] {
            let fields = json.as_object().unwrap().keys();
            let fields = fields
                .map(String::as_str)
                .filter(|field| !unmeasured.contains(field));
            let told = figures.iter().map(|(field, ..)| *field);
            assert_eq!(fields.collect::<BTreeSet<_>>(), told.collect());
        }
    }

    #[test]
    fn what_nobody_knows_is_null() {
        let view = BrokerView {
            nodes: 1,
            functions: 0,
            connections: 1,
            calls: 0,
            waiting: 0,
        };
        let summary = json!(summary(view, Sums::default(), &[node(0)], 5.0));
        assert_eq!(summary["error_rate"], Value::Null);
        assert_eq!(summary["avg_response_time"], Value::Null);
        let seen = json!(compute_node(&node(0), &[], 3.0));
        assert_eq!(
            (&seen["cpu_usage"], &seen["success_rate"]),
            (&Value::Null, &Value::Null)
        );
    }
}
