//! Why a node was asked in vain.

use crate::rpc::light::LightError;

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one.
    #[error("{url:?} is not the address of a node: write it as http://127.0.0.1:26657")]
    Url {
        /// What was given.
        url: String,
    },
    /// The server did not answer.
    #[error("the node at {url} does not answer: check that it runs and that the address is right")]
    Unreachable {
        /// The server.
        url: String,
        /// What failed.
        #[source]
        source: reqwest::Error,
    },
    /// The server refused the call.
    #[error("{method} failed at the node: {message}")]
    Call {
        /// The method.
        method: &'static str,
        /// What the server said.
        message: String,
    },
    /// The ledger refused a query.
    #[error("the ledger refuses the question {path}: {log}")]
    Query {
        /// The query's path.
        path: String,
        /// Its list of errors.
        codespace: String,
        /// The error's number.
        code: u32,
        /// What is wrong.
        log: String,
    },
    /// The node follows another chain.
    #[error(
        "the node at {url} is of the network {found}, not of {expected}: check the address, and which network this home belongs to"
    )]
    OtherChain {
        /// The server.
        url: String,
        /// Its chain.
        found: String,
        /// The chain asked for.
        expected: String,
    },
    /// The answer is not what the network signed.
    #[error("the node at {url} is not to be believed")]
    False {
        /// The server.
        url: String,
        /// What is false.
        #[source]
        source: Box<LightError>,
    },
    /// The ledger has not begun.
    #[error(
        "the node at {url} has no state of the ledger yet, not even that of the genesis: it begins when its genesis time has come and its peers are reached; its log says what it waits for"
    )]
    NoState {
        /// The server.
        url: String,
    },
    /// The answer does not parse.
    #[error(
        "the node's answer to {method} is not understood ({what}): it may be of another version"
    )]
    Answer {
        /// The method or path.
        method: String,
        /// What is wrong with the answer.
        what: String,
    },
}
