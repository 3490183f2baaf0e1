//! Tasks, deterministic steps, commitments, packages, aggregation and re-execution.
