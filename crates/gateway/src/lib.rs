//! HTTP and gRPC of the network: its ledger, blobs, models.
//!
//! Each surface is a function that returns an [`axum::Router`], so that a process mounts those it
//! serves and runs them on one port:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use r3mes_blobs::MemoryStore;
//! use r3mes_gateway::ipfs;
//! use r3mes_http::server;
//! use tokio::net::TcpListener;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Arc::new(MemoryStore::new());
//! let router = ipfs::router(store, ipfs::GatewayLimits::default());
//! let listener = TcpListener::bind("127.0.0.1:8090").await?;
//! let limits = server::Limits::default();
//! server::serve(listener, router, limits, CancellationToken::new()).await;
//! # Ok(())
//! # }
//! ```
//!
//! [`ipfs`] hands out blobs and fetches them from other nodes; [`flight`] does both over Arrow
//! Flight, and shows adapters and packages as tables; [`openai`] answers prompts, on a serving node
//! itself or by passing them on; [`rpc`] is the chain, in CometBFT's shape, [`cosmos`] in the Cosmos
//! SDK's; [`billing`] lets calls of remote functions be paid on the ledger.

pub mod billing;
pub mod cosmos;
pub mod flight;
pub mod ipfs;
pub mod openai;
pub mod rpc;
