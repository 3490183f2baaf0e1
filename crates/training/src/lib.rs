//! Training that anybody can recompute: tasks, deterministic steps, step commitments, packages,
//! aggregation and audits.
//!
//! A round of training is a pure function. A [`Task`](r3mes_types::task::Task) names a model, a
//! shard of token ids, an adapter to start from and a beacon; from these follow the batches, every
//! optimizer [`step`](step::step), the [`package`] that a miner sends and the [`aggregate`] of all
//! packages, to the last bit and on every machine. Miners commit to the states between their
//! steps ([`commitment`]); validators run the same function for a few drawn steps ([`audit`]).
//!
//! ```
//! use r3mes_training::{aggregate::aggregate, package::{Package, Shape}};
//!
//! // Two miners send the two largest of four numbers and keep the rest for the next round.
//! let shape = Shape::new(4, 4, 2)?;
//! let mut feedback = [0.0; 4];
//! let one = Package::compress(shape, 0.95, &mut feedback, &[0.5, 0.0, -0.25, 0.125])?;
//! assert_eq!(feedback, [0.0, 0.0, 0.0, 0.125]);
//! let other = Package::compress(shape, 0.95, &mut [0.0; 4], &[0.25, 0.5, 0.0, 0.0])?;
//!
//! let bytes = one.encode();
//! assert_eq!(Package::decode(&bytes, shape)?, one);
//!
//! // Their mean moves the adapter, whichever came first.
//! let start = [1.0; 4];
//! let next = aggregate(&start, &[one.clone(), other.clone()])?;
//! assert_eq!(next.adapter, aggregate(&start, &[other, one])?.adapter);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod dataset;
pub mod text;

pub mod job;
pub mod round;
pub mod state;
pub mod step;

pub mod aggregate;
mod bits;
pub mod commitment;
pub mod package;

pub mod audit;
pub mod verify;

pub mod evaluate;
pub mod presets;

pub mod agent;

pub mod golden;
pub mod synthetic;

pub mod adversary;
