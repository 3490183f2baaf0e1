//! The surfaces over real sockets.

#[cfg(test)]
mod gateway {
    mod conditions;
    mod conformance;
    mod cosmos;
    mod events;
    mod flight;
    mod foreign;
    mod helia;
    mod ipfs;
    mod kubo;
    mod light;
    mod light_client;
    mod likeness;
    mod logs;
    mod network;
    mod openai;
    mod outside;
    mod parrot;
    mod python;
    mod reflection;
    mod relay;
    mod rpc;
    mod socket;
    mod support;
    mod swaps;
    mod trustless;
}
