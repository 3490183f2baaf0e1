//! How an answer is found to be false.

use std::time::Duration;

use crate::rpc::client::ClientError;

/// What a node said does not fit what the network signed.
#[derive(Debug, thiserror::Error)]
pub enum LightError {
    /// A header is not what its commit says.
    #[error(
        "header {height} was falsified: its hash is {found}, and the commit is for {committed}"
    )]
    Header {
        /// Its height.
        height: u64,
        /// Hash of the header as sent.
        found: String,
        /// Hash that the commit names.
        committed: String,
    },
    /// A block of another height than asked.
    #[error("asked for header {asked}, the node sent header {got}")]
    Height {
        /// What was asked.
        asked: u64,
        /// What came.
        got: u64,
    },
    /// A header is of another chain.
    #[error("header {height} is of chain {got:?}, and this node is of {expected:?}")]
    Chain {
        /// Its height.
        height: u64,
        /// The chain it names.
        got: String,
        /// The chain it should name.
        expected: String,
    },
    /// A validator set is not the one that a header names.
    #[error(
        "the validators sent for height {height} hash to {found}, and the header names {expected}"
    )]
    Validators {
        /// The height.
        height: u64,
        /// Their hash.
        found: String,
        /// The hash in the header before or in the header itself.
        expected: String,
    },
    /// Too little of the power signed.
    #[error("block {height} is signed by too little power: {tally}")]
    Power {
        /// Its height.
        height: u64,
        /// How much signed, of how much, and how much is needed.
        tally: String,
    },
    /// A signature is not valid, or its signer is no validator.
    #[error("a signature in the commit of block {height} does not hold: {why}")]
    Signature {
        /// The height.
        height: u64,
        /// Which, and why.
        why: String,
    },
    /// A commit is malformed.
    #[error("the commit of block {height} is malformed: {why}")]
    Commit {
        /// The height.
        height: u64,
        /// What is wrong.
        why: String,
    },
    /// The network signed two blocks of one height, or the node's is not the one that is trusted.
    #[error(
        "block {height} is {found} by this node, and {trusted} was verified or is trusted: one of the two is of a fork"
    )]
    Fork {
        /// The height.
        height: u64,
        /// What the node sent.
        found: String,
        /// What is trusted.
        trusted: String,
    },
    /// A header's time goes back.
    #[error("header {height} is from {got}, and header {trusted} before it from {expected}")]
    Time {
        /// Its height.
        height: u64,
        /// Its time.
        got: String,
        /// The trusted height.
        trusted: u64,
        /// The trusted time.
        expected: String,
    },
    /// A header's time is ahead of this machine's.
    #[error(
        "header {height} is from the future ({got}, here it is {now}): the node lies, or this machine's clock is wrong"
    )]
    Future {
        /// Its height.
        height: u64,
        /// Its time.
        got: String,
        /// This machine's.
        now: String,
    },
    /// What is trusted is too old: validators since then may have taken back their stake.
    #[error(
        "the trusted header {height} is older than the trusting period (it ended {ended}): \
         give a newer one by its height and hash, from a source that you trust"
    )]
    Expired {
        /// The trusted height.
        height: u64,
        /// When the trust ended.
        ended: String,
    },
    /// The node does not have what others had before.
    #[error(
        "the node's newest block is {newest}, and block {verified} was verified before: it shows an old state"
    )]
    Behind {
        /// What it calls the newest.
        newest: u64,
        /// What was verified before.
        verified: u64,
    },
    /// The newest header is old.
    #[error(
        "the node's newest block {height} is {} s old, and at most {} s are allowed: it shows an old state, or the network stands still",
        age.as_secs(), allowed.as_secs()
    )]
    Stale {
        /// Its height.
        height: u64,
        /// How old it is.
        age: Duration,
        /// How old it may be.
        allowed: Duration,
    },
    /// A block was asked for, or claimed to be the newest, that the network cannot have.
    #[error(
        "there is no block {height}: the network begins with block {first}, ask for that or a later one"
    )]
    BeforeFirst {
        /// The height.
        height: u64,
        /// The height of the network's first block.
        first: u64,
    },
    /// The header that proves a state did not come.
    #[error("the node has no block {height} yet, whose header proves what it says: ask again")]
    NoHeader {
        /// The height.
        height: u64,
    },
    /// A header is too far before everything that is trusted.
    #[error(
        "block {height} is {distance} blocks before the oldest one that is trusted, and at most {most} are walked back: trust a header nearer to it"
    )]
    TooFar {
        /// The height.
        height: u64,
        /// How far.
        distance: u64,
        /// How far is walked.
        most: u64,
    },
    /// A proof does not hold.
    #[error("the answer to {path} at height {height} is not proved")]
    Proof {
        /// The question.
        path: String,
        /// Height of the state.
        height: u64,
        /// Why.
        #[source]
        source: r3mes_state::WitnessError,
    },
    /// The proofs leave something out.
    #[error("the answer to {path} at height {height} is not proved: {why}")]
    Unproved {
        /// The question.
        path: String,
        /// Height of the state.
        height: u64,
        /// What is missing.
        why: String,
    },
    /// The proofs give another answer than the node.
    #[error(
        "the node falsified its answer to {path} at height {height}: the proved state gives another"
    )]
    Value {
        /// The question.
        path: String,
        /// Height of the state.
        height: u64,
    },
    /// The genesis gives no first state.
    #[error("the genesis that this node trusts is not one: {why}")]
    Genesis {
        /// Why.
        why: String,
    },
    /// The node did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}
