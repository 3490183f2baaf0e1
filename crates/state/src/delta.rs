//! Changes laid over a state that is not touched.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use crate::read::{Entries, Read, ReadError, lower_bound};

/// What to write: the new value of a key, or `None` to remove it. Ascending by key.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The most entries a scan asks of the state below at once while it looks past removed ones.
const MAX_SCAN_PAGE: usize = 256;

/// Changes over a state, readable as one state.
///
/// Deltas nest: a transaction runs on a `Delta` over the block's `Delta`, and a transaction that fails
/// drops its own. Nothing below is written; [`Delta::into_changes`] gives what to commit.
pub struct Delta<'a> {
    base: &'a dyn Read,
    changes: Changes,
}

impl<'a> Delta<'a> {
    /// No changes yet over `base`.
    pub fn new(base: &'a dyn Read) -> Self {
        Self {
            base,
            changes: Changes::new(),
        }
    }

    /// Sets `key` to `value`. Neither is empty: ICS-23 has no proof for such an entry, nor of absence
    /// beside it, so that a [`Storage`](crate::Storage) refuses it.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        let (key, value) = (key.into(), value.into());
        debug_assert!(!key.is_empty(), "an empty key cannot be proved");
        debug_assert!(
            !value.is_empty(),
            "an empty value cannot be proved: {key:x?}"
        );
        self.changes.insert(key, Some(value));
    }

    /// Removes `key`; nothing happens if it is not there.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.insert(key.into(), None);
    }

    /// Takes over the changes of a `Delta` that lay over this one; later ones win.
    pub fn apply(&mut self, changes: Changes) {
        self.changes.extend(changes);
    }

    /// The changes so far.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The changes, ready to commit or to [`apply`](Delta::apply) to the `Delta` below.
    pub fn into_changes(self) -> Changes {
        self.changes
    }
}

impl Read for Delta<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, ReadError> {
        scan_overlaid(&self.changes, self.base, prefix, start_after, limit)
    }
}

/// A scan of `base` with `changes` laid over it.
pub(crate) fn scan_overlaid(
    changes: &Changes,
    base: &dyn Read,
    prefix: &[u8],
    start_after: Option<&[u8]>,
    limit: usize,
) -> Result<Entries, ReadError> {
    let mut changed = changes
        .range::<[u8], _>((lower_bound(prefix, start_after), Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(prefix))
        .peekable();
    if changed.peek().is_none() {
        return base.scan(prefix, start_after, limit);
    }
    let mut merged = Entries::new();
    let mut after = start_after.map(<[u8]>::to_vec);
    let mut page_size = limit.clamp(1, MAX_SCAN_PAGE);
    while merged.len() < limit {
        let page = base.scan(prefix, after.as_deref(), page_size)?;
        let last_page = page.len() < page_size;
        after = page.last().map(|(key, _)| key.clone());
        for (key, value) in page {
            take_below(&mut changed, &key, &mut merged);
            match changed.next_if(|(changed_key, _)| **changed_key == key) {
                Some((_, change)) => {
                    merged.extend(change.clone().map(|value| (key, value)));
                }
                None => merged.push((key, value)),
            }
        }
        if last_page {
            for (key, change) in changed {
                merged.extend(change.clone().map(|value| (key.clone(), value)));
                if merged.len() >= limit {
                    break;
                }
            }
            break;
        }
        page_size = (page_size * 2).min(MAX_SCAN_PAGE);
    }
    merged.truncate(limit);
    Ok(merged)
}

/// Moves the changed entries with keys below `key` into `merged`.
fn take_below<'c>(
    changed: &mut Peekable<impl Iterator<Item = (&'c Vec<u8>, &'c Option<Vec<u8>>)>>,
    key: &[u8],
    merged: &mut Entries,
) {
    while let Some((changed_key, change)) =
        changed.next_if(|(changed_key, _)| changed_key.as_slice() < key)
    {
        merged.extend(change.clone().map(|value| (changed_key.clone(), value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0u8..3, 1..4)
    }

    proptest! {
        #[test]
        fn nested_deltas_read_like_one_map(
            base in prop::collection::btree_map(key(), any::<[u8; 1]>().prop_map(Vec::from), 0..30),
            first in prop::collection::btree_map(key(), any::<Option<[u8; 1]>>(), 0..20),
            second in prop::collection::btree_map(key(), any::<Option<[u8; 1]>>(), 0..20),
            prefix in prop::collection::vec(0u8..3, 0..2),
            start_after in prop::option::of(key()),
            limit in 0usize..40,
        ) {
            let change = |value: Option<[u8; 1]>| value.map(Vec::from);
            let mut flat = base.clone();
            for (key, value) in first.iter().chain(&second) {
                match change(*value) {
                    Some(value) => flat.insert(key.clone(), value),
                    None => flat.remove(key),
                };
            }
            let mut outer = Delta::new(&base);
            outer.apply(first.into_iter().map(|(k, v)| (k, change(v))).collect());
            let mut inner = Delta::new(&outer);
            inner.apply(second.into_iter().map(|(k, v)| (k, change(v))).collect());
            let start_after = start_after.as_deref();
            prop_assert_eq!(
                inner.scan(&prefix, start_after, limit).unwrap(),
                flat.scan(&prefix, start_after, limit).unwrap()
            );
            for key in flat.keys().chain(base.keys()) {
                prop_assert_eq!(inner.get(key).unwrap(), Read::get(&flat, key).unwrap());
            }
        }
    }

    #[test]
    fn a_scan_looks_past_many_removed_entries() {
        let base: BTreeMap<Vec<u8>, Vec<u8>> = (0..500u32)
            .map(|i| (i.to_be_bytes().to_vec(), vec![1]))
            .collect();
        let mut delta = Delta::new(&base);
        for i in 0..499u32 {
            delta.delete(i.to_be_bytes());
        }
        let found = delta.scan(&[], None, 1).unwrap();
        assert_eq!(found, vec![(499u32.to_be_bytes().to_vec(), vec![1])]);
    }
}
