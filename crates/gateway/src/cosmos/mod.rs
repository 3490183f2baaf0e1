//! The chain as a Cosmos SDK node shows it: gRPC, and the same as JSON over REST.
//!
//! Every call is a path with bytes in and bytes out ([`Node`]), whoever carries it. What asks for
//! state goes to the ledger as it is, the SDK's questions like our own; blocks and transactions come
//! from the [RPC](crate::rpc), and so look the same under both engines.
//!
//! - [`grpc_router`]: the services, with health and reflection.
//! - [`rest_router`]: `GET /cosmos/...` and `GET /r3mes/...`, as grpc-gateway writes them.
//! - [`proto`]: our messages and questions as `.proto` files.

#![expect(
    clippy::result_large_err,
    reason = "a refusal is gRPC's own type, and ends a call that has waited for a disk or a network"
)]

mod grpc;
mod json;
mod node;
pub mod proto;
mod reflected;
mod rest;
mod tendermint;
mod tx;

pub use grpc::grpc_router;
pub use node::Node;
pub use reflected::DescriptionError;
pub use rest::rest_router;
