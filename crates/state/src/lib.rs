//! Versioned, authenticated key-value state with ICS-23 proofs.
