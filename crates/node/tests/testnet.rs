//! Networks under the real CometBFT, each part a process of its own, as a person starts them.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest that anything may take; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often files and answers are looked at.
const POLL: Duration = Duration::from_millis(50);

/// A program, or `None` if its tests are to be left out. Without it they fail.
fn program(name: &str) -> Option<PathBuf> {
    let skip = format!("R3MES_SKIP_{}", name.to_uppercase());
    if std::env::var_os(&skip).is_some_and(|skip| !skip.is_empty()) {
        eprintln!("left out, because {skip} is set");
        return None;
    }
    let folder = std::env::var_os("R3MES_PROGRAMS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.programs/bin"),
        PathBuf::from,
    );
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is missing: build it with tools/programs {name}, or leave its tests out with {skip}=1",
        program.display()
    );
    Some(program)
}

/// The program, with its answers as JSON.
fn without_home() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_r3mes"));
    command.arg("--json");
    command
}

fn r3mes(home: &Path) -> Command {
    let mut command = without_home();
    command.arg("--home").arg(home);
    command
}

/// What a command prints as JSON.
fn json(command: &mut Command) -> Value {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the command starts");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).expect("the command prints JSON")
}

/// Asks until the answer is as wanted.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(POLL);
    }
}

/// A `r3mes start` that is stopped when it is dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself, which the test has seen then.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn start(home: &Path, args: &[&str]) -> Started {
    let child = r3mes(home)
        .arg("start")
        .args(args)
        .stdout(Stdio::null())
        .spawn();
    Started(child.expect("r3mes starts"))
}

/// What `r3mes status` says once `wanted` holds.
fn status(home: &Path, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(what, || {
        let status = json(r3mes(home).arg("status"));
        wanted(&status).then_some(status)
    })
}

fn height(status: &Value) -> u64 {
    status["network"]["height"].as_u64().unwrap_or_default()
}

/// What an RPC answers.
fn get(port: u16, method: &str) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the RPC listens");
    write!(stream, "GET /{method} HTTP/1.0\r\n\r\n").expect("it takes the request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a body");
    serde_json::from_str(body).expect("the body is JSON")
}

/// A configuration without the services of the Cosmos SDK: homes of one machine would want the same ports.
fn without_cosmos(config: &str) -> String {
    let config = config.replace("grpc_listen: 127.0.0.1:9090", "grpc_listen: null");
    config.replace("rest_listen: 127.0.0.1:1317", "rest_listen: null")
}

/// Gives a home ports of its own.
fn set_ports(home: &Path, ports: &[(&str, u16)]) {
    let file = home.join("config.yaml");
    let config = fs::read_to_string(&file).expect("the configuration is there");
    let mut config = without_cosmos(&config);
    for (default, port) in ports {
        config = config.replace(default, &format!("127.0.0.1:{port}"));
    }
    fs::write(&file, config).expect("the configuration can be written");
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [_; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("it has an address").port())
}

#[test]
fn four_validators_agree_close_a_round_and_take_back_one_that_was_killed() {
    if program("cometbft").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("net");
    let mut check = without_home();
    check.args(["testnet", "--validators", "4", "--check", "--port", "0"]);
    check.args(["--block-interval-ms", "200", "--rounds", "2", "--dir"]);
    let checks = json(check.arg(&dir));
    let checks = checks.as_array().expect("a list of checks");
    assert_eq!(checks.len(), 3, "{checks:?}");
    assert!(
        checks.iter().all(|check| check["holds"] == true),
        "{checks:?}"
    );

    // The same network again, in which one validator cannot listen where the others reach it.
    let config = fs::read_to_string(dir.join("node-4/config.yaml")).expect("it is there");
    let taken = config.split("rpc_listen: ").nth(1).expect("it listens");
    let taken = taken.lines().next().expect("an address");
    let held = TcpListener::bind(taken).expect("it is free again");
    let refused = check.output().expect("it starts");
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{why}");
    for said in [
        "node-4/ledger ended 5 times",
        taken,
        "services.ledger.rpc_listen",
        "*/logs",
    ] {
        assert!(why.contains(said), "{said}: {why}");
    }
    assert!(
        refused.stdout.is_empty(),
        "nothing was checked: {refused:?}"
    );
    for node in 1..=3 {
        let status = json(r3mes(&dir.join(format!("node-{node}"))).arg("status"));
        assert_eq!(status["running"], false, "{status}");
    }

    // Once more, with a validator that signs nothing: it holds that it signed later blocks. Nothing can
    // be signed then without the one that is killed.
    drop(held);
    let signed = dir.join("node-3/data/cometbft/data/priv_validator_state.json");
    let later = r#"{"height":"1000000000","round":0,"step":3}"#;
    fs::write(signed, later).expect("it can be written");
    let refused = check.args(["--within", "15"]).output().expect("it starts");
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{why}");
    let name = "blocks go on while a validator is killed, and it comes back to them";
    assert!(why.contains(&format!("does not hold: {name}")), "{why}");
    let checks: Value = serde_json::from_slice(&refused.stdout).expect("the checks are told");
    let (killed, round) = (&checks[0], &checks[1]);
    assert_eq!(killed["holds"], false, "{checks}");
    let found = killed["found"].as_str().expect("a text");
    for said in [
        "the others made no 3 blocks without node-4",
        "two thirds of the power",
        "after 15 s",
    ] {
        assert!(found.contains(said), "{said}: {found}");
    }
    assert_eq!(round["holds"], true, "{checks}");
}

#[test]
fn a_node_under_cometbft_outlives_kills_serves_roles_elsewhere_and_others_join_it() {
    let Some(program) = program("cometbft") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = folder.path().join("node");
    let made = json(r3mes(&home).args(["init", "--engine", "cometbft", "--roles", "validator"]));
    let [rpc, blobs, p2p, api, validator, miner] = free_ports();
    set_ports(
        &home,
        &[
            ("127.0.0.1:26657", rpc),
            ("127.0.0.1:26656", p2p),
            ("127.0.0.1:8090", blobs),
            ("127.0.0.1:8000", api),
            ("127.0.0.1:8093", validator),
        ],
    );
    let config = fs::read_to_string(home.join("config.yaml")).expect("it is there");
    let with_interval = config.replace(
        "engine: cometbft",
        "engine: cometbft\n    block_interval_ms: 100",
    );
    fs::write(home.join("config.yaml"), with_interval).expect("it can be written");
    let mut node = start(&home, &[]);
    let ready = |status: &Value| {
        let services = status["services"].as_object();
        services
            .is_some_and(|all| all.len() == 4 && all.values().all(|one| one["phase"] == "ready"))
    };
    let before = status(&home, "everything is ready", ready);

    for label in ["cometbft", "ledger"] {
        let pid = before["services"][label]["pid"].as_i64().expect("it runs");
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), Signal::KILL).expect("it runs");
        let again = |status: &Value| {
            ready(status) && status["services"][label]["restarts"].as_u64() >= Some(1)
        };
        let at = height(&status(&home, "it is started again", again));
        status(&home, "blocks go on", |status| height(status) > at + 1);
    }

    // A machine without a ledger: nothing but a role, and the address of this one.
    let url = format!("http://127.0.0.1:{rpc}");
    let away = folder.path().join("miner");
    let account = json(r3mes(&away).args(["init", "--roles", "miner", "--join", &url]));
    set_ports(&away, &[("127.0.0.1:8091", miner)]);
    let address = account["address"].as_str().expect("it has an account");
    assert_ne!(account["address"], made["address"]);
    json(r3mes(&home).args(["tx", "send", address, "50000000uremes"]));
    let role = start(&away, &["--roles", "miner", "--chain", &url[7..]]);
    status(&away, "the miner is ready", |status| {
        status["services"]["miner"]["phase"] == "ready" && status["services"]["ledger"].is_null()
    });
    let registered = json(r3mes(&home).args(["query", "node", address]));
    assert!(registered.to_string().contains("miner"), "{registered}");
    drop(role);

    // A third one, with a ledger of its own, becomes a validator. All it needs is its stake.
    let founder_p2p = p2p;
    let join = ["init", "--engine", "cometbft", "--join", &url];
    let second = folder.path().join("second");
    let account = json(r3mes(&second).args(join).args(["--roles", "validator"]));
    let [second_rpc, blobs, p2p, validator] = free_ports();
    let config = fs::read_to_string(second.join("config.yaml")).expect("it is there");
    let config = without_cosmos(&config);
    let own_ports = [
        (
            "http://127.0.0.1:26657",
            format!("http://127.0.0.1:{second_rpc}"),
        ),
        (
            "rpc_listen: 127.0.0.1:26657",
            format!("rpc_listen: 127.0.0.1:{second_rpc}"),
        ),
        (
            "p2p_listen: 127.0.0.1:26656",
            format!("p2p_listen: 127.0.0.1:{p2p}"),
        ),
        (
            "    blobs_listen: 127.0.0.1:8090",
            format!("    blobs_listen: 127.0.0.1:{blobs}"),
        ),
        ("127.0.0.1:8093", format!("127.0.0.1:{validator}")),
        (
            "engine: cometbft",
            "engine: cometbft\n    block_interval_ms: 100".to_owned(),
        ),
    ];
    let config = own_ports
        .iter()
        .fold(config, |config, (usual, own)| config.replace(usual, own));
    fs::write(second.join("config.yaml"), config).expect("it can be written");
    let address = account["address"].as_str().expect("it has an account");
    json(r3mes(&home).args(["tx", "send", address, "200000000uremes"]));
    let joined = start(&second, &[]);
    status(&second, "it plays its role", |status| {
        status["services"]["validator"]["phase"] == "ready"
    });
    until("both sign blocks", || {
        let answer = get(second_rpc, "validators");
        (answer["result"]["total"] == "2").then_some(())
    });

    // A fourth one is to begin with a snapshot, of which two nodes must say the same.
    let late = folder.path().join("late");
    let alone = r3mes(&late)
        .args(join)
        .args(["--witness", &url])
        .output()
        .expect("it starts");
    let why = String::from_utf8_lossy(&alone.stderr);
    assert!(why.contains("named twice"), "{why}");
    let late = folder.path().join("later");
    let witness = format!("http://127.0.0.1:{second_rpc}");
    json(r3mes(&late).args(join).args(["--witness", &witness]));
    let config = fs::read_to_string(late.join("config.yaml")).expect("it is there");
    let peer = json(r3mes(&home).args(["keys", "show"]));
    let peer = peer["peer"].as_str().expect("it has an ID");
    let peer = format!("{peer}@127.0.0.1:{founder_p2p}");
    for named in [&peer, "trust_hash: ", &witness] {
        assert!(config.contains(named), "{named} is not in {config}");
    }

    // The founder, who has more than two thirds of the power, goes on alone.
    drop(joined);
    let last = height(&json(r3mes(&home).arg("status")));

    // The chain goes on only under the engine that has its blocks.
    let pid = i32::try_from(node.0.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), Signal::TERM).expect("it runs");
    node.0.wait().expect("it ends");
    let refused = r3mes(&home)
        .args(["start", "--engine", "local"])
        .output()
        .expect("it starts");
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && why.contains("runs under engine cometbft"),
        "{why}"
    );

    // It goes on with a CometBFT that somebody else starts.
    let [abci, comet_rpc] = free_ports();
    let attach = format!(
        "    cometbft:\n      attach: {{abci: 'tcp://127.0.0.1:{abci}', rpc: 'http://127.0.0.1:{comet_rpc}'}}\n"
    );
    let config = fs::read_to_string(home.join("config.yaml")).expect("it is there");
    let ledger = config.replace("    cometbft:\n", &attach);
    assert_ne!(ledger, config);
    fs::write(home.join("config.yaml"), ledger).expect("it can be written");
    let _node = start(&home, &["--services", "node"]);
    let files = home.join("data/cometbft");
    until("CometBFT's files are written for it", || {
        let written = fs::read_to_string(files.join("config/config.toml")).ok()?;
        written
            .contains(&format!("tcp://127.0.0.1:{comet_rpc}"))
            .then_some(())
    });
    let comet = Command::new(program)
        .args(["start", "--home"])
        .arg(&files)
        .stdout(Stdio::null())
        .spawn();
    let _comet = Started(comet.expect("CometBFT starts"));
    let attached = status(&home, "blocks go on", |status| {
        status["network_error"].is_null() && height(status) > last + 1
    });
    let services = attached["services"].as_object().expect("what runs");
    assert_eq!(services.keys().collect::<Vec<_>>(), ["ledger"]);
}

#[test]
fn homes_for_several_machines_name_each_other() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (hosts, dir) = (folder.path().join("hosts"), folder.path().join("net"));
    fs::write(&hosts, "10.0.0.1\nb.example\n").expect("it can be written");
    let mut make = without_home();
    make.arg("testnet").arg("--hosts").arg(&hosts);
    make.arg("--dir").arg(&dir);
    let homes = json(&mut make);
    assert_eq!(homes.as_array().map(Vec::len), Some(2), "{homes}");
    let read = |host: &str, file: &str| {
        fs::read_to_string(dir.join(host).join(file)).expect("the file is there")
    };
    for (host, other) in [("10.0.0.1", "b.example"), ("b.example", "10.0.0.1")] {
        let peer = json(r3mes(&dir.join(other)).args(["keys", "show"]));
        let id = peer["peer"].as_str().expect("it has an ID");
        let config = read(host, "config.yaml");
        for named in [
            format!("{id}@{other}:26656"),
            format!("external_address: {host}:26656"),
            format!("http://{other}:8090"),
        ] {
            assert!(config.contains(&named), "{named} is not in {config}");
        }
    }
    let genesis = |host: &str| fs::read(dir.join(host).join("genesis.pb")).expect("a genesis");
    assert_eq!(genesis("10.0.0.1"), genesis("b.example"));
    // A second time nothing is replaced.
    let again = make.output().expect("the command starts");
    assert!(!again.status.success());
}

#[test]
fn with_tmkms_the_home_holds_no_key_and_nothing_is_signed_while_it_is_away() {
    let (Some(_), Some(tmkms)) = (program("cometbft"), program("tmkms")) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (home, vault) = (folder.path().join("node"), folder.path().join("vault"));
    json(r3mes(&home).args(["init", "--engine", "cometbft", "--roles", "validator"]));
    let [rpc, blobs, p2p] = free_ports();
    set_ports(
        &home,
        &[
            ("127.0.0.1:26657", rpc),
            ("127.0.0.1:26656", p2p),
            ("127.0.0.1:8090", blobs),
        ],
    );
    let config = fs::read_to_string(home.join("config.yaml")).expect("it is there");
    let with_interval = config.replace(
        "engine: cometbft",
        "engine: cometbft\n    block_interval_ms: 100",
    );
    fs::write(home.join("config.yaml"), with_interval).expect("it can be written");
    let node = start(&home, &["--services", "node"]);
    let before = height(&status(&home, "blocks come", |status| height(status) > 2));
    drop(node);

    let secret = fs::read_to_string(home.join("keys/consensus.key")).expect("it is still here");
    let secret = hex::decode(secret.trim()).expect("a seed in hexadecimal digits");
    let base64 = fs::read_to_string(home.join("data/cometbft/config/priv_validator_key.json"));
    let base64: Value = serde_json::from_str(&base64.expect("it is still here")).expect("JSON");
    let base64 = base64["priv_key"]["value"].as_str().expect("a key")[..40].to_owned();
    json(r3mes(&home).args(["keys", "tmkms", "--dir"]).arg(&vault));
    let (earlier, said) = (
        folder.path().join("earlier"),
        folder.path().join("tmkms.log"),
    );
    copy(&home, &earlier);
    let node = start(&home, &["--services", "node"]);
    let signer = || {
        let log = fs::File::create(&said).expect("it can be written");
        let mut command = Command::new(&tmkms);
        command.arg("start").arg("-c").arg(vault.join("tmkms.toml"));
        Started(command.stdout(log).spawn().expect("tmkms starts"))
    };
    // The height, round and step that it signed last.
    let signed = || {
        let state = fs::read_to_string(vault.join("state.json")).expect("it is there");
        let state: Value = serde_json::from_str(&state).expect("JSON");
        let number = |name: &str| match &state[name] {
            Value::String(text) => text.parse().expect("a number"),
            number => number.as_u64().expect("a number"),
        };
        (number("height"), number("round"), number("step"))
    };
    let mut kms = signer();
    let at = status(&home, "tmkms signs", |status| height(status) > before + 2);
    kms.0.kill().expect("it runs");
    kms.0.wait().expect("it ends");
    // CometBFT looks for it in vain, once and again, and has no new block meanwhile.
    let alone = |failures: &str| {
        until("CometBFT waits for tmkms", || {
            let log = fs::read_to_string(home.join("logs/cometbft.log")).ok()?;
            log.contains(failures).then_some(())
        });
        height(&json(r3mes(&home).arg("status")))
    };
    let last = signed();
    assert!(last.0 >= height(&at), "{last:?} {at}");
    assert_eq!(alone("failures=1"), alone("failures=2"));
    assert_eq!(signed(), last);
    let kms = signer();
    status(&home, "it signs again", |status| {
        height(status) > height(&at) + 3
    });
    // It went on from its own record, which a kill leaves whole.
    assert!(signed() > last, "{last:?} {:?}", signed());
    for file in files(&home) {
        let bytes = fs::read(&file).unwrap_or_default();
        let holds = |secret: &[u8]| bytes.windows(secret.len()).any(|part| part == secret);
        let hexadecimal = hex::encode(&secret);
        let found = holds(&secret) || holds(hexadecimal.as_bytes()) || holds(base64.as_bytes());
        assert!(!found, "{} holds the consensus key", file.display());
    }
    drop(node);

    // The node from before it signed all that asks for other blocks of the same heights. Killed and
    // started again, it refuses.
    let mut kms = kms;
    kms.0.kill().expect("it runs");
    kms.0.wait().expect("it ends");
    let last = signed();
    fs::rename(&home, folder.path().join("later")).expect("it can be moved");
    fs::rename(&earlier, &home).expect("it can be moved");
    let _node = start(&home, &["--services", "node"]);
    let _kms = signer();
    until("tmkms refuses", || {
        let said = fs::read_to_string(&said).ok()?;
        said.contains("regression").then_some(())
    });
    assert_eq!(signed(), last);
}

/// Copies a folder, as it is while nothing runs in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("it can be made");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        let (kind, to) = (entry.file_type(), to.join(entry.file_name()));
        match kind.expect("it has a kind") {
            kind if kind.is_dir() => copy(&entry.path(), &to),
            kind if kind.is_file() => drop(fs::copy(entry.path(), &to).expect("it can be copied")),
            // Sockets are made anew.
            _ => (),
        }
    }
}

/// All files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}
