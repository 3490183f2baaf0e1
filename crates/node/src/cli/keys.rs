//! `r3mes keys`

use std::{collections::BTreeMap, io::Read, path::Path};

use anyhow::Context;

use super::{
    args::{Keys, KeysCommand, Overrides},
    output::Output,
};
use crate::{home::Home, keyring::Keyring, process::HomeLock, services};

/// Most bytes of words that are read.
const MAX_PHRASE_BYTES: u64 = 4096;

pub(super) fn run(
    home: &Home,
    typed: &Keys,
    overrides: &Overrides,
    out: &Output,
) -> anyhow::Result<()> {
    let keyring = Keyring::new(home);
    match &typed.command {
        KeysCommand::Show => show(&keyring, out),
        KeysCommand::Export => {
            let phrase = keyring.phrase()?;
            out.show(&phrase.as_str(), || phrase.to_string())
        }
        KeysCommand::Recover => {
            home.create()?;
            keyring.recover(&read_phrase()?)?;
            show(&keyring, out)
        }
        KeysCommand::Tmkms { dir } => tmkms(home, dir, overrides, out),
    }
}

/// Moves the consensus key while nothing here signs.
fn tmkms(home: &Home, dir: &Path, overrides: &Overrides, out: &Output) -> anyhow::Result<()> {
    let config = super::load(home, overrides)?;
    let _lock = HomeLock::take(home)?;
    services::cometbft::move_key(home, &config, dir)?;
    let file = dir.join("tmkms.toml").display().to_string();
    out.show(&file, || {
        format!("The key is in {0} now, and no more here. Start the node, and beside it: tmkms start -c {file}", dir.display())
    })
}

fn show(keyring: &Keyring, out: &Output) -> anyhow::Result<()> {
    let addresses = keyring.addresses()?;
    let mut named: Vec<(String, String)> = addresses
        .into_iter()
        .map(|(name, address)| (name, address.to_string()))
        .collect();
    named.push(("peer".to_owned(), services::cometbft::node_id(keyring)?));
    let by_name: BTreeMap<_, _> = named.iter().cloned().collect();
    out.show(&by_name, || {
        let lines = named.iter();
        lines
            .map(|(name, id)| format!("{name:10} {id}\n"))
            .collect()
    })
}

/// The 24 words from standard input.
pub(super) fn read_phrase() -> anyhow::Result<zeroize::Zeroizing<String>> {
    let mut phrase = zeroize::Zeroizing::new(String::new());
    std::io::stdin()
        .take(MAX_PHRASE_BYTES)
        .read_to_string(&mut phrase)
        .context("cannot read the 24 words from standard input")?;
    Ok(phrase)
}
