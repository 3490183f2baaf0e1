//! The binary `r3mes`.
fn main() {}
