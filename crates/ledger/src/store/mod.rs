//! Typed state: tables over keys and values, and the context in which a message or hook runs.

mod key;
mod table;

use std::cell::Cell;

use r3mes_state::{Changes, Delta, Entries, Read};
use r3mes_types::{Event, Time};

pub use self::key::Key;
pub use self::table::{Item, Map};
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
