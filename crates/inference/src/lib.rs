//! Engines, scheduling, sampling, streaming, receipts and re-execution of answers.
