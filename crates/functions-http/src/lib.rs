//! Remote functions over HTTP, beside their own frames on the same port: `POST /api/{node}.{function}`
//! and `POST /api/fn/{function}`, lists, asynchronous calls, an OpenAPI description, figures.
//!
//! A call from here takes the same way through the broker as one over frames: access, quotas, routing,
//! deadlines and credits are the broker's. A caller that goes away cancels its call; one that reads
//! slowly holds up nothing but its own answer.

mod answer;
mod api;
mod arguments;
mod call;
mod dashboard;
mod figures;
mod jobs;
mod kept;
mod limit;
mod lists;
mod mcp;
mod openapi;
mod origins;
mod problem;
mod values;
mod webhook;

use self::api::{CALL_HEADER, Shared};
pub use self::{
    api::{Functions, HttpLimits},
    arguments::arguments_of,
    origins::{Origin, Origins},
    values::value_of,
    webhook::WebhookHosts,
};
