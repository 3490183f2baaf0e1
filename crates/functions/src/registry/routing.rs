//! Which node takes a call.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::{Node, Offer, Requirements};
use crate::{
    Moment,
    failure::{Failure, Reason},
    wire::messages::CallHead,
};

/// How a node is chosen among those that could take a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The best by [`Router::score`].
    #[default]
    Score,
    /// One after the other.
    RoundRobin,
    /// The one with the smallest share of its places taken.
    LeastLoaded,
    /// Any.
    Random,
    /// The one where the call is expected to end soonest; also one without room, which it waits for.
    Soonest,
}

/// Which nodes could take a call: the part of its head that decides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// The function's name.
    pub function: String,
    /// Only on this node.
    pub node: Option<String>,
    /// Only where this can be done.
    pub capability: Option<String>,
    /// Only where this is there, besides what the function itself needs.
    pub requirements: Requirements,
    /// Whether the caller has a token.
    pub known: bool,
    /// Groups that the caller is in.
    pub groups: Vec<String>,
    /// How a node is chosen among them.
    pub strategy: Strategy,
    /// Only where it costs no more than this, in uremes.
    pub max_price: u64,
    /// Only among nodes that are connected here, because another gateway chose this one already.
    pub here: bool,
}

impl Target {
    /// What a call aims at.
    pub fn of(head: &CallHead, known: bool, groups: &[String]) -> Self {
        Self {
            function: head.function.clone(),
            node: head.node.clone(),
            capability: head.capability.clone(),
            requirements: head.requirements.and(&Requirements::default()),
            known,
            groups: groups.to_vec(),
            strategy: head.strategy.unwrap_or_default(),
            max_price: head.max_price.unwrap_or_default(),
            here: false,
        }
    }

    /// The node's offer, and how well it fits: what is left of the required resources and how well
    /// it can do what is asked, each 0 to 1.
    ///
    /// # Errors
    /// Why it does not fit.
    pub fn fit<'a>(&self, node: &'a Node) -> Result<(&'a Offer, f64, f64), Misfit> {
        if self.node.as_ref().is_some_and(|id| *id != node.id) {
            return Err(Misfit::Elsewhere);
        }
        if self.here && node.gateway.is_some() {
            return Err(Misfit::Elsewhere);
        }
        let offer = node
            .functions
            .get(&self.function)
            .ok_or(Misfit::NoFunction)?;
        let capability = match &self.capability {
            None => 1.0,
            Some(asked) => match node.index.matches(asked) {
                Some(matched) => matched,
                None if offer.info.has_label(asked) => 1.0,
                None => return Err(Misfit::NoCapability),
            },
        };
        if !offer.info.access.admits(self.known, &self.groups) {
            return Err(Misfit::Denied(offer.info.access.to_string()));
        }
        if let Some(price) = &offer.info.price
            && price.uremes > self.max_price
        {
            return Err(Misfit::Price(Reverse(price.uremes)));
        }
        let required = offer.info.requirements.and(&self.requirements);
        let resources = node
            .index
            .meets(&required, &node.load.free)
            .map_err(Misfit::Requirement)?;
        let resources = match required.is_empty() {
            false => resources,
            true => 1.0 - node.load.cpu.unwrap_or(1.0).clamp(0.0, 1.0),
        };
        Ok((offer, resources, capability))
    }

    /// Why no node of `nodes` fits, for the caller.
    pub fn missing<'a>(&self, nodes: impl Iterator<Item = &'a Node>) -> Failure {
        let worst = nodes.filter_map(|node| self.fit(node).err()).max();
        let function = &self.function;
        let place = match &self.node {
            Some(node) => format!("on node {node:?}"),
            None => "on any node".to_owned(),
        };
        let words = match worst {
            None | Some(Misfit::Elsewhere) => match &self.node {
                Some(node) => format!("node {node:?} is not connected"),
                None => "no node is connected".to_owned(),
            },
            Some(Misfit::NoFunction) => format!("there is no function {function:?} {place}"),
            Some(Misfit::NoCapability) => format!(
                "{function:?} is offered, but not {place} that can do {:?}",
                self.capability.as_deref().unwrap_or_default()
            ),
            Some(Misfit::Denied(ref access)) => {
                format!("{function:?} is for callers of level {access}: call it with such a token")
            }
            Some(Misfit::Price(Reverse(uremes))) => format!(
                "a call of {function:?} costs {uremes} uremes {place}: say with max_price that you pay so much"
            ),
            Some(Misfit::Requirement(ref name)) => {
                format!(
                    "{function:?} is offered, but not {place} with the {name} that it needs now"
                )
            }
        };
        let reason = match worst {
            Some(Misfit::Denied(_)) => Reason::Denied,
            Some(Misfit::Price(_)) => Reason::PaymentRequired,
            Some(Misfit::Requirement(_)) => Reason::NoHealthyNodes,
            _ => Reason::NotFound,
        };
        Failure::new(reason, words)
    }
}

/// Why a node does not fit; the later, the closer it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    /// Another node is named.
    Elsewhere,
    /// It does not offer the function.
    NoFunction,
    /// It cannot do what is asked.
    NoCapability,
    /// The caller is not of this access level.
    Denied(String),
    /// It costs so much, which is more than the caller agrees to; the less, the closer.
    Price(Reverse<u64>),
    /// It lacks this.
    Requirement(String),
}

/// What is ahead of a call that is to be placed.
#[derive(Clone, Copy)]
pub struct Ahead<'a> {
    /// Microseconds for which it has waited.
    pub waited_us: u64,
    /// How many calls a node is given before it.
    pub calls: &'a dyn Fn(&str) -> usize,
}

/// Chooses nodes.
#[derive(Debug)]
pub struct Router {
    turns: BTreeMap<String, u64>,
    random: u64,
}

impl Router {
    /// Scores closer to the best than this share of it are as good.
    const NEAR: f64 = 0.05;
    /// Most functions whose turn is remembered.
    const MAX_TURNS: usize = 65_536;

    /// A router whose choices among equals follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            turns: BTreeMap::new(),
            random: seed | 1,
        }
    }

    /// How well a node suits a call, 0 to 1: 0.3 of the resources left, 0.2 of 1 / (1 + seconds of
    /// its round trip), 0.3 of its free places, 0.2 of how well it can do what is asked.
    pub fn score(node: &Node, resources: f64, capability: f64) -> f64 {
        let latency_s = node.latency_us.unwrap_or(0.0) / 1e6;
        let load = f64::from(node.running) / f64::from(node.max_concurrent.max(1));
        0.3 * resources + 0.2 / (latency_s + 1.0) + 0.3 * (1.0 - load) + 0.2 * capability
    }

    /// The node that takes a call now: among those that fit, have room and are not kept from by their
    /// breaker. `None` when none does now but one could later, or would end it sooner.
    ///
    /// # Errors
    /// When no connected node fits.
    pub fn choose<'a>(
        &mut self,
        target: &Target,
        nodes: impl Iterator<Item = &'a Node> + Clone,
        ahead: &Ahead<'_>,
        now: Moment,
    ) -> Result<Option<String>, Failure> {
        let fitting = nodes.clone().filter_map(|node| {
            let (offer, resources, capability) = target.fit(node).ok()?;
            Some((node, offer, Self::score(node, resources, capability)))
        });
        let mut fits = false;
        let ready: Vec<(&Node, f64)> = fitting
            .inspect(|_| fits = true)
            .filter(|(node, offer, _)| node.has_room(offer) && offer.breaker.admits(now))
            .map(|(node, _, score)| (node, score))
            .collect();
        if !fits {
            return Err(target.missing(nodes));
        }
        if ready.is_empty() {
            return Ok(None);
        }
        let chosen = match target.strategy {
            Strategy::Score => self.of_the_best(&ready),
            Strategy::Random => self.below(ready.len()),
            Strategy::RoundRobin => self.turn(&target.function, ready.len()),
            Strategy::LeastLoaded => {
                let load = |node: &Node| f64::from(node.running) / f64::from(node.max_concurrent);
                let order = |a: &usize, b: &usize| load(ready[*a].0).total_cmp(&load(ready[*b].0));
                (0..ready.len()).min_by(order).unwrap_or(0)
            }
            Strategy::Soonest => match self.soonest(target, nodes, &ready, ahead, now) {
                Some(chosen) => chosen,
                None => return Ok(None),
            },
        };
        Ok(Some(ready[chosen].0.id.clone()))
    }

    /// Of two drawn among those near the best score, the one with fewer calls, so that equals share.
    fn of_the_best(&mut self, ready: &[(&Node, f64)]) -> usize {
        let best = ready.iter().map(|(_, score)| *score).fold(0.0, f64::max);
        let near: Vec<usize> = (0..ready.len())
            .filter(|i| ready[*i].1 >= best * (1.0 - Self::NEAR))
            .collect();
        let (a, b) = (near[self.below(near.len())], near[self.below(near.len())]);
        if ready[a].0.running <= ready[b].0.running {
            a
        } else {
            b
        }
    }

    /// Of those near the one where the call ends soonest, by the mean of calls there, one of the best. None
    /// if a node without room would end it sooner still, counting what the call has waited already: so
    /// it waits no longer than it would have run at once.
    fn soonest<'a>(
        &mut self,
        target: &Target,
        nodes: impl Iterator<Item = &'a Node>,
        ready: &[(&Node, f64)],
        ahead: &Ahead<'_>,
        now: Moment,
    ) -> Option<usize> {
        let ends = ready.iter().map(|(node, _)| {
            let offer = node.functions.get(&target.function);
            // A node where none has ended is tried.
            offer.and_then(Offer::mean_us).unwrap_or(0.0)
        });
        let ends: Vec<f64> = ends.collect();
        let best = ends.iter().copied().fold(f64::INFINITY, f64::min);
        let mut later = nodes.filter_map(|node| {
            let (offer, ..) = target.fit(node).ok()?;
            if node.has_room(offer) || !offer.breaker.admits(now) {
                return None;
            }
            let wait = node.expected_wait_us(offer, (ahead.calls)(&node.id), now)?;
            Some(ahead.waited_us as f64 + wait + offer.mean_us()?)
        });
        if later.any(|end| end < best) {
            return None;
        }
        let near: Vec<usize> = (0..ready.len())
            .filter(|at| ends[*at] <= best * (1.0 + Self::NEAR))
            .collect();
        let of_them: Vec<(&Node, f64)> = near.iter().map(|at| ready[*at]).collect();
        Some(near[self.of_the_best(&of_them)])
    }

    fn turn(&mut self, function: &str, of: usize) -> usize {
        if self.turns.len() >= Self::MAX_TURNS && !self.turns.contains_key(function) {
            self.turns.clear();
        }
        let turn = self.turns.entry(function.to_owned()).or_default();
        *turn += 1;
        ((*turn - 1) % of as u64) as usize
    }

    /// A number below `n` (xorshift64*): only evenness among equals hangs on it.
    fn below(&mut self, n: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let word = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((word * n as u64) >> 32) as usize
    }
}
