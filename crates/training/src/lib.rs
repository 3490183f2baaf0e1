//! Tasks, deterministic steps, commitments, packages, aggregation and re-execution.

pub mod aggregate;
mod bits;
pub mod dataset;
pub mod package;
pub mod state;
pub mod text;
