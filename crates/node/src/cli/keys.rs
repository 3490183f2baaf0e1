//! `r3mes keys`

use std::{collections::BTreeMap, io::Read};

use anyhow::Context;

use super::{
    args::{Keys, KeysCommand},
    output::Output,
};
use crate::{home::Home, keyring::Keyring, services};

/// Most bytes of words that are read.
const MAX_PHRASE_BYTES: u64 = 4096;

pub(super) fn run(home: &Home, typed: &Keys, out: &Output) -> anyhow::Result<()> {
    let keyring = Keyring::new(home);
    match typed.command {
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
    }
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
