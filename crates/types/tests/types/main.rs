//! Encodings: canonical, pinned, and the same as other protobuf libraries write.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cosmos;
mod pins;
mod proto;
mod samples;
mod training_samples;
mod wire;
