//! The surfaces over real sockets.

#[cfg(test)]
mod gateway {
    mod ipfs;
    mod support;
}
