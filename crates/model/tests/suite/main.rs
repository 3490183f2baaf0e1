//! The model crate from outside: packing, exactness of results in any arrangement, gradients
//! against an independent implementation, and the demonstration's base model.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

mod demo;
mod gradients;
mod invariance;
mod malformed;
mod packing;
mod reference;
mod synthetic;
