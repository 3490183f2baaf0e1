//! `r3mes functions ca`

use std::{path::Path, time::Duration};

use anyhow::Context;
use r3mes_functions::tls::{Authority, Issued};
use serde_json::json;

use super::{super::args::CaCommand, DAY_S, Output};
use crate::cli::args::ForServer;

/// What the certificate that comes with an authority is called.
const SERVER: &str = "server";
/// By these a gateway is reached from its own machine.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

pub(super) fn run(typed: &CaCommand, out: &Output) -> anyhow::Result<()> {
    match typed {
        CaCommand::Create { dir, server } => {
            let authority = Authority::create(dir)?;
            issue(&authority, SERVER, server, out).with_context(|| {
                format!(
                    "the authority is made, and its first certificate is not; once that is mended: \
                     r3mes functions ca issue {} NAME",
                    dir.display()
                )
            })
        }
        CaCommand::Issue { dir, name, server } => {
            anyhow::ensure!(
                is_file_name(name),
                "{name:?} cannot name the files: use letters, digits, '-' and '_', and not ca"
            );
            issue(&Authority::open(dir)?, name, server, out)
        }
    }
}

fn is_file_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !name.is_empty() && name.bytes().all(word) && name != "ca"
}

fn issue(
    authority: &Authority,
    name: &str,
    server: &ForServer,
    out: &Output,
) -> anyhow::Result<()> {
    let mut hosts = server.hosts.clone();
    for local in LOCAL {
        if !hosts.iter().any(|host| host == local) {
            hosts.push(local.to_owned());
        }
    }
    let life = Duration::from_secs(u64::from(server.days) * DAY_S);
    let issued = authority.issue(name, &hosts, life)?;
    let ca = authority.certificate();
    let shown = json!({
        "ca": ca, "certificate": issued.certificate, "key": issued.key, "hosts": hosts, "days": server.days,
    });
    out.show(&shown, || next(&ca, &issued, &hosts))
}

/// What to do with the files.
fn next(ca: &Path, issued: &Issued, hosts: &[String]) -> String {
    let Issued { certificate, key } = issued;
    let (ca, certificate, key) = (ca.display(), certificate.display(), key.display());
    let host = hosts.first().map_or("HOST", String::as_str);
    format!(
        "A certificate for {}.\n\
         On the gateway:\n  \
           r3mes functions serve --listen 0.0.0.0:8080 --tls-certificate {certificate} --tls-key {key}\n\
         Give nodes and clients a copy of {ca}, and nothing else. There:\n  \
           export R3MES_FUNCTIONS_CA=ca.pem R3MES_GATEWAY=tls://{host}:8080\n  \
           r3mes functions list\n\
         Over HTTP:\n  \
           curl --cacert ca.pem https://{host}:8080/api/functions",
        hosts.join(", ")
    )
}
