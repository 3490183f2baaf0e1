//! Drives the ledger through one Application trait; engine local; blocks, mempool, light-client commits.
