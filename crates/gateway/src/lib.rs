//! HTTP: the only crate that knows it.
//!
//! Each surface is a function that returns an [`axum::Router`], so that a process mounts those it
//! serves and runs them on one port:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use r3mes_blobs::MemoryStore;
//! use r3mes_gateway::{ipfs, server};
//! use tokio::net::TcpListener;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Arc::new(MemoryStore::new());
//! let router = ipfs::router(store, ipfs::GatewayLimits::default());
//! let listener = TcpListener::bind("127.0.0.1:8090").await?;
//! server::serve(listener, router, CancellationToken::new()).await;
//! # Ok(())
//! # }
//! ```
//!
//! [`server`] runs a router with limits and a clean end; [`ipfs`] hands out blobs and fetches them
//! from other nodes; [`flight`] does both over Arrow Flight, and shows adapters and packages as
//! tables; [`openai`] answers prompts, on a serving node itself or by passing them on;
//! [`functions`] is remote functions, beside their own frames;
//! [`metrics`] counts; [`rpc`] is the chain, in CometBFT's shape, [`cosmos`] in the Cosmos SDK's.

pub mod cosmos;
pub mod flight;
pub mod functions;
pub mod ipfs;
pub mod metrics;
pub mod openai;
pub mod rpc;
pub mod server;
