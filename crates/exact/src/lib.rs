//! Deterministic kernels: the arithmetic that every machine recomputes bit for bit.
//!
//! Every computation that somebody is paid for goes through this crate. The scalar back end is the
//! definition; the others are faster and give the same bits for any number of threads, so that a
//! claim can be checked by recomputing it on another processor. The rules are in
//! docs/spec/exact.md; "rule n" in this crate's documentation is a paragraph there.
//!
//! ```
//! use r3mes_exact::{Bytes, Cpu, CpuOptions, Device, ternary};
//!
//! // One BitLinear layer: y = x W^T with W = 0.5 * [[1, -1], [0, 1]].
//! let device = Cpu::new(CpuOptions::default())?;
//! let panels = Bytes::from_slice(&ternary::pack(&[1, -1, 0, 1], 2, 2)?);
//! let w = device.ternary(panels, 2, 2, 0.5);
//! let mut x = device.codes(1, 2);
//! device.quantize(&device.upload(&[127.0, 10.0]), 1, &mut x)?;
//! let mut y = device.zeros(2);
//! device.ternary_forward(&w, &x, &mut y);
//! assert_eq!(y[..], [58.5, 5.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![expect(
    unsafe_code,
    reason = "instructions of the processor, memory that threads share, and files in memory"
)]

#[cfg(all(target_arch = "x86", not(target_feature = "sse2")))]
compile_error!("x87 arithmetic rounds differently: build for a processor with SSE2");
#[cfg(target_arch = "arm")]
compile_error!("32-bit ARM vector units flush subnormals: build for aarch64");

mod device;
mod shapes;
mod write;

mod bytes;
mod rows;
pub mod tile;

pub mod elementary;
mod hash;
mod order;
mod philox;
mod rope;
mod sampler;

mod attention;
mod kernels;
mod product;
mod scalar;
mod vector;

pub mod int8;
mod integer;
pub mod panels;
pub mod ternary;

mod cpu;
mod environment;
mod golden;
mod isa;

pub use attention::BLOCK;
pub use bytes::{ALIGNMENT, Bytes};
pub use cpu::{
    Cpu, CpuBuffer, CpuCodes, CpuInt8, CpuKvCache, CpuOptions, CpuRope, CpuTernary, MAX_THREADS,
};
pub use device::{AttentionBackward, Device, Element, GatedBackward, LoraBackward};
pub use environment::{disturbed, undisturbed};
pub use golden::{GOLDEN, GOLDEN_SEED, Golden, golden, transcript};
pub use hash::{CanonicalHasher, hash_f32};
pub use isa::{Isa, IsaError};
pub use order::top_k;
pub use philox::{Philox, signed_unit};
pub use rope::{MAX_POSITIONS, rope_tables};
pub use rows::{Codes, ROW_PADDING, WideCodes, row_stride};
pub use sampler::{Sampling, TOP_P_ALL};
pub use scalar::lane_sum;
pub use scalar::loss::LOSS_ONE;
pub use shapes::{
    Activation, AdamW, AttentionShape, LoraSite, NotFinite, RopeDirection, RopePairs, RopeShape,
};
pub use tile::Tile;
pub use write::Write;
