//! The key that a node's id belongs to.

use std::path::Path;

use ed25519_consensus::SigningKey;

/// Reads a node's key from a file, or makes one there that only the owner can read.
///
/// # Errors
/// When the file cannot be read or written, or holds something else.
pub fn key_file(path: &Path) -> std::io::Result<SigningKey> {
    use std::{fs, io, os::unix::fs::OpenOptionsExt};
    let other = || {
        let words = format!("{} does not hold 64 hexadecimal digits", path.display());
        io::Error::new(io::ErrorKind::InvalidData, words)
    };
    let mut secret = [0; 32];
    match fs::read_to_string(path) {
        Ok(text) => hex::decode_to_slice(text.trim(), &mut secret).map_err(|_| other())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            io::Write::write_all(&mut file, hex::encode(secret).as_bytes())?;
            file.sync_all()?;
        }
        Err(error) => return Err(error),
    }
    Ok(SigningKey::from(secret))
}
