//! Typed state: tables over keys and values, and the context in which a message or hook runs.

use std::cell::Cell;
use std::marker::PhantomData;

use r3mes_state::{Changes, Delta, Entries, Read};
use r3mes_types::wire::{Reader, Value};
use r3mes_types::{Address, ConsensusAddress, Event, Hash, Role, Time};

use crate::error::{Fault, LedgerError};
use crate::gas::{self, Gas};

/// State that can be read: committed, or in the middle of a block.
pub trait View {
    /// The value under `key`.
    ///
    /// # Errors
    /// When the state cannot be read or the gas is used up.
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerError>;

    /// At most `limit` entries whose keys begin with `prefix`, ascending, after the key `after`.
    ///
    /// # Errors
    /// When the state cannot be read or the gas is used up.
    fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, LedgerError>;
}

/// A [`View`] of committed state, for queries and checks.
#[derive(Clone, Copy)]
pub struct Committed<'a>(pub &'a dyn Read);

impl View for Committed<'_> {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(self.0.get(key).map_err(Fault::Read)?)
    }

    fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, LedgerError> {
        Ok(self.0.scan(prefix, after, limit).map_err(Fault::Read)?)
    }
}

/// The block in which something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its height.
    pub height: u64,
    /// Its time: after that of every block before it.
    pub time: Time,
}

/// Where a message or a hook runs: state it may change, the block, the gas, the events.
///
/// Changes and events are values; they become real when the one who made the context takes them.
pub struct Context<'a> {
    state: Delta<'a>,
    gas: Cell<Gas>,
    events: Vec<Event>,
    /// Whether anybody takes the events.
    watched: bool,
    block: Block,
}

impl<'a> Context<'a> {
    /// A context over `base` with as much gas as it takes.
    pub fn new(base: &'a dyn Read, block: Block) -> Self {
        Self::with_gas(base, block, Gas::unlimited())
    }

    /// A context over `base` with a limit of gas.
    pub fn with_gas(base: &'a dyn Read, block: Block, gas: Gas) -> Self {
        Self {
            state: Delta::new(base),
            gas: Cell::new(gas),
            events: Vec::new(),
            watched: true,
            block,
        }
    }

    /// The same for a check whose events nobody takes: those of [`Context::emit_with`] are not made.
    pub(crate) fn unwatched(self) -> Self {
        Self {
            watched: false,
            ..self
        }
    }

    /// The block.
    pub const fn block(&self) -> Block {
        self.block
    }

    /// The time of the block.
    pub const fn now(&self) -> Time {
        self.block.time
    }

    /// The height of the block.
    pub const fn height(&self) -> u64 {
        self.block.height
    }

    /// The gas so far.
    pub fn gas(&self) -> Gas {
        self.gas.get()
    }

    /// Uses gas.
    ///
    /// # Errors
    /// When there is not enough left.
    pub fn use_gas(&self, amount: u64) -> Result<(), LedgerError> {
        let mut gas = self.gas.get();
        let result = gas.consume(amount);
        self.gas.set(gas);
        result
    }

    /// Tells those who watch.
    pub fn emit(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Tells those who watch, if anybody does, where checks of transactions come by too.
    pub(crate) fn emit_with(&mut self, event: impl FnOnce() -> Event) {
        if self.watched {
            self.events.push(event());
        }
    }

    /// Runs `step` on top of this context; its changes and events are kept only if it succeeds.
    /// The gas it used is used either way.
    ///
    /// # Errors
    /// What `step` gives.
    pub fn attempt<T>(
        &mut self,
        step: impl FnOnce(&mut Context<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let (result, gas, done) = {
            let mut inner = Context {
                watched: self.watched,
                ..Context::with_gas(&self.state, self.block, self.gas.get())
            };
            let result = step(&mut inner);
            (result, inner.gas.get(), inner.finish())
        };
        self.gas.set(gas);
        let value = result?;
        self.state.apply(done.0);
        self.events.extend(done.1);
        Ok(value)
    }

    /// The changes and events.
    pub fn finish(self) -> (Changes, Vec<Event>) {
        (self.state.into_changes(), self.events)
    }

    /// The state as it is now, for a context on top of this one.
    pub fn state(&self) -> &dyn Read {
        &self.state
    }

    /// Takes over changes and events that were made on top of [`Context::state`].
    pub fn apply(&mut self, changes: Changes, events: Vec<Event>) {
        self.state.apply(changes);
        self.events.extend(events);
    }

    /// Takes an entry over as another chain had it.
    pub(crate) fn restore(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.state.put(key, value);
    }

    fn write(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), LedgerError> {
        self.use_gas(gas::write(key.len() + value.len()))?;
        self.state.put(key, value);
        Ok(())
    }

    fn delete(&mut self, key: Vec<u8>) -> Result<(), LedgerError> {
        self.use_gas(gas::DELETE)?;
        self.state.delete(key);
        Ok(())
    }
}

impl View for Context<'_> {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerError> {
        let value = self.state.get(key).map_err(Fault::Read)?;
        let length = key.len() + value.as_ref().map_or(0, Vec::len);
        self.use_gas(gas::read(length))?;
        Ok(value)
    }

    fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, LedgerError> {
        let entries = self.state.scan(prefix, after, limit).map_err(Fault::Read)?;
        let bytes = entries
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        self.use_gas(gas::list(entries.len(), bytes))?;
        Ok(entries)
    }
}

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

/// A key of fixed length whose encoding sorts like itself.
pub trait Key: Sized {
    /// Appends the encoding.
    fn write(&self, out: &mut Vec<u8>);
    /// Takes the encoding off the front.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

impl Key for () {
    fn write(&self, _: &mut Vec<u8>) {}
    fn read(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl Key for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_be_bytes)
    }
}

impl Key for u32 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_be_bytes)
    }
}

impl Key for Time {
    fn write(&self, out: &mut Vec<u8>) {
        self.nanos().write(out);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        u64::read(bytes).map(Self::from_nanos)
    }
}

impl Key for Role {
    fn write(&self, out: &mut Vec<u8>) {
        self.number().write(out);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        u32::read(bytes).and_then(Self::from_number)
    }
}

macro_rules! byte_keys {
    ($($name:ident),*) => { $(
        impl Key for $name {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.as_bytes());
            }
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                take(bytes).map(Self::from)
            }
        }
    )* };
}

byte_keys!(Address, ConsensusAddress, Hash);

macro_rules! tuple_keys {
    ($( ($($name:ident . $index:tt),+) )*) => { $(
        impl<$($name: Key),+> Key for ($($name,)+) {
            fn write(&self, out: &mut Vec<u8>) {
                $( self.$index.write(out); )+
            }
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                Some(($( $name::read(bytes)?, )+))
            }
        }
    )* };
}

tuple_keys! { (A.0, B.1) (A.0, B.1, C.2) (A.0, B.1, C.2, D.3) }
