//! What can be seen of nodes and functions from outside.

use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::{Broker, calls::ANONYMOUS, queue::Waiting};
use crate::{
    Moment,
    registry::{Amount, Capabilities, FunctionInfo, Node, Offer, Quota, Spent, Sums},
};

/// A connected node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub id: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The gateway that has its connection; absent when it is the one that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Names of its functions.
    pub functions: Vec<String>,
    /// Calls it runs at a time.
    pub max_concurrent: u32,
    /// Calls it runs now.
    pub running: u32,
    /// Share of its processors in use, 0 to 1; what it does not know is absent.
    pub cpu: Option<f64>,
    /// Share of its memory in use, 0 to 1.
    pub memory: Option<f64>,
    /// Share of its GPUs in use, 0 to 1.
    pub gpu: Option<f64>,
    /// Round trip in seconds; absent before the first ping was answered.
    pub latency_s: Option<f64>,
    /// When it came, in microseconds since 1970.
    pub registered_at_us: u64,
    /// Bytes of arguments and results of its calls that have ended since then.
    #[serde(default)]
    pub moved_bytes: u64,
    /// What its calls have cost callers of the gateway that was asked since then, in uremes; absent when none
    /// of its functions has a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earned_uremes: Option<u64>,
}

/// A function on offer somewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionView {
    /// Where.
    pub node: String,
    /// What its node says of it.
    pub info: FunctionInfo,
    /// Calls of it that run now.
    pub running: u32,
    /// Calls of it that ended well since the node came.
    pub succeeded: u64,
    /// Calls of it that failed since the node came.
    pub failed: u64,
    /// Seconds for which calls of it have run.
    pub busy_s: f64,
    /// Whether calls are given to it: it has not failed by the node's fault over and over.
    pub healthy: bool,
    /// Seconds until a call that comes now begins there, as [`Node::expected_wait_us`] has it, after all that
    /// wait and that the node may be given; absent when nothing tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_wait_s: Option<f64>,
}

/// The broker at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerView {
    /// Nodes, those of other gateways included.
    pub nodes: usize,
    /// Functions on offer, each as often as it is offered.
    pub functions: usize,
    /// Connections of any kind.
    pub connections: usize,
    /// Calls that a node has or that wait.
    pub calls: usize,
    /// Those of them that wait for a node.
    pub waiting: usize,
}

/// What a user used of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    /// Whose token; `anonymous` for those without one.
    pub user: String,
    /// Which function.
    pub function: String,
    /// How much, since the broker started.
    #[serde(flatten)]
    pub spent: Spent,
}

impl Broker {
    /// Every node.
    pub fn node_views(&self) -> Vec<NodeView> {
        self.nodes.values().map(|(_, node)| view(node)).collect()
    }

    /// The functions that a caller may call; the user is empty for one without a token.
    pub fn function_views(&self, user: &str, groups: &[String], now: Moment) -> Vec<FunctionView> {
        let all = self.all_function_views(now).into_iter();
        let admitted = |view: &FunctionView| view.info.access.admits(!user.is_empty(), groups);
        all.filter(admitted).collect()
    }

    /// Every function, for whoever looks after the broker.
    pub fn all_function_views(&self, now: Moment) -> Vec<FunctionView> {
        let waiting = self.queue.by_function();
        let nodes = self.nodes.values().map(|(_, node)| node);
        let all = nodes.flat_map(|node| node.functions.values().map(move |offer| (node, offer)));
        all.map(|(node, offer)| function_view(node, offer, &waiting, now))
            .collect()
    }

    /// The nodes whose ids come after this one.
    pub(super) fn node_views_after(&self, after: Option<&str>) -> impl Iterator<Item = NodeView> {
        self.nodes_from(after.map_or(Bound::Unbounded, Bound::Excluded))
            .map(view)
    }

    /// The functions that a caller may call and that come after this node, or after this function of it.
    pub(super) fn function_views_after<'a>(
        &'a self,
        (after_node, after_function): (Option<&'a str>, Option<&'a str>),
        user: &'a str,
        groups: &'a [String],
        now: Moment,
    ) -> impl Iterator<Item = FunctionView> {
        let waiting = self.queue.by_function();
        let rest = after_node.zip(after_function).into_iter();
        let rest = rest.filter_map(|(id, function)| {
            let (_, node) = self.nodes.get(id)?;
            Some((node, Bound::Excluded(function)))
        });
        let others = self.nodes_from(after_node.map_or(Bound::Unbounded, Bound::Excluded));
        rest.chain(others.map(|node| (node, Bound::Unbounded)))
            .flat_map(|(node, from)| {
                let offers = node.functions.range::<str, _>((from, Bound::Unbounded));
                offers.map(move |(_, offer)| (node, offer))
            })
            .filter(|(_, offer)| offer.info.access.admits(!user.is_empty(), groups))
            .map(move |(node, offer)| function_view(node, offer, &waiting, now))
    }

    fn nodes_from(&self, from: Bound<&str>) -> impl Iterator<Item = &Node> {
        let nodes = self.nodes.range::<str, _>((from, Bound::Unbounded));
        nodes.map(|(_, (_, node))| node)
    }

    /// What one user has used of each function, or what all have.
    pub fn usage_views(&self, user: Option<&str>) -> Vec<UsageView> {
        let used = self.meter.of(user);
        used.map(|(user, function, spent)| UsageView {
            user: user.to_owned(),
            function: function.to_owned(),
            spent,
        })
        .collect()
    }

    /// The share of a function's quota that a user has used in its running period, 1 when nothing is
    /// left. The user is empty for one without a token.
    pub fn quota_used(&self, user: &str, function: &str, quota: Quota, now: Moment) -> f64 {
        let user = if user.is_empty() { ANONYMOUS } else { user };
        let (calls, micros) = self.usage.used(user, function, quota, now);
        let share = match quota.amount {
            Amount::Calls(most) => calls as f64 / most as f64,
            Amount::Seconds(most) => micros as f64 / 1e6 / most as f64,
        };
        share.min(1.0)
    }

    /// What the first node that offers a function says of it: on the node that is named, or on any.
    pub fn function(&self, node: Option<&str>, function: &str) -> Option<&FunctionInfo> {
        let nodes = self.nodes.values().map(|(_, node)| node);
        nodes
            .filter(|known| node.is_none_or(|id| known.id == id))
            .find_map(|known| known.functions.get(function))
            .map(|offer| &offer.info)
    }

    /// What all calls have used since the broker started.
    pub fn totals(&self) -> Spent {
        self.meter.total()
    }

    /// How the last minute went.
    pub fn recent(&self, now: Moment) -> Sums {
        self.recent.sums(now)
    }

    /// The broker at a glance.
    pub fn view(&self) -> BrokerView {
        let nodes = self.nodes.values();
        BrokerView {
            nodes: nodes.len(),
            functions: nodes.map(|(_, node)| node.functions.len()).sum(),
            connections: self.peers.len(),
            calls: self.calls.len(),
            waiting: self.queue.len(),
        }
    }
}

fn function_view(node: &Node, offer: &Offer, waiting: &Waiting<'_>, now: Moment) -> FunctionView {
    let before = waiting.for_node(&offer.info.name, &node.id);
    let expected_wait_us = node.expected_wait_us(offer, before, now);
    FunctionView {
        node: node.id.clone(),
        info: offer.info.clone(),
        running: offer.running,
        succeeded: offer.succeeded,
        failed: offer.failed,
        busy_s: offer.busy_us as f64 / 1e6,
        healthy: offer.breaker.admits(now),
        expected_wait_s: expected_wait_us.map(|micros| micros / 1e6),
    }
}

fn view(node: &Node) -> NodeView {
    let mut offers = node.functions.values();
    let has_price = offers.any(|offer| offer.info.price.is_some());
    NodeView {
        id: node.id.clone(),
        capabilities: node.capabilities.clone(),
        gateway: node.gateway.clone(),
        functions: node.functions.keys().cloned().collect(),
        max_concurrent: node.max_concurrent,
        running: node.running,
        cpu: node.load.cpu,
        memory: node.load.memory,
        gpu: node.load.gpu,
        latency_s: node.latency_us.map(|micros| micros / 1e6),
        registered_at_us: node.registered_at.0,
        moved_bytes: node.moved_bytes,
        earned_uremes: (has_price || node.earned_uremes > 0).then_some(node.earned_uremes),
    }
}
