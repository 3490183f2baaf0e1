//! Figures of the gateway and its nodes, for Prometheus and as JSON. What is not known is null, never 0.

mod prometheus;

use std::sync::Arc;

use axum::{Json, extract::State, http::HeaderMap};
use r3mes_functions::{
    billing::Unpaid,
    broker::{BrokerView, FunctionView, NodeView},
    registry::{Sums, WINDOW_S},
    serve::Hub,
};
use serde::Serialize;
use serde_json::{Value, json};

pub(super) use self::prometheus::register;
use super::{Shared, call::caller, problem::Problem};

/// Uremes in a REMES.
const UREMES: f64 = 1e6;

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
    /// Bytes of arguments and results of its ended calls, by second since it came.
    data_transfer_rate: Option<f64>,
    /// What its calls have cost callers of this gateway since it came, in REMES; null if nothing has a price.
    revenue_generated: Option<f64>,
    /// Nobody measures these: a node that comes again is a new one, and no caller is asked.
    connection_stability: Option<f64>,
    user_satisfaction: Option<f64>,
}

/// What calls have cost and nobody has been paid for yet, where the gateway bills.
#[derive(Debug, Serialize)]
struct Billing {
    /// All of it, in uremes.
    unpaid_uremes: u64,
    /// Escrows that the ledger refuses to have charged now.
    refused_escrows: u64,
    /// What they owe, in uremes.
    refused_uremes: u64,
    /// Of that, what is never asked for again, in uremes.
    given_up_uremes: u64,
}

impl From<Unpaid> for Billing {
    fn from(unpaid: Unpaid) -> Self {
        Self {
            unpaid_uremes: unpaid.uremes,
            refused_escrows: unpaid.refused_escrows,
            refused_uremes: unpaid.refused_uremes,
            given_up_uremes: unpaid.given_up_uremes,
        }
    }
}

/// `GET /api/metrics`
pub(super) async fn gateway(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    caller(&shared, &headers)?;
    let (gateway, nodes) = look(&shared.hub);
    let billing = shared
        .hub
        .with(|broker, _| broker.unpaid())
        .map(Billing::from);
    Ok(Json(
        json!({ "gateway": gateway, "nodes": nodes, "billing": billing }),
    ))
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
        data_transfer_rate: (uptime > 0.0).then(|| node.moved_bytes as f64 / uptime),
        revenue_generated: node.earned_uremes.map(|uremes| uremes as f64 / UREMES),
        connection_stability: None,
        user_satisfaction: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        prometheus::{GATEWAY, NODE},
        *,
    };

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
            moved_bytes: 300,
            earned_uremes: None,
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
        let unmeasured = ["node_id", "connection_stability", "user_satisfaction"];
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
    fn a_node_tells_what_it_moved_and_earned() {
        let rich = NodeView {
            earned_uremes: Some(2_500_000),
            ..node(0)
        };
        let seen = compute_node(&rich, &[], 3.0);
        assert_eq!(seen.data_transfer_rate, Some(100.0));
        assert_eq!(seen.revenue_generated, Some(2.5));
        assert_eq!(compute_node(&node(0), &[], 3.0).revenue_generated, None);
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
