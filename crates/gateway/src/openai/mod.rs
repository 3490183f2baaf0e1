//! The OpenAI API: `/v1/completions`, `/v1/chat/completions`, `/v1/models`, and beside it
//! `/v1/receipts/{id}`, `/v1/status` and `/health`.
//!
//! Two things answer it. A serving node's [`Api`] generates on an [`Engine`] in its own process.
//! The [`Network`] gateway finds a serving node that has the model and passes the request on, byte
//! for byte, answers and receipts as well. Clients see no difference.
//!
//! Every answer of the exact engine has a receipt, with which anyone can recompute it. The header
//! `x-r3mes-receipt` says where it can be had once the answer is complete; it is kept as a blob.
//!
//! [`Engine`]: r3mes_inference::Engine

mod answers;
mod api;
mod choice;
mod client;
mod error;
mod fields;
mod figures;
mod models;
mod network;
mod receipts;
mod request;
mod shape;

pub use api::{Api, ApiLimits};
pub use client::{Client, ClientError, CompletionAsk, CompletionText, ListedModel};
pub use network::{Network, NetworkLimits, ServingDirectory, ServingNode};
pub use receipts::{MAX_RECEIPTS, NONCE_HEADER, RECEIPT_HEADER};
pub use request::{MAX_CHOICES, MAX_PROMPTS};
