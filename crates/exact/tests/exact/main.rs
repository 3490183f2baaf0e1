//! The arithmetic as other crates see it: every back end, any number of threads, the same bits.

mod back_ends;
mod invariance;
mod sources;
