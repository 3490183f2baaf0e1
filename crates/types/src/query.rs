//! How a question to the ledger is tied to its answer, and pages of long answers.

use crate::schema;
use crate::wire::{Blob, MessageType, Wire};

/// Longest state key that a page can go on from.
pub const MAX_PAGE_KEY: usize = 256;
/// Most entries of one page.
pub const MAX_PAGE: usize = 256;

/// A question: its path, and the type of its answer.
///
/// A client sends [`PATH`](Query::PATH) with the encoding of the question, and decodes the answer
/// with this crate alone.
pub trait Query: Wire {
    /// The answer.
    type Answer: Wire;
    /// The path, `/r3mes.<domain>.v1.Query/<Name>`.
    const PATH: &'static str;
}

/// A question as it stands in a `.proto` file: a method of a service.
#[derive(Clone, Debug)]
pub struct QueryType {
    /// Its path.
    pub path: &'static str,
    /// What is asked.
    pub question: MessageType,
    /// What is answered.
    pub answer: MessageType,
}

impl QueryType {
    /// Every question that a ledger answers.
    pub fn all() -> Vec<Self> {
        [
            crate::auth::described_queries(),
            crate::bank::described_queries(),
            crate::beacon::described_queries(),
            crate::nodes::described_queries(),
            crate::models::described_queries(),
            crate::data::described_queries(),
            crate::governance::described_queries(),
            crate::training::described_queries(),
            crate::rewards::described_queries(),
            crate::escrow::described_queries(),
            crate::cosmos::auth::described_queries(),
            crate::cosmos::bank::described_queries(),
            crate::cosmos::tx::described_queries(),
        ]
        .concat()
    }
}

/// Ties questions to paths and answers.
#[macro_export]
macro_rules! queries {
    ($( $path:literal => $query:ty : $answer:ty ),* $(,)?) => { $(
        impl $crate::query::Query for $query {
            type Answer = $answer;
            const PATH: &'static str = $path;
        }
    )*
        /// The questions of this module as they stand in `.proto` files.
        pub fn described_queries() -> Vec<$crate::query::QueryType> {
            vec![$($crate::query::QueryType {
                path: $path,
                question: <$query as $crate::wire::Wire>::described(),
                answer: <$answer as $crate::wire::Wire>::described(),
            }),*]
        }
    };
}

schema! {
    /// Which part of a long answer is wanted.
    #[derive(Default)]
    pub struct PageRequest {
        /// Where the page before ended; empty for the first.
        1 => after: Blob<MAX_PAGE_KEY>,
        /// Most entries wanted; 0 and everything above [`MAX_PAGE`] mean [`MAX_PAGE`].
        2 => limit: u32,
    }
}

impl PageRequest {
    /// How many entries to give.
    pub fn size(&self) -> usize {
        match self.limit as usize {
            0 => MAX_PAGE,
            wanted => wanted.min(MAX_PAGE),
        }
    }
}
