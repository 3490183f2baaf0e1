//! Deterministic kernels: the arithmetic that every machine recomputes bit for bit.
