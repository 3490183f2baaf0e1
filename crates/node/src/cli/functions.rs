//! `r3mes functions`

mod ca;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use r3mes_functions::{
    client::{Client, ClientConfig, ConnectError},
    registry::is_node_id,
    tokens::{Secret, Token},
    wire::messages::CallHead,
};
use r3mes_functions_http::{Origins, arguments_of, value_of};
use r3mes_types::Amount;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    args::{At, Call, Functions, FunctionsCommand, Overrides, Serve, TokenCommand},
    output::Output,
};
use crate::{
    config::{self, Config, Nats, Tls},
    home::Home,
    services::functions::{self, Kept},
    telemetry,
};

/// Holds the token that commands come with, so that it stands in no list of processes.
const TOKEN: &str = "R3MES_FUNCTIONS_TOKEN";
const DAY_S: u64 = 24 * 3600;
/// Digits of a hash that name a token.
const DIGITS: usize = 8;

pub(super) fn run(
    home: &Home,
    typed: &Functions,
    overrides: &Overrides,
    out: &Output,
) -> anyhow::Result<()> {
    match &typed.command {
        FunctionsCommand::Serve(typed) => serve(home, typed, overrides, out),
        FunctionsCommand::Token(typed) => tokens(home, &typed.command, out),
        FunctionsCommand::Ca(typed) => ca::run(&typed.command, out),
        FunctionsCommand::Nodes(at) => ask(home, at, overrides, |client| nodes(client, out)),
        FunctionsCommand::List(at) => ask(home, at, overrides, |client| list(client, out)),
        FunctionsCommand::Call(typed) => ask(home, &typed.at, overrides, |client| {
            call(client, typed, out)
        }),
    }
}

fn serve(home: &Home, typed: &Serve, overrides: &Overrides, out: &Output) -> anyhow::Result<()> {
    let mut config = super::load_or_default(home, overrides)?;
    let mut settings = config.services.functions.take().unwrap_or_default();
    settings.listen = typed.listen.unwrap_or(settings.listen);
    settings.token_required |= typed.token_required;
    if let (Some(certificate), Some(key)) = (&typed.tls_certificate, &typed.tls_key) {
        settings.tls = Some(Tls {
            certificate: certificate.clone(),
            key: key.clone(),
        });
    }
    if !typed.webhook_hosts.is_empty() {
        settings.webhook_hosts = Some(typed.webhook_hosts.clone());
    }
    if !typed.cors_origins.is_empty() {
        Origins::listed(&typed.cors_origins)
            .map_err(|error| anyhow::anyhow!("--cors-origins: {error}"))?;
        settings.cors_origins.clone_from(&typed.cors_origins);
    }
    if !typed.nats.is_empty() {
        for url in &typed.nats {
            config::is_nats_url(url, &()).map_err(|e| anyhow::anyhow!("--nats {url}: {e}"))?;
        }
        let nats = settings.nats.get_or_insert_with(Nats::default);
        nats.servers.clone_from(&typed.nats);
        if typed.nats_ca.is_some() {
            nats.ca_file.clone_from(&typed.nats_ca);
        }
    }
    config.services.functions = Some(settings);
    config.log.json |= out.json;
    telemetry::start(&config.log)?;
    super::runtime()?.block_on(async {
        let shutdown = CancellationToken::new();
        super::cancel_on_signal(shutdown.clone())?;
        functions::run(home, &config, shutdown).await
    })
}

fn tokens(home: &Home, typed: &TokenCommand, out: &Output) -> anyhow::Result<()> {
    let kept = Kept::open(home)?;
    let mut tokens = kept.tokens()?;
    match typed {
        TokenCommand::Create { user, groups, days } => {
            let words = "use letters, digits, '-', '_' and '.', at most 64";
            for name in groups.iter().chain([user]) {
                anyhow::ensure!(is_node_id(name), "{name:?} names no user or group: {words}");
            }
            let now = now_s()?;
            let expires_s = days.map(|days| now + u64::from(days) * DAY_S);
            let secret = Secret::new().context("the operating system gives no random bytes")?;
            tokens.push(secret.kept(user, groups.clone(), expires_s));
            kept.set_tokens(&tokens)?;
            let shown = json!({ "token": secret.expose(), "user": user, "groups": groups, "expires_s": expires_s });
            out.show(&shown, || secret.expose().to_owned())
        }
        TokenCommand::List => {
            let now = now_s()?;
            out.show(&tokens, || match tokens.is_empty() {
                true => "no tokens; make one with: r3mes functions token create USER".into(),
                false => tokens.iter().map(|token| line(token, now)).collect(),
            })
        }
        TokenCommand::Revoke { which } => {
            let by_hash = which.len() >= DIGITS;
            let named = |token: &Token| {
                token.user == *which || (by_hash && token.hash.starts_with(which.as_str()))
            };
            let (revoked, left): (Vec<_>, Vec<_>) = tokens.into_iter().partition(named);
            anyhow::ensure!(
                !revoked.is_empty(),
                "no token is {which:?}'s; r3mes functions token list shows them"
            );
            kept.set_tokens(&left)?;
            let now = now_s()?;
            out.show(&revoked, || {
                let lines: String = revoked.iter().map(|token| line(token, now)).collect();
                format!("revoked:\n{lines}")
            })
        }
    }
}

fn now_s() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

fn line(token: &Token, now: u64) -> String {
    let hash = token.hash.get(..DIGITS).unwrap_or(&token.hash);
    let groups = match token.groups.is_empty() {
        true => String::new(),
        false => format!("  groups {}", token.groups.join(", ")),
    };
    let until = match token.expires_s {
        None => String::new(),
        Some(end) if end <= now => "  has expired".into(),
        Some(end) => format!("  ends in {} days", (end - now).div_ceil(DAY_S)),
    };
    format!("{hash}  {}{groups}{until}\n", token.user)
}

/// Connects to a gateway and does something there.
fn ask<F>(
    home: &Home,
    at: &At,
    overrides: &Overrides,
    doing: impl FnOnce(Client) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let config = super::load_or_default(home, overrides)?;
    let settings = ClientConfig {
        broker: at.gateway.clone().unwrap_or_else(|| usual_gateway(&config)),
        token: std::env::var(TOKEN).ok(),
        ca: at.ca.clone(),
    };
    super::runtime()?.block_on(async {
        let client = match Client::connect(&settings).await {
            Ok(client) => client,
            Err(error @ ConnectError::Unreachable { .. }) => {
                return Err(error).context(
                    "name a gateway with --gateway HOST:PORT or R3MES_GATEWAY, or run one: r3mes functions serve",
                );
            }
            Err(error) => return Err(error.into()),
        };
        doing(client).await
    })
}

fn usual_gateway(config: &Config) -> String {
    let settings = config.services.functions.clone().unwrap_or_default();
    let mut address = settings.listen;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    match settings.tls {
        Some(_) => format!("tls://{address}"),
        None => address.to_string(),
    }
}

async fn nodes(client: Client, out: &Output) -> anyhow::Result<()> {
    let nodes = client.nodes().await?;
    out.show(&nodes, || match nodes.is_empty() {
        true => "no node is connected".into(),
        false => nodes
            .iter()
            .map(|node| {
                let busy = format!("{} of {} calls", node.running, node.max_concurrent);
                format!("{}  {busy}  {}\n", node.id, node.functions.join(", "))
            })
            .collect(),
    })
}

async fn list(client: Client, out: &Output) -> anyhow::Result<()> {
    let functions = client.functions().await?;
    out.show(&functions, || match functions.is_empty() {
        true => "no function is offered".into(),
        false => functions
            .iter()
            .map(|view| {
                let summary = view.info.description.lines().next().unwrap_or_default();
                let price = view.info.price.as_ref();
                let price = price.map(|price| format!("{} a call  ", Amount::new(price.uremes)));
                let price = price.unwrap_or_default();
                format!("{}.{}  {price}{summary}\n", view.node, view.info.name)
            })
            .collect(),
    })
}

async fn call(client: Client, typed: &Call, out: &Output) -> anyhow::Result<()> {
    let arguments: Value = serde_json::from_str(&typed.arguments)
        .with_context(|| format!("the arguments are not valid JSON: {}", typed.arguments))?;
    let arguments = arguments_of(arguments).map_err(anyhow::Error::msg)?;
    let (node, function) = match typed.function.rsplit_once('.') {
        Some((node, function)) => (Some(node.to_owned()), function),
        None => (None, typed.function.as_str()),
    };
    let head = CallHead {
        node,
        capability: typed.capability.clone(),
        deadline_ms: typed.timeout.map(|seconds| seconds * 1000),
        max_price: typed.max_price.map(|price| price.uremes()),
        ..CallHead::new(function)
    };
    let mut reply = client.call(&head, arguments).await?;
    loop {
        match reply.item().await {
            Ok(None) => return Ok(()),
            Ok(Some(item)) => {
                let value = value_of(&item).map_err(anyhow::Error::msg)?;
                out.show(&value, || value.to_string())?;
            }
            Err(failure) => {
                if let Some(traceback) = &failure.traceback {
                    eprintln!("{traceback}");
                }
                let kind = failure.exception.as_ref().map(|name| format!("{name}: "));
                anyhow::bail!("{}{failure}", kind.unwrap_or_default());
            }
        }
    }
}
