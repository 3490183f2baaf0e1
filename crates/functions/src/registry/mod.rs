//! Who offers what: connected nodes, their functions, and what is known of both.

mod breaker;
mod capability;
mod function;
mod meter;
mod quota;
mod recent;
mod routing;

use std::collections::BTreeMap;

pub use self::{
    breaker::Breaker,
    capability::{Capabilities, Index, Requirement, Requirements, normalized, quantity},
    function::{Access, FunctionInfo, MAX_NAME, MAX_NODE_ID, is_function_name, is_node_id},
    meter::{Meter, Spent},
    quota::{Amount, Period, Quota, Usage},
    recent::{Recent, Sums, WINDOW_S},
    routing::{Ahead, Router, Strategy, Target},
};
use crate::{Moment, wire::messages::Load};

/// Most functions that one node may offer.
pub const MAX_FUNCTIONS: usize = 4096;

/// A connected node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub id: String,
    /// What it can do, as its owner wrote it.
    pub capabilities: Capabilities,
    /// The same, as the router looks things up.
    pub index: Index,
    /// Calls it runs at a time.
    pub max_concurrent: u32,
    /// Calls it runs now.
    pub running: u32,
    /// Resources it has at all, in base units.
    pub resources: BTreeMap<String, f64>,
    /// The gateway that has its connection; `None` when it is this one.
    pub gateway: Option<String>,
    /// What it said of its load last.
    pub load: Load,
    /// Round trip of the newest pings in microseconds, each weighed a quarter; `None` before the first.
    pub latency_us: Option<f64>,
    /// Bytes of arguments and results of its calls that have ended.
    pub moved_bytes: u64,
    /// What its calls have cost whoever called here, in uremes.
    pub earned_uremes: u64,
    /// When it came.
    pub registered_at: Moment,
    /// The number of its list of functions, which no other list has at its broker; 0 before the first.
    pub registration: u64,
    /// What it offers, by name.
    pub functions: BTreeMap<String, Offer>,
}

/// A function as one node offers it.
#[derive(Debug)]
pub struct Offer {
    /// What the node says of it.
    pub info: FunctionInfo,
    /// Calls of it that run now.
    pub running: u32,
    /// Calls of it that ended well.
    pub succeeded: u64,
    /// Calls of it that failed, whoever was to blame.
    pub failed: u64,
    /// Microseconds for which calls of it have run.
    pub busy_us: u64,
    /// Keeps calls from a function that fails by the node's fault.
    pub breaker: Breaker,
}

impl Offer {
    /// A function that was never called.
    pub fn new(info: FunctionInfo) -> Self {
        Self {
            info,
            running: 0,
            succeeded: 0,
            failed: 0,
            busy_us: 0,
            breaker: Breaker::default(),
        }
    }

    /// Microseconds that a call of it has taken on average; `None` before one has ended.
    pub fn mean_us(&self) -> Option<f64> {
        let ended = self.succeeded + self.failed;
        (ended > 0).then(|| self.busy_us as f64 / ended as f64)
    }
}

impl Node {
    /// One that came then, and of which nothing else is known.
    pub fn new(id: impl Into<String>, registered_at: Moment) -> Self {
        Self {
            id: id.into(),
            capabilities: Capabilities::default(),
            index: Index::new(&Capabilities::default(), &BTreeMap::new()),
            max_concurrent: 1,
            running: 0,
            resources: BTreeMap::new(),
            gateway: None,
            load: Load::default(),
            latency_us: None,
            moved_bytes: 0,
            earned_uremes: 0,
            registered_at,
            registration: 0,
            functions: BTreeMap::new(),
        }
    }

    /// Whether the node and the function have room for one call more.
    pub fn has_room(&self, offer: &Offer) -> bool {
        self.running < self.max_concurrent && offer.running < offer.info.max_concurrent
    }

    /// Microseconds until a call begins here that has `before` others before it: none with room; otherwise
    /// as long as it takes until one that runs and all of those have ended, by the mean of those that
    /// ended, in so many places as there are. While the breaker lets none through, until it lets one see.
    /// `None` where nothing tells.
    pub fn expected_wait_us(&self, offer: &Offer, before: usize, now: Moment) -> Option<f64> {
        if !offer.breaker.admits(now) {
            let at = offer.breaker.opens_at(now)?;
            return Some(at.micros_after(now) as f64);
        }
        if self.has_room(offer) {
            return Some(0.0);
        }
        let places = offer.info.max_concurrent.min(self.max_concurrent);
        let calls = (before + 1) as f64 / f64::from(places.max(1));
        offer.mean_us().map(|mean| mean * calls)
    }

    /// Weighs in the round trip of one more ping.
    pub fn add_latency(&mut self, micros: u64) {
        let micros = micros as f64;
        self.latency_us = Some(
            self.latency_us
                .map_or(micros, |mean| mean + (micros - mean) / 4.0),
        );
    }

    /// Takes a new list of functions, of this number, in place of the one before, keeping what is known of
    /// those that stay.
    ///
    /// # Errors
    /// What is wrong with the list; nothing changes then.
    pub fn offer(&mut self, functions: Vec<FunctionInfo>, registration: u64) -> Result<(), String> {
        if functions.len() > MAX_FUNCTIONS {
            return Err(format!(
                "{} functions are too many, at most {MAX_FUNCTIONS}",
                functions.len()
            ));
        }
        let mut offers = BTreeMap::new();
        for info in functions {
            info.check()?;
            let name = info.name.clone();
            if offers.insert(name.clone(), Offer::new(info)).is_some() {
                return Err(format!("{name} is offered twice"));
            }
        }
        for (name, offer) in &mut offers {
            if let Some(known) = self.functions.remove(name) {
                *offer = Offer {
                    info: offer.info.clone(),
                    ..known
                };
            }
        }
        self.functions = offers;
        self.registration = registration;
        Ok(())
    }
}
