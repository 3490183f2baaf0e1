//! The surfaces over real sockets.

#[cfg(test)]
mod gateway {
    mod ipfs;
    mod network;
    mod openai;
    mod parrot;
    mod python;
    mod rpc;
    mod support;
}
