#![expect(clippy::unwrap_used, reason = "a test")]
//! The gateway of remote functions as a process: started, called from the command line, killed, and
//! started again.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use ed25519_consensus::SigningKey;
use r3mes_functions::{
    client::{Client, ClientConfig},
    node::{self, Invocation, Node, NodeConfig, NodeError},
    registry::FunctionInfo,
    wire::messages::CallHead,
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for anything that should happen; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway in a process of its own, killed when it is dropped.
struct Gateway {
    child: Child,
    address: String,
    /// Whom those who come trust.
    ca: Option<PathBuf>,
}

/// The files of an authority, as `r3mes functions ca` tells of them.
struct Certificate {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// Runs `r3mes functions ca` with these words.
    fn make(words: &[&str]) -> Result<Self, String> {
        let output = r3mes(&[&["--json", "functions", "ca"], words].concat());
        if !output.status.success() {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        let path = |name: &str| PathBuf::from(shown[name].as_str().unwrap());
        Ok(Self {
            ca: path("ca"),
            certificate: path("certificate"),
            key: path("key"),
        })
    }
}

fn r3mes(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_r3mes"));
    command.args(words).output().unwrap()
}

impl Gateway {
    fn start(home: &Path) -> Self {
        Self::start_with(home, None)
    }

    fn start_with(home: &Path, tls: Option<&Certificate>) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let mut command = Command::new(env!("CARGO_BIN_EXE_r3mes"));
        command
            .args(["functions", "serve", "--listen", &address, "--home"])
            .arg(home);
        if let Some(tls) = tls {
            command.arg("--tls-certificate").arg(&tls.certificate);
            command.arg("--tls-key").arg(&tls.key);
        }
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            address: match tls {
                Some(_) => format!("tls://{address}"),
                None => address,
            },
            ca: tls.map(|tls| tls.ca.clone()),
        }
    }

    fn run(&self, home: &Path, token: Option<&str>, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_r3mes"));
        command
            .args(["--json", "functions"])
            .args(words)
            .arg("--home")
            .arg(home)
            .env("R3MES_GATEWAY", &self.address)
            .env_remove("R3MES_FUNCTIONS_TOKEN")
            .env_remove("R3MES_FUNCTIONS_CA");
        if let Some(ca) = &self.ca {
            command.env("R3MES_FUNCTIONS_CA", ca);
        }
        if let Some(token) = token {
            command.env("R3MES_FUNCTIONS_TOKEN", token);
        }
        command.output().unwrap()
    }

    fn json(&self, home: &Path, words: &[&str]) -> Value {
        let output = self.run(home, None, words);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node with an echo for everybody and one for a team.
fn offer(gateway: &Gateway, key: u8) -> JoinHandle<Result<(), NodeError>> {
    let mut node = Node::new(NodeConfig {
        broker: gateway.address.clone(),
        id: "lab".into(),
        key: SigningKey::from([key; 32]),
        token: None,
        ca: gateway.ca.clone(),
        capabilities: Default::default(),
        max_concurrent: 4,
        resources: BTreeMap::new(),
    });
    let guarded = FunctionInfo {
        access: "team".parse().unwrap(),
        ..FunctionInfo::new("guarded")
    };
    for info in [FunctionInfo::new("echo"), guarded] {
        node.register(info, |call| node::answer(call, async |bytes| Ok(bytes)))
            .unwrap();
    }
    tokio::spawn(node.run(CancellationToken::new()))
}

/// Offers `mirror`, which sends back every item as it comes.
fn offer_mirror(gateway: &Gateway) -> JoinHandle<Result<(), NodeError>> {
    let mut node = Node::new(NodeConfig {
        broker: gateway.address.clone(),
        id: "mirror".into(),
        key: SigningKey::from([9; 32]),
        token: None,
        ca: None,
        capabilities: Default::default(),
        max_concurrent: 4,
        resources: BTreeMap::new(),
    });
    let mirror = |mut call: Invocation| async move {
        while let Some(item) = call.input.item().await {
            if call.output.item(item).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    node.register(FunctionInfo::new("mirror"), mirror).unwrap();
    tokio::spawn(node.run(CancellationToken::new()))
}

/// Most bytes of memory that a process has had at once since it began.
fn peak_bytes(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<u64>().unwrap() << 10
}

/// Tries until it succeeds.
async fn until(what: &str, mut good: impl FnMut() -> bool) {
    let trying = async {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        loop {
            pace.tick().await;
            if good() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, trying)
        .await
        .unwrap_or_else(|_| panic!("it did not come to this: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_used_from_the_command_line_and_keeps_what_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let gateway = Gateway::start(home);
    let _node = offer(&gateway, 1);
    let said = |words: &[&str], token: Option<&str>| {
        let output = gateway.run(home, token, words);
        let text = match output.status.success() {
            true => output.stdout,
            false => output.stderr,
        };
        String::from_utf8(text).unwrap()
    };
    until("the node's functions are listed", || {
        said(&["list"], None).contains("echo")
    })
    .await;
    let nodes = gateway.json(home, &["nodes"]);
    assert_eq!(nodes[0]["id"], "lab", "{nodes}");
    // An echo returns its arguments as they are carried.
    let answer = gateway.json(home, &["call", "lab.echo", "[1, 2]"]);
    assert_eq!(answer, serde_json::json!([[1, 2], {}]));
    let denied = said(&["call", "guarded"], None);
    assert!(denied.contains("team"), "{denied}");
    let made = gateway.json(home, &["token", "create", "alice", "--groups", "team"]);
    let token = made["token"].as_str().unwrap();
    let kept = std::fs::read_to_string(home.join("data/functions/tokens.json")).unwrap();
    assert!(!kept.contains(token), "tokens are kept as hashes");
    until("the token is known", || {
        said(&["call", "guarded"], Some(token)).contains("[]")
    })
    .await;
    let listed = gateway.json(home, &["token", "list"]);
    assert_eq!(listed[0]["user"], "alice", "{listed}");
    gateway.json(home, &["token", "revoke", "alice"]);
    until("the token is revoked", || {
        said(&["call", "guarded"], Some(token)).contains("revoked")
    })
    .await;
    drop(gateway);

    let again = Gateway::start(home);
    until("the gateway answers again", || {
        again.run(home, None, &["list"]).status.success()
    })
    .await;
    let thief = tokio::time::timeout(PATIENCE, offer(&again, 2)).await;
    let refusal = thief.unwrap().unwrap().unwrap_err().to_string();
    assert!(refusal.contains("another key"), "{refusal}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_passes_through_a_gateway_that_never_has_64_mib() {
    const ITEM_BYTES: usize = 1 << 20;
    const ITEMS: usize = 1000;
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path());
    let _node = offer_mirror(&gateway);
    until("the node's function is listed", || {
        let listed = gateway.run(folder.path(), None, &["list"]);
        String::from_utf8_lossy(&listed.stdout).contains("mirror")
    })
    .await;
    let config = ClientConfig {
        broker: gateway.address.clone(),
        token: None,
        ca: None,
    };
    let client = Client::connect(&config).await.unwrap();
    let (upload, mut reply) = client.open(&CallHead::new("mirror")).await.unwrap();
    let item: Vec<u8> = (0..ITEM_BYTES).map(|at| at as u8).collect();
    let sent = item.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..ITEMS {
            upload.item(sent.clone()).await.unwrap();
        }
        upload.end().await.unwrap();
    });
    let mut items = 0;
    while let Some(back) = reply.item().await.unwrap() {
        assert!(back == item, "item {items} is another one");
        items += 1;
    }
    sending.await.unwrap();
    assert_eq!(items, ITEMS);
    let peak = peak_bytes(&gateway.child);
    assert!(peak < 64 << 20, "the gateway had {peak} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_speaks_tls_with_a_certificate_of_its_owners_authority() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let dir = home.join("ca").display().to_string();
    let first = Certificate::make(&["create", &dir, "--host", "gateway.example.com"]).unwrap();
    let mode = first.key.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Certificate::make(&["create", &dir]).err().unwrap();
    assert!(again.contains("is there already"), "{again}");
    let wrong = Certificate::make(&["issue", &dir, "more", "--host", "no host"]);
    let wrong = wrong.err().unwrap();
    assert!(wrong.contains("no host"), "{wrong}");
    let tls = Certificate::make(&["issue", &dir, "second", "--days", "1"]).unwrap();
    assert_eq!(tls.ca, first.ca);
    let certificate = tls.certificate.display().to_string();
    let half = r3mes(&["functions", "serve", "--tls-certificate", &certificate]);
    let words = String::from_utf8(half.stderr).unwrap();
    assert!(words.contains("--tls-key"), "{words}");
    let mixed = [
        "functions",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--home",
        home.to_str().unwrap(),
        "--tls-certificate",
        &certificate,
        "--tls-key",
        first.key.to_str().unwrap(),
    ];
    let words = String::from_utf8(r3mes(&mixed).stderr).unwrap();
    assert!(words.contains("is not that of the certificate"), "{words}");

    let mut gateway = Gateway::start_with(home, Some(&tls));
    let _node = offer(&gateway, 1);
    until("the node's functions are listed", || {
        let output = gateway.run(home, None, &["list"]);
        String::from_utf8(output.stdout).unwrap().contains("echo")
    })
    .await;
    let answer = gateway.json(home, &["call", "lab.echo", "[1, 2]"]);
    assert_eq!(answer, serde_json::json!([[1, 2], {}]));
    gateway.ca = None;
    let untrusted = gateway.run(home, None, &["list"]);
    let words = String::from_utf8(untrusted.stderr).unwrap();
    assert!(words.contains("R3MES_FUNCTIONS_CA"), "{words}");
    let dir = home.join("other").display().to_string();
    let other = Certificate::make(&["create", &dir]).unwrap();
    std::fs::copy(&other.certificate, &tls.certificate).unwrap();
    std::fs::copy(&other.key, &tls.key).unwrap();
    gateway.ca = Some(other.ca);
    until("the new certificate is shown", || {
        gateway.run(home, None, &["list"]).status.success()
    })
    .await;
    gateway.address = gateway.address.replace("tls://", "");
    let plain = gateway.run(home, None, &["list"]);
    let words = String::from_utf8(plain.stderr).unwrap();
    assert!(words.contains("tls://HOST:PORT"), "{words}");
}
