//! The replicated state machine, one module per domain; pure.
