//! The figures as Prometheus sees them.

use std::sync::Arc;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};
use r3mes_functions::{billing::Unpaid, broker::BrokerView, registry::Spent, serve::Hub};
use r3mes_http::metrics::Metrics;
use serde_json::{Value, json};

use super::look;

/// Registers what Prometheus sees of a broker.
pub(in super::super) fn register(metrics: &Metrics, hub: &Arc<Hub>) {
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
        for (name, help, value) in counts(view, totals, cache) {
            encode_count(&mut encoder, name, help, value)?;
        }
        if let Some(unpaid) = self.0.with(|broker, _| broker.unpaid()) {
            encode_unpaid(&mut encoder, unpaid)?;
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

/// What is counted: names, what they are, and how many.
fn counts(
    view: BrokerView,
    totals: Spent,
    (cache_hits, cache_bytes): (u64, u64),
) -> [(&'static str, &'static str, u64); 12] {
    [
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
            cache_hits,
        ),
        (
            "functions_cache_bytes",
            "Memory that kept results take",
            cache_bytes,
        ),
    ]
}

fn encode_count(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    gauge.encode(metric)
}

/// What is still to be paid, and what the ledger refuses to pay.
fn encode_unpaid(
    encoder: &mut DescriptorEncoder<'_>,
    unpaid: Unpaid,
) -> Result<(), std::fmt::Error> {
    let gauges = [
        (
            "functions_billing_unpaid_uremes",
            "What calls have cost and was not paid yet",
            unpaid.uremes,
        ),
        (
            "functions_billing_refused_escrows",
            "Escrows that the ledger refuses to have charged",
            unpaid.refused_escrows,
        ),
        (
            "functions_billing_refused_uremes",
            "What those escrows owe",
            unpaid.refused_uremes,
        ),
        (
            "functions_billing_given_up_uremes",
            "What of that is never asked for again",
            unpaid.given_up_uremes,
        ),
    ];
    for (name, help, value) in gauges {
        encode_count(encoder, name, help, value)?;
    }
    Ok(())
}

/// A figure as Prometheus sees it: its name in JSON, what it is, and its unit.
pub(super) type Figure = (&'static str, &'static str, Option<Unit>);

pub(super) const GATEWAY: [Figure; 8] = [
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
pub(super) const NODE: [Figure; 9] = [
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
    (
        "data_transfer_rate",
        "Bytes of arguments and results, by second since the node came",
        None,
    ),
    (
        "revenue_generated",
        "What the node's calls have cost callers here, in REMES",
        None,
    ),
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
