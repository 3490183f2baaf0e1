//! Results of functions that are declared cacheable, for callers who take one that is not new.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::{Broker, FRAME_COST, WINDOW_BYTES};
use crate::{
    Moment,
    registry::{Node, Target},
};

/// Bytes of all results that are kept.
const MAX_BYTES: usize = 64 << 20;
/// What keeping a result takes besides its bytes.
const ENTRY_BYTES: usize = 512;
/// Bytes of a result: what a caller that has granted nothing takes.
const MAX_RESULT: usize = (WINDOW_BYTES - FRAME_COST) as usize;
/// Microseconds after which a result is forgotten.
const LIFE_US: u64 = 3600 * 1_000_000;

/// What was called: a hash of the function's name and the arguments.
pub(super) type Key = [u8; 32];

/// The results.
#[derive(Debug, Default)]
pub(super) struct Cache {
    results: HashMap<Key, Kept>,
    /// Which was kept when, oldest first.
    order: BTreeMap<u64, Key>,
    next: u64,
    bytes: usize,
    hits: u64,
}

/// A result.
#[derive(Debug)]
struct Kept {
    number: u64,
    made_at: Moment,
    /// By which node, with which list of functions.
    node: String,
    registration: u64,
    result: Bytes,
}

/// A result that is not new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) result: Bytes,
    pub(super) age_us: u64,
}

/// What comes back of a call whose result may be kept.
#[derive(Debug)]
pub(super) struct Gathered {
    key: Key,
    bytes: Vec<u8>,
    items: u32,
}

impl Gathered {
    pub(super) fn new(key: Key) -> Self {
        Self {
            key,
            bytes: Vec::new(),
            items: 0,
        }
    }

    /// Adds what the node sent; whether it is still short enough, and one item.
    pub(super) fn add(&mut self, bytes: &[u8], ends_item: bool) -> bool {
        self.bytes.extend_from_slice(bytes);
        self.items += u32::from(ends_item);
        self.bytes.len() <= MAX_RESULT && self.items <= 1
    }
}

/// The key of a call whose arguments are complete.
pub(super) fn key(function: &str, arguments: &[u8]) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(function.len() as u64).to_le_bytes());
    hasher.update(function.as_bytes());
    hasher.update(arguments);
    hasher.finalize().into()
}

impl Cache {
    /// A result at most so old, made by a node that could take this call now.
    fn find<'a>(
        &self,
        key: &Key,
        max_age_us: u64,
        fits: impl Fn(&str) -> Option<&'a Node>,
        now: Moment,
    ) -> Option<Hit> {
        let kept = self.results.get(key)?;
        let age_us = now.micros_after(kept.made_at);
        let node = fits(&kept.node)?;
        let same = node.registration == kept.registration;
        (same && age_us <= max_age_us.min(LIFE_US)).then(|| Hit {
            result: kept.result.clone(),
            age_us,
        })
    }

    fn add(&mut self, gathered: Gathered, node: &Node, now: Moment) {
        self.remove(&gathered.key);
        let result = Bytes::from(gathered.bytes.into_boxed_slice());
        let number = self.next;
        self.next += 1;
        self.bytes += result.len() + ENTRY_BYTES;
        self.order.insert(number, gathered.key);
        self.results.insert(
            gathered.key,
            Kept {
                number,
                made_at: now,
                node: node.id.clone(),
                registration: node.registration,
                result,
            },
        );
        while let Some((_, oldest)) = self.order.first_key_value() {
            let oldest = *oldest;
            let old = self.results.get(&oldest);
            let is_old = old.is_none_or(|kept| now.micros_after(kept.made_at) > LIFE_US);
            if !is_old && self.bytes <= MAX_BYTES {
                break;
            }
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.results.remove(key) {
            self.order.remove(&kept.number);
            self.bytes -= kept.result.len() + ENTRY_BYTES;
        }
    }
}

impl Broker {
    /// A kept result for a call, at most so old. The node that made it must be there as it was then, and
    /// be one that could take the call: so nobody gets what he may not call, and no price is evaded.
    pub(super) fn cached(
        &mut self,
        target: &Target,
        key: &Key,
        max_age_us: u64,
        now: Moment,
    ) -> Option<Hit> {
        let nodes = &self.nodes;
        let fits = |id: &str| {
            let (_, node) = nodes.get(id)?;
            let (offer, ..) = target.fit(node).ok()?;
            offer.info.cacheable.then_some(node)
        };
        let hit = self.cache.find(key, max_age_us, fits, now);
        self.cache.hits += u64::from(hit.is_some());
        hit
    }

    /// Keeps what a node has answered, if the function is declared so, and the node has not said anew since
    /// it was given the call what it offers: the result may be that of a program that was replaced.
    pub(super) fn keep_result(
        &mut self,
        gathered: Gathered,
        (node, registration): (&str, u64),
        function: &str,
        now: Moment,
    ) {
        let Some((_, node)) = self.nodes.get(node) else {
            return;
        };
        if node.registration != registration {
            return;
        }
        let offer = node.functions.get(function);
        if gathered.items == 1 && offer.is_some_and(|offer| offer.info.cacheable) {
            self.cache.add(gathered, node, now);
        }
    }

    /// Calls that were answered with a kept result.
    pub fn cache_hits(&self) -> u64 {
        self.cache.hits
    }

    /// Bytes of memory that kept results take.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_results_make_room_and_old_ones_are_forgotten() {
        let mut cache = Cache::default();
        let node = Node::new("n", Moment(0));
        let gathered = |number: u32, bytes: usize| {
            let mut gathered = Gathered::new(key("f", &number.to_le_bytes()));
            assert!(gathered.add(&vec![0; bytes], true));
            gathered
        };
        let most = MAX_BYTES / (MAX_RESULT + ENTRY_BYTES);
        for number in 0..=most as u32 {
            cache.add(gathered(number, MAX_RESULT), &node, Moment(1));
        }
        let found = |cache: &Cache, number: u32, age: u64, now: u64| {
            let key = key("f", &number.to_le_bytes());
            cache.find(&key, age, |_| Some(&node), Moment(now))
        };
        assert_eq!((cache.results.len(), cache.order.len()), (most, most));
        assert!(cache.bytes <= MAX_BYTES);
        assert!(found(&cache, 0, LIFE_US, 1).is_none());
        assert_eq!(found(&cache, 1, 9, 10).unwrap().age_us, 9);
        assert!(found(&cache, 1, 8, 10).is_none());
        cache.add(gathered(0, 1), &node, Moment(LIFE_US + 2));
        assert_eq!((cache.results.len(), cache.bytes), (1, 1 + ENTRY_BYTES));
    }

    #[test]
    fn only_one_short_item_is_kept() {
        let mut gathered = Gathered::new([0; 32]);
        assert!(gathered.add(&[1], false) && gathered.add(&[2], true));
        assert!(!gathered.add(&[3], true));
        assert!(!Gathered::new([0; 32]).add(&vec![0; MAX_RESULT + 1], false));
    }
}
