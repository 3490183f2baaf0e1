//! Tables over keys and values.

use std::marker::PhantomData;

use r3mes_types::wire::{Reader, Value};

use super::{Context, Key, View};
use crate::error::{Fault, LedgerError};

/// A table of the state: one kind of key, one kind of value.
///
/// The order of keys is the order of their encodings, so numbers are big-endian here, unlike
/// everywhere else.
pub struct Map<K, V> {
    prefix: &'static str,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Key, V: Value> Map<K, V> {
    /// The table under `prefix`: `domain/table/`. No prefix may begin with another.
    pub const fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            types: PhantomData,
        }
    }

    /// The prefix of all keys of the table.
    pub const fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// The state key of an entry, for proofs.
    pub fn key(&self, key: &K) -> Vec<u8> {
        let mut bytes = self.prefix.as_bytes().to_vec();
        key.write(&mut bytes);
        bytes
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// When the state cannot be read or the gas is used up.
    pub fn get(&self, view: &dyn View, key: &K) -> Result<Option<V>, LedgerError> {
        view.read(&self.key(key))?
            .map(|bytes| self.parse(&bytes))
            .transpose()
    }

    /// Whether there is a value under `key`.
    ///
    /// # Errors
    /// When the state cannot be read or the gas is used up.
    pub fn contains(&self, view: &dyn View, key: &K) -> Result<bool, LedgerError> {
        Ok(view.read(&self.key(key))?.is_some())
    }

    /// Sets the value under `key`.
    ///
    /// # Errors
    /// When the gas is used up.
    pub fn put(&self, ctx: &mut Context<'_>, key: &K, value: &V) -> Result<(), LedgerError> {
        let mut bytes = Vec::new();
        value.put(&mut bytes);
        ctx.write(self.key(key), bytes)
    }

    /// Removes the entry under `key`, if there is one.
    ///
    /// # Errors
    /// When the gas is used up.
    pub fn remove(&self, ctx: &mut Context<'_>, key: &K) -> Result<(), LedgerError> {
        ctx.delete(self.key(key))
    }

    /// At most `limit` entries, ascending, after the key `after`.
    ///
    /// # Errors
    /// When the state cannot be read or the gas is used up.
    pub fn range(
        &self,
        view: &dyn View,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, LedgerError> {
        self.entries(view, self.prefix.as_bytes(), after, limit)
    }

    /// At most `limit` entries whose keys begin with `part`, ascending, after the key `after`.
    ///
    /// # Errors
    /// When the state cannot be read or the gas is used up.
    pub fn range_of<P: Key>(
        &self,
        view: &dyn View,
        part: &P,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, LedgerError> {
        let mut prefix = self.prefix.as_bytes().to_vec();
        part.write(&mut prefix);
        self.entries(view, &prefix, after, limit)
    }

    fn entries(
        &self,
        view: &dyn View,
        prefix: &[u8],
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, LedgerError> {
        let after = after.map(|key| self.key(key));
        view.list(prefix, after.as_deref(), limit)?
            .into_iter()
            .map(|(key, value)| Ok((self.parse_key(&key)?, self.parse(&value)?)))
            .collect()
    }

    fn parse_key(&self, bytes: &[u8]) -> Result<K, LedgerError> {
        let mut rest = bytes.get(self.prefix.len()..).unwrap_or_default();
        let key = K::read(&mut rest).filter(|_| rest.is_empty());
        Ok(key.ok_or_else(|| self.damaged("a key does not parse".into()))?)
    }

    fn parse(&self, bytes: &[u8]) -> Result<V, LedgerError> {
        let mut reader = Reader::new(bytes);
        let value = V::take(&mut reader)
            .and_then(|value| reader.finish().map(|()| value))
            .map_err(|error| self.damaged(error.to_string()))?;
        Ok(value)
    }

    fn damaged(&self, why: String) -> Fault {
        Fault::Damaged {
            table: self.prefix,
            why,
        }
    }
}

/// A single value of the state.
pub struct Item<V> {
    map: Map<(), V>,
}

impl<V: Value> Item<V> {
    /// The value under `key`: `domain/what`.
    pub const fn new(key: &'static str) -> Self {
        Self { map: Map::new(key) }
    }

    /// The state key, for proofs.
    pub const fn key(&self) -> &'static str {
        self.map.prefix
    }

    /// The value, if it is set.
    ///
    /// # Errors
    /// When the state cannot be read or the gas is used up.
    pub fn get(&self, view: &dyn View) -> Result<Option<V>, LedgerError> {
        self.map.get(view, &())
    }

    /// The value, which genesis has set.
    ///
    /// # Errors
    /// When the state cannot be read, the gas is used up, or the value is not there.
    pub fn require(&self, view: &dyn View) -> Result<V, LedgerError> {
        let value = self.get(view)?;
        Ok(value.ok_or_else(|| self.map.damaged("it is missing".into()))?)
    }

    /// Sets the value.
    ///
    /// # Errors
    /// When the gas is used up.
    pub fn put(&self, ctx: &mut Context<'_>, value: &V) -> Result<(), LedgerError> {
        self.map.put(ctx, &(), value)
    }

    /// Removes the value.
    ///
    /// # Errors
    /// When the gas is used up.
    pub fn remove(&self, ctx: &mut Context<'_>) -> Result<(), LedgerError> {
        self.map.remove(ctx, &())
    }
}

impl Item<u64> {
    /// Gives the present number, from 1, and counts up.
    ///
    /// # Errors
    /// When the state cannot be read or the gas is used up.
    pub fn next(&self, ctx: &mut Context<'_>) -> Result<u64, LedgerError> {
        let number = self.get(ctx)?.unwrap_or(1);
        self.put(ctx, &(number + 1))?;
        Ok(number)
    }
}
