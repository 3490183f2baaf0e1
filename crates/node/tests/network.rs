//! A real network on this machine, each part in its own process, one of its miners a liar. Every role
//! and service is killed, one or more in each phase of a round; it is started again, the rounds close,
//! the liar alone is excluded, and everybody is paid to the last uremes what the rules say. Then the
//! network is used from the command line: rounds and answers recompute, and every command speaks JSON,
//! or refuses what there is no cause for.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "support/checkpoint.rs"]
mod checkpoint;
#[path = "network/kills.rs"]
mod kills;
#[path = "network/payment.rs"]
mod payment;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use clap::CommandFactory;
use r3mes_gateway::{openai, rpc};
use r3mes_node::{agents::chain, config::Config, home::Home, keyring::Keyring};
use r3mes_types::{Role, nodes::MsgUnjail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// Rounds to run.
const ROUNDS: usize = 2;
/// Longest the rounds may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often the demonstration is looked at.
const POLL: Duration = Duration::from_millis(20);
/// The run that the demonstration begins.
const RUN: u64 = 1;
/// The commands that run until they are stopped, or need that others were: tests of their own run
/// `testnet`, `export`, `query chain-registry`, `functions` and what begins a training run. The
/// demonstration is the network that the others are tested on.
const LASTING: [&str; 17] = [
    "start",
    "demo",
    "testnet",
    "export",
    "query chain-registry",
    "tx model register",
    "tx dataset propose",
    "tx run start",
    "functions serve",
    "functions nodes",
    "functions list",
    "functions call",
    "functions ca create",
    "functions ca issue",
    "functions token create",
    "functions token list",
    "functions token revoke",
];

#[test]
fn a_network_survives_kills_and_answers_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Network::start(folder.path().join("demo"));
    let figures = network.survive();
    assert_only_the_liar_is_excluded(&figures);

    let folder = folder.path();
    let mut commands = Commands::default();
    recompute(&network, &figures, &mut commands);
    pay_and_register(&network, folder, &mut commands);
    ask(&network, &mut commands);
    work_alone(folder, &mut commands);
    commands.are_all();
    network.stop();
}

struct Network {
    dir: PathBuf,
    demo: Child,
    /// The figures, once the rounds are done.
    figures: mpsc::Receiver<Value>,
}

impl Network {
    fn start(dir: PathBuf) -> Self {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_r3mes"))
            .args(["--json", "demo", "--liar", "--keep", "--port", "0"])
            .args(["--rounds", &ROUNDS.to_string(), "--beacon", "5", "--dir"])
            .arg(&dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (sender, figures) = mpsc::channel();
        let stdout = demo.stdout.take().unwrap();
        std::thread::spawn(move || sender.send(first_document(stdout)));
        Self { dir, demo, figures }
    }

    /// Kills in every phase of a round, checks what was paid, and gives the figures of all rounds.
    fn survive(&mut self) -> Value {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            kills::training(self).await;
            let config = Config::load(&Home::new(self.dir.join("network"))).unwrap();
            let ledger = rpc::Client::new(&config.network.rpc).unwrap();
            let ledger = ledger.retry_for(PATIENCE);
            let before = payment::wealth(&ledger).await;
            let figures = kills::kill_in_every_phase(self, &ledger).await;
            payment::check(&ledger, &before).await;
            figures
        })
    }

    /// The demonstration goes on, and not for too long.
    fn assert_running(&mut self, began: Instant, waiting_for: &str) {
        let ended = self.demo.try_wait().unwrap();
        assert!(ended.is_none(), "it ended before {waiting_for}");
        assert!(began.elapsed() < PATIENCE, "no sign of {waiting_for}");
    }

    /// Label to process id of everything that is ready.
    fn running(&self) -> BTreeMap<String, Pid> {
        let Ok(bytes) = fs::read(self.dir.join("network/run/status.json")) else {
            return BTreeMap::new();
        };
        let board: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let services = board.as_object().into_iter().flatten();
        let ready = services.filter(|(_, status)| status["phase"] == "ready");
        ready
            .filter_map(|(label, status)| {
                let pid = i32::try_from(status["pid"].as_i64()?).ok()?;
                Some((label.clone(), Pid::from_raw(pid)?))
            })
            .collect()
    }

    /// How far a miner is: how many states of the round it has stored.
    fn states(&self, miner: &str) -> usize {
        let work = self.dir.join(miner).join("data/miner/work/1-0");
        let names = fs::read_dir(work).into_iter().flatten().flatten();
        names
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("state-"))
            .count()
    }

    fn home(&self, member: &str) -> String {
        self.dir.join(member).display().to_string()
    }

    /// Ctrl-C: the network ends in good order, and nothing of it runs on.
    fn stop(mut self) {
        let running = self.running();
        assert!(running.len() > 8, "{running:?}");
        let demo = Pid::from_child(&self.demo);
        kill_process(demo, Signal::INT).unwrap();
        assert!(self.demo.wait().unwrap().success());
        for (label, pid) in running {
            assert!(test_kill_process(pid).is_err(), "{label} runs on");
        }
        let kept = self.dir.join("network");
        assert!(kept.is_dir(), "--keep did not keep {}", kept.display());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Its children end with it. Already gone when the test passed.
        let _ = self.demo.kill();
        let _ = self.demo.wait();
    }
}

fn first_document(stdout: ChildStdout) -> Value {
    let documents = serde_json::Deserializer::from_reader(stdout).into_iter();
    documents.map(Result::unwrap).next().unwrap()
}

fn assert_only_the_liar_is_excluded(figures: &Value) {
    let rounds = figures["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), ROUNDS);
    for (number, round) in rounds.iter().enumerate() {
        let miners = round["miners"].as_array().unwrap();
        assert_eq!(miners.len(), 4, "{round}");
        for miner in miners {
            let outcome = match (miner["name"].as_str().unwrap(), number) {
                ("liar", 0) => "fraudulent".into(),
                // It is jailed.
                ("liar", _) => Value::Null,
                _ => "accepted".into(),
            };
            assert_eq!(miner["outcome"], outcome, "{round}");
        }
    }
}

/// Commands that have been run, each by its path of names.
#[derive(Default)]
struct Commands {
    run: BTreeSet<String>,
}

impl Commands {
    /// Runs one; its result must be one JSON document.
    fn json(&mut self, home: &str, path: &str, arguments: &[&str]) -> Value {
        self.json_of(&["--home", home], path, arguments, "")
    }

    /// Runs one that needs no home.
    fn json_alone(&mut self, path: &str, arguments: &[&str]) -> Value {
        self.json_of(&[], path, arguments, "")
    }

    /// Runs one that has to fail, and to say why.
    fn refused(&mut self, home: &str, path: &str, arguments: &[&str], why: &str) {
        let words: Vec<&str> = path.split(' ').collect();
        let said = complaint(&[&["--home", home], &words[..], arguments].concat());
        assert!(said.contains(why), "{path}: {said}");
        self.run.insert(path.to_owned());
    }

    fn json_of(&mut self, home: &[&str], path: &str, arguments: &[&str], input: &str) -> Value {
        let mut child = Command::new(env!("CARGO_BIN_EXE_r3mes"))
            .arg("--json")
            .args(home)
            .args(path.split(' '))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{path}: {complaint}");
        self.run.insert(path.to_owned());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{path} did not print one JSON document: {error}"))
    }

    /// Every command of the tree has been run, and explains itself.
    fn are_all(&self) {
        let mut leaves = BTreeSet::new();
        collect(&r3mes_node::cli::Cli::command(), "", &mut leaves);
        let lasting = LASTING.map(str::to_owned);
        let run: BTreeSet<String> = self.run.iter().cloned().chain(lasting).collect();
        assert_eq!(run, leaves);
    }
}

/// Collects the commands that have none below them, and asks each for its help.
fn collect(command: &clap::Command, path: &str, leaves: &mut BTreeSet<String>) {
    let help = Command::new(env!("CARGO_BIN_EXE_r3mes"))
        .args(path.split_whitespace())
        .arg("--help")
        .output()
        .unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success(), "{path}");
    let shown = command.get_arguments().filter(|flag| !flag.is_hide_set());
    for flag in shown.filter_map(clap::Arg::get_long) {
        assert!(text.contains(&format!("--{flag}")), "{path}: {flag}");
    }
    let below: Vec<_> = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .collect();
    for command in &below {
        let name = command.get_name();
        assert!(text.contains(name), "{path}: {name}");
        collect(command, format!("{path} {name}").trim(), leaves);
    }
    if below.is_empty() {
        leaves.insert(path.to_owned());
    }
}

/// What the network claims is computed again: every round, trained anew, and a fresh answer.
fn recompute(network: &Network, figures: &Value, commands: &mut Commands) {
    let home = network.home("network");
    for round in 0..ROUNDS {
        let found = commands.json(&home, "verify round", &[&round.to_string()]);
        assert_eq!(found["packages"], 3, "{found}");
        let uploaded = &figures["rounds"][round]["uploaded_bytes"];
        assert_eq!(&found["package_bytes"], uploaded, "{found}");
    }
    // The first round starts from no error feedback, so that everybody can train it again.
    let replayed = commands.json(&home, "verify round", &["0", "--replay"]);
    assert_eq!(replayed["replayed_miners"], 3, "{replayed}");
    let none = ["--home", &home, "verify", "round", "7"];
    assert!(complaint(&none).contains('7'), "{}", complaint(&none));

    let api = figures["api"].as_str().unwrap();
    let ask = openai::CompletionAsk {
        model: "stories15m-b158-tuned".to_owned(),
        prompt: "The bear".to_owned(),
        max_tokens: 8,
        temperature: 0.8,
        seed: 3,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = openai::Client::new(api).unwrap();
    let receipt = runtime.block_on(client.complete(&ask)).unwrap().receipt;
    let answer = commands.json(&home, "verify answer", &[&receipt, "--api", api]);
    assert_eq!(answer["answer_tokens"], 8, "{answer}");
}

/// A new node comes to the network: money, stake, roles, and away again.
fn pay_and_register(network: &Network, folder: &Path, commands: &mut Commands) {
    let miner = network.home("miner-1");
    let rpc = commands.json(&miner, "status", &[])["network"]["rpc"].clone();
    let home = folder.join("newcomer").display().to_string();
    let arguments = ["--roles", "proposer", "--join", rpc.as_str().unwrap()];
    let with_engine = [&arguments[..], &["--engine", "cometbft"]].concat();
    let elsewhere = folder.join("elsewhere").display().to_string();
    commands.refused(&elsewhere, "init", &with_engine, "has no peers");
    let made = commands.json(&home, "init", &arguments);
    // This network makes no blocks while nothing happens, however long.
    let config = Config::load(&Home::new(&home)).unwrap();
    assert_eq!(config.network.light.unwrap().max_header_age_s, None);
    let address = made["address"].as_str().unwrap();

    let sent = commands.json(&miner, "tx send", &[address, "400000000uremes"]);
    let hash = sent["hash"].as_str().unwrap();
    let found = commands.json(&miner, "query transaction", &[hash]);
    assert_eq!(found["code"], 0, "{found}");
    let account = commands.json(&home, "query account", &[]);
    assert_eq!(account["balance"]["amount"], 400_000_000, "{account}");
    commands.json(&home, "tx register", &["--roles", "proposer"]);
    let node = commands.json(&miner, "query node", &[address]);
    assert_eq!(node["node"]["status"], "active", "{node}");
    act_by_grant(Path::new(&home), commands);
    commands.refused(&home, "tx unjail", &[], "is not jailed");
    commands.refused(&home, "tx appeal", &["9", "not me"], "no slash 9 is of");
    let none = commands.json(&home, "query slashes", &[]);
    assert_eq!(none["slashes"], Value::Array(Vec::new()), "{none}");
    commands.json(&home, "tx faucet", &["5uremes"]);
    set_aside(&miner, &home, address, commands);
    commands.json(&home, "tx leave", &[]);
    let node = commands.json(&home, "query node", &[]);
    assert_eq!(node["node"]["status"], "left", "{node}");
}

/// A role's key has no coins, and sends what its account granted it, which pays; other keys are granted
/// as typed.
fn act_by_grant(home: &Path, commands: &mut Commands) {
    let text = home.display().to_string();
    let remaining = |commands: &mut Commands| {
        let grants = commands.json(&text, "query grants", &[]);
        assert_eq!(grants["grants"].as_array().unwrap().len(), 1, "{grants}");
        grants["grants"][0]["fees"]["remaining"].as_u64().unwrap()
    };
    let granted = remaining(commands);
    let home = Home::new(home);
    let keyring = Keyring::new(&home);
    let client = chain::connect(&home, &Config::load(&home).unwrap()).unwrap();
    let address = keyring.account_address().unwrap();
    let sender = chain::sender(&client, keyring.role(Role::Proposer).unwrap()).paid_by(address);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // A node that is not jailed stays so.
    let sent = runtime.block_on(sender.send(vec![MsgUnjail { address }.into()]));
    assert_eq!(sent.unwrap().code, 0);
    assert!((1..granted).contains(&remaining(commands)));

    let key = keyring.role(Role::Miner).unwrap().address().to_string();
    let leave = "/r3mes.nodes.v1.MsgLeave";
    commands.json(&text, "tx grant messages", &[&key, leave, "--days", "1"]);
    commands.json(&text, "tx grant fees", &[&key, "7uremes"]);
    let grants = commands.json(&text, "query grants", &[]);
    let found = grants["grants"].as_array().unwrap();
    let found = found.iter().find(|entry| entry["grantee"] == *key).unwrap();
    assert_eq!(found["grant"]["type_urls"][0], leave, "{found}");
    assert_eq!(found["fees"]["remaining"], 7, "{found}");
    commands.json(&text, "tx grant revoke", &[&key]);
    remaining(commands);
}

/// The miner sets coins aside for what a user of the newcomer calls, which closes the escrow uncharged.
fn set_aside(miner: &str, newcomer: &str, address: &str, commands: &mut Commands) {
    let opening = [address, "5000000uremes", "--user", "alice"];
    let opened = commands.json(miner, "tx escrow open", &opening);
    let number = opened["escrow"].to_string();
    let found = commands.json(newcomer, "query escrow", &[&number]);
    assert_eq!(found["escrow"]["deposit"], 5_000_000, "{found}");
    assert_eq!(found["escrow"]["user"], "alice", "{found}");
    let open = commands.json(newcomer, "query escrows", &[]);
    assert_eq!(open["escrows"][0], found["escrow"], "{open}");
    commands.json(newcomer, "tx escrow close", &[&number]);
    let none = commands.json(miner, "query escrow", &[&number]);
    assert!(none["escrow"].is_null(), "{none}");
}

fn ask(network: &Network, commands: &mut Commands) {
    let home = network.home("miner-2");
    let status = commands.json(&network.home("network"), "status", &[]);
    assert_eq!(status["running"], true, "{status}");
    for path in ["models", "datasets", "runs", "run", "proposals", "params"] {
        commands.json(&home, &format!("query {path}"), &[]);
    }
    for path in ["obligations", "nodes"] {
        commands.json(&home, &format!("query {path}"), &[]);
    }
    let dataset = commands.json(&home, "query dataset", &["1"]);
    assert_eq!(dataset["shards"].as_array().unwrap().len(), 3, "{dataset}");
    decide(network, commands);
    let newest = commands.json(&home, "query round", &[]);
    assert_eq!(newest["head"]["round"], ROUNDS - 1, "{newest}");
    // The network's own home has its genesis, to begin trust with.
    let home = network.home("network");
    let address = commands.json(&home, "keys show", &[])["account"].clone();
    let balance = commands.json(&home, "verify balance", &[address.as_str().unwrap()]);
    assert_eq!(balance["verified"], "balance", "{balance}");
    let block = commands.json(&home, "verify block", &[]);
    assert!(block["height"].as_u64() > Some(1), "{block}");
    page_by_page(network, commands);
}

/// All nodes are proved, over pages of one state; a file that lacks one of them is refused.
fn page_by_page(network: &Network, commands: &mut Commands) {
    let home = network.home("network");
    let nodes = commands.json(&home, "query nodes", &[])["nodes"].clone();
    let expected = nodes.as_array().unwrap().len();
    assert!(expected > 6, "{nodes}");
    let saved = network.dir.join("participants.json");
    let path = saved.display().to_string();
    let asked = ["--page-size", "3", "--save", &path];
    let who = commands.json(&home, "verify participants", &asked);
    assert_eq!(who["validators"].as_array().unwrap().len(), 1, "{who}");
    let addresses = |nodes: &Value| {
        let nodes = nodes.as_array().unwrap().iter();
        nodes
            .map(|node| node["address"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(addresses(&who["nodes"]), addresses(&nodes));

    let offline = ["--file", &path];
    let again = commands.json(&home, "verify participants", &offline);
    assert_eq!(again["nodes"], who["nodes"]);
    let whole: Value = serde_json::from_slice(&fs::read(&saved).unwrap()).unwrap();
    let pages = "/claim/participants/pages";
    let count = whole.pointer(pages).unwrap().as_array().unwrap().len();
    assert_eq!(count, expected.div_ceil(3), "{expected} nodes");
    for lacking in 0..count {
        let mut file = whole.clone();
        let pages = file.pointer_mut(pages).unwrap().as_array_mut().unwrap();
        pages.remove(lacking);
        fs::write(&saved, file.to_string()).unwrap();
        let why = match lacking + 1 == count {
            true => "break off",
            false => "another question",
        };
        commands.refused(&home, "verify participants", &offline, why);
    }
}

/// The authority decides alone; validators vote, where there is something to vote on.
fn decide(network: &Network, commands: &mut Commands) {
    let home = network.home("network");
    let example = commands.json(&home, "tx run example", &[]);
    assert!(example.as_str().unwrap().contains("reaudited_share"));
    // All rounds of the run are done: pausing it changes nothing, and it cannot go on.
    let paused = commands.json(&home, "tx run pause", &["1"]);
    assert_eq!(paused["unchanged"], true, "{paused}");
    commands.refused(&home, "tx run resume", &["1", "--dry-run"], "is finished");
    commands.refused(&home, "tx run end", &["1"], "is finished");
    let set = commands.json(&home, "tx proposal set", &["governance.voting=2d"]);
    assert_eq!(set["proposal"], 1, "{set}");
    let params = commands.json(&home, "query params", &[]);
    assert_eq!(params["governance"]["voting"], 172_800_000, "{params}");
    let none = ["9", "keep"];
    commands.refused(&home, "tx proposal slash", &none, "there is no slash 9");
    let address = params["governance"]["authority"].as_str().unwrap();
    let paid = commands.json(&home, "tx proposal spend", &[address, "1uremes"]);
    assert_eq!(paid["proposal"], 2, "{paid}");
    let home = network.home("validator-1");
    commands.refused(
        &home,
        "tx dataset vote",
        &["1", "yes"],
        "no vote on dataset 1",
    );
    commands.refused(
        &home,
        "tx proposal vote",
        &["7", "no"],
        "no vote on proposal 7",
    );
}

/// What needs no network.
fn work_alone(folder: &Path, commands: &mut Commands) {
    let home = folder.join("alone").display().to_string();
    let version = commands.json_alone("version", &[]);
    assert!(version["backends"].is_array());
    let golden = commands.json_alone("golden", &[]);
    assert!(golden["hashes"].is_object());
    let hashes = commands.json_alone("golden", &["--hashes"]);
    assert_eq!(hashes, golden["hashes"]);
    let answer = commands.json_alone("generate", &["The dog", "--max-tokens", "4"]);
    assert!(answer["text"].is_string());
    assert_eq!((&answer["tokens"], &answer["seed"]), (&4.into(), &1.into()));
    assert_eq!(answer["finish_reason"], "length");
    let made = commands.json(&home, "init", &[]);
    let shown = commands.json(&home, "keys show", &[]);
    assert_eq!(shown["account"], made["address"]);
    let words = commands.json(&home, "keys export", &[]);
    let again = folder.join("again").display().to_string();
    let words = words.as_str().unwrap();
    let recovered = commands.json_of(&["--home", &again], "keys recover", &[], words);
    assert_eq!(recovered["account"], shown["account"]);
    assert_eq!(recovered["miner"], shown["miner"]);

    let vault = folder.join("vault").display().to_string();
    let refused = complaint(&["--home", &home, "keys", "tmkms", "--dir", &vault]);
    assert!(refused.contains("engine local"), "{refused}");
    let signing = folder.join("signing").display().to_string();
    commands.json(
        &signing,
        "init",
        &["--engine", "cometbft", "--roles", "validator"],
    );
    let file = commands.json(&signing, "keys tmkms", &["--dir", &vault]);
    assert_eq!(file, format!("{vault}/tmkms.toml"));

    let checkpoint = folder.join("checkpoint");
    checkpoint::write(&checkpoint);
    let packed = folder.join("packed.r3mes").display().to_string();
    let checkpoint = checkpoint.display().to_string();
    let report = commands.json_alone("pack", &[&checkpoint, &packed]);
    assert_eq!(report["file"], packed.as_str());
}

/// What a command that fails says.
fn complaint(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_r3mes"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}
