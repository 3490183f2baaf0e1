//! The stores, files and CARs through the public interface.

#[cfg(test)]
mod blobs {
    mod car;
    mod disk;
    mod files;
    mod foreign;
    mod processes;
    mod stores;
    pub(crate) mod support;
}
