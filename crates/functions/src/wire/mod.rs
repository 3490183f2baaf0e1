//! The wire protocol: frames, and what their heads say. docs/spec/functions.md specifies it.

mod frame;
pub mod messages;

pub use frame::{
    Flags, Frame, FrameError, HEADER_BYTES, Kind, MAX_BODY_BYTES, MAX_CONTROL_BYTES, PREFACE,
};
