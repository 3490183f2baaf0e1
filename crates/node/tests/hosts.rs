//! A network on several machines, each in a network namespace of its own, as `r3mes testnet --hosts`
//! makes it: four validators under CometBFT, and three miners, a proposer and a serving node without a
//! ledger of their own.

#[path = "hosts/lan.rs"]
mod lan;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant, SystemTime},
};

use lan::{Lan, address};
use r3mes_gateway::{openai, rpc::Client};
use r3mes_types::{Amount, bank::QuerySupply, training::QueryRun};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Validators, numbered from 1.
const VALIDATORS: usize = 4;
/// The machines without a ledger, with their roles. Each asks a validator's ledger, in turn.
const ROLES: [(usize, &str); 5] = [
    (5, "miner"),
    (6, "miner"),
    (7, "miner"),
    (8, "proposer"),
    (SERVING, "serving"),
];
const SERVING: usize = 9;
/// The machine that comes later.
const LATE: usize = 10;
/// The run of the genesis.
const RUN: u64 = 1;
/// What is issued for each of its rounds.
const REWARD: Amount = Amount::remes(3);
/// Longest that anything may take; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(240);
/// No block for so long, many times the pause between two, means that none comes.
const STILL: Duration = Duration::from_secs(5);
/// How often the others are looked at while something is waited for.
const POLL: Duration = Duration::from_millis(50);
/// Within this time after healing a chain that had halted has a block again.
const AGAIN: Duration = Duration::from_secs(10);
/// Where the serving node answers prompts.
const ANSWERS: u16 = 8100;
/// Blocks that one call answers.
const PAGE: u64 = 20;

struct Network {
    lan: Lan,
    dir: PathBuf,
    runtime: Runtime,
}

/// What a command prints as JSON.
fn printed(command: &mut Command) -> Value {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the command starts");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).expect("the command prints JSON")
}

fn number(value: &Value) -> u64 {
    let digits = value
        .as_str()
        .unwrap_or_else(|| panic!("no number: {value}"));
    digits.parse().expect("digits")
}

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_r3mes"))
}

fn rpc_url(host: usize) -> String {
    format!("http://{}:26657", address(host))
}

/// Changes a line of a home's configuration.
fn configure(home: &Path, usual: &str, wanted: &str) {
    let file = home.join("config.yaml");
    let config = fs::read_to_string(&file).expect("the configuration is there");
    assert!(config.contains(usual), "{config}");
    fs::write(&file, config.replace(usual, wanted)).expect("it can be written");
}

impl Network {
    fn make(lan: Lan, dir: &Path) -> Self {
        let validators = (1..=VALIDATORS).map(|host| (host, "validator"));
        let hosts = validators.chain(ROLES);
        let hosts: Vec<String> = hosts
            .map(|(host, role)| format!("{} {role}", address(host)))
            .collect();
        let list = dir.join("hosts");
        fs::write(&list, hosts.join("\n")).expect("it can be written");
        let homes = dir.join("homes");
        let mut testnet = Command::new(binary());
        testnet.args([
            "--json",
            "testnet",
            "--block-interval-ms",
            "500",
            "--rounds",
            "20",
        ]);
        testnet.arg("--hosts").arg(list).arg("--dir").arg(&homes);
        printed(&mut testnet);
        let network = Self {
            lan,
            dir: homes,
            runtime: Runtime::new().expect("a runtime"),
        };
        for host in 1..=VALIDATORS {
            let home = network.home(host);
            configure(&home, "snapshot_every: 1000", "snapshot_every: 40");
        }
        network
    }

    fn home(&self, host: usize) -> PathBuf {
        self.dir.join(address(host))
    }

    fn r3mes(&self, host: usize) -> Command {
        let mut command = self.lan.on(host, binary());
        command.arg("--json").arg("--home").arg(self.home(host));
        command
    }

    fn start(&self, host: usize) {
        let mut start = self.r3mes(host);
        let log = fs::File::create(self.home(host).join("start.log")).expect("a log");
        let start = start.arg("start").stdout(Stdio::null()).stderr(log);
        // It ends with its machine.
        drop(start.spawn().expect("r3mes starts"));
    }

    fn client(host: usize) -> Client {
        let client = Client::new(&rpc_url(host)).expect("a client");
        client.retry_for(PATIENCE)
    }

    fn height(&self, host: usize) -> u64 {
        let status = self.runtime.block_on(Self::client(host).status());
        status.expect("it answers").height
    }

    /// Waits until a machine is at a height.
    fn reach(&self, host: usize, height: u64) {
        let client = Self::client(host);
        let began = Instant::now();
        self.runtime.block_on(async {
            let mut newest = 0;
            while newest < height {
                newest = client.wait_height(height - 1).await.expect("it answers");
                let waited = began.elapsed();
                assert!(
                    waited < PATIENCE,
                    "machine {host} is at height {newest} and not at {height}"
                );
            }
        });
    }

    /// Waits until a machine, asked on the machine itself, makes no blocks any more.
    fn stands_still(&self, host: usize) -> u64 {
        let client = Self::client(host);
        self.runtime.block_on(async {
            let mut newest = client.status().await.expect("it answers").height;
            let began = Instant::now();
            loop {
                let now = client
                    .wait_height_for(newest, STILL)
                    .await
                    .expect("it answers");
                if now == newest {
                    return newest;
                }
                newest = now;
                assert!(began.elapsed() < PATIENCE, "blocks go on: {newest}");
            }
        })
    }

    /// Height of a machine that only it itself can be asked for.
    fn own_height(&self, host: usize) -> u64 {
        let status = printed(self.r3mes(host).arg("status"));
        let height = status["network"]["height"].as_u64();
        height.unwrap_or_else(|| panic!("{status}"))
    }

    /// Rounds that have closed.
    fn closed(&self) -> u32 {
        let run = self
            .runtime
            .block_on(Self::client(1).query(&QueryRun { run: RUN }));
        run.expect("it answers").round
    }

    /// Waits until so many rounds have closed.
    fn close(&self, rounds: u32) {
        let began = Instant::now();
        let client = Self::client(1);
        while self.closed() < rounds {
            assert!(began.elapsed() < PATIENCE, "round {rounds} does not close");
            let height = self.height(1);
            let next = self.runtime.block_on(client.wait_height(height));
            next.expect("it answers");
        }
    }

    /// All coins after a block.
    fn supply(&self, height: u64) -> Amount {
        let question = QuerySupply {};
        let client = Self::client(1);
        let supply = client.query_at(&question, Some(height));
        self.runtime.block_on(supply).expect("it answers").amount
    }

    fn ask(&self, host: usize, method: &'static str, question: Value) -> Value {
        let answer = self
            .runtime
            .block_on(Self::client(host).raw(method, question));
        answer.expect("it answers")
    }

    /// The time of a block.
    fn time(&self, height: u64) -> SystemTime {
        let question = json!({"height": height.to_string()});
        let commit = self.ask(1, "commit", question);
        let written = commit["signed_header"]["header"]["time"].as_str();
        let time = tendermint::Time::parse_from_rfc3339(written.expect("a time"));
        let nanos = time.expect("RFC 3339").unix_timestamp_nanos();
        let nanos = u64::try_from(nanos).expect("it is later than 1970");
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    /// Block and state of every height from `first` to `last`.
    fn headers(&self, host: usize, first: u64, last: u64) -> BTreeMap<u64, (String, String)> {
        let mut headers = BTreeMap::new();
        for from in (first..=last).step_by(PAGE as usize) {
            let to = last.min(from + PAGE - 1);
            let question = json!({"minHeight": from.to_string(), "maxHeight": to.to_string()});
            let answer = self.ask(host, "blockchain", question);
            for meta in answer["block_metas"].as_array().expect("a list of blocks") {
                let text = |value: &Value| value.as_str().expect("a hash").to_owned();
                let header = (
                    text(&meta["block_id"]["hash"]),
                    text(&meta["header"]["app_hash"]),
                );
                headers.insert(number(&meta["header"]["height"]), header);
            }
        }
        assert_eq!(
            headers.len() as u64,
            last - first + 1,
            "machine {host} lacks blocks"
        );
        headers
    }
}

/// Every payment: in one block a round, at most the round's reward, and coins grow by rewards alone.
fn nothing_is_paid_twice(network: &Network, reward: Amount, genesis: Amount) {
    let last = network.height(1);
    let mut paid_at: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    let mut closed = 0;
    for height in 1..=last {
        let question = json!({"height": height.to_string()});
        let results = network.ask(1, "block_results", question);
        for event in results["finalize_block_events"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let attribute = |name: &str| {
                let all = event["attributes"].as_array()?;
                let found = all.iter().find(|one| one["key"] == name)?;
                found["value"].as_str().map(str::to_owned)
            };
            match event["type"].as_str() {
                Some("training.close_round") => closed += 1,
                Some("training.paid") => {
                    let round = attribute("round").expect("a payment names its round");
                    paid_at.entry(round.clone()).or_default().insert(height);
                    let amount = attribute("amount").expect("a payment names its amount");
                    let amount = amount.trim_end_matches("uremes");
                    *sums.entry(round).or_default() += amount.parse::<u64>().expect("digits");
                }
                _ => {}
            }
        }
    }
    assert!(!paid_at.is_empty(), "nothing was paid");
    for (round, heights) in &paid_at {
        assert_eq!(heights.len(), 1, "round {round} was paid at {heights:?}");
        assert!(
            sums[round] <= reward.uremes(),
            "round {round}: {}",
            sums[round]
        );
    }
    let supply = network.supply(last);
    assert_eq!(supply.uremes(), genesis.uremes() + closed * reward.uremes());
    println!("{closed} rounds closed and were paid once each");
}

#[test]
fn machines_are_cut_off_killed_slowed_and_join_without_a_fork() {
    let Some(lan) = lan::enter(
        "machines_are_cut_off_killed_slowed_and_join_without_a_fork",
        LATE,
    ) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let network = Network::make(lan, folder.path());
    for host in 1..=VALIDATORS {
        network.start(host);
    }
    network.reach(1, 2);
    for (host, _) in ROLES {
        network.start(host);
    }
    let genesis = network.supply(1);
    network.close(1);

    one_away(&network);
    half_away(&network);
    one_killed(&network);
    let slow = one_slow(&network);
    let first = one_late(&network);
    drop(slow);
    answers(&network);

    let last = (1..=VALIDATORS).map(|host| network.height(host)).min();
    let last = last.expect("there are machines").min(network.height(LATE));
    let headers = network.headers(1, 1, last);
    for host in 2..=VALIDATORS {
        assert_eq!(
            network.headers(host, 1, last),
            headers,
            "machine {host} forked"
        );
    }
    let late = network.headers(LATE, first, last);
    assert!(
        late.iter()
            .all(|(height, header)| headers[height] == *header)
    );
    println!(
        "{last} blocks, the same on {VALIDATORS} machines, and from {first} on the one that came late"
    );
    for (host, role) in ROLES {
        assert!(!network.home(host).join("data/ledger").exists(), "{role}");
    }
    nothing_is_paid_twice(&network, REWARD, genesis);
}

/// Three of four go on without the fourth and without a miner, which come back to them: the round that
/// the miner has a part in closes.
fn one_away(network: &Network) {
    let closed = network.closed();
    network.lan.cut(&[4, ROLES[0].0]);
    let there = network.own_height(4);
    network.reach(1, there + 5);
    assert!(network.own_height(4) <= there + 1, "it is not cut off");
    network.lan.heal(&[4, ROLES[0].0]);
    let healed = Instant::now();
    let others = network.height(1);
    network.reach(4, others + 1);
    println!(
        "one cut off caught up {:.1} s after healing",
        healed.elapsed().as_secs_f64()
    );
    network.close(closed + 1);
}

/// Two and two are no quorum: nobody makes blocks until they see each other again.
fn half_away(network: &Network) {
    network.lan.cut(&[3, 4]);
    let halted = network.stands_still(1);
    let other_side = network.own_height(3);
    assert!(other_side.abs_diff(halted) <= 1);
    network.lan.heal(&[3, 4]);
    let healed = SystemTime::now();
    // The time of a block is that of the votes for the one before: the second tells when the first,
    // which no side could make alone, was agreed on.
    let second = halted.max(other_side) + 2;
    for host in 1..=VALIDATORS {
        network.reach(host, second);
    }
    let again = network.time(second).duration_since(healed);
    let again = again.expect("no side makes blocks alone");
    println!(
        "blocks again {:.1} s after two and two were healed",
        again.as_secs_f64()
    );
    assert!(again <= AGAIN, "blocks came again only after {again:?}");
    let closed = network.closed();
    network.close(closed + 1);
}

/// A machine whose power fails goes on where it was.
fn one_killed(network: &Network) {
    network.lan.kill(2);
    let gone = network.height(1);
    network.reach(1, gone + 3);
    network.start(2);
    network.reach(2, gone + 4);
}

/// A machine behind a long, lossy line keeps up, and rounds close with it.
fn one_slow(network: &Network) -> lan::Slow {
    let slow = network.lan.slow(4);
    let began = Instant::now();
    until("a connection to the slow machine", || {
        TcpStream::connect((address(4).as_str(), 26657)).ok()
    });
    let shake = began.elapsed();
    assert!(
        shake.as_millis() >= u128::from(Lan::round_trip_ms()),
        "{shake:?}"
    );
    let at = network.height(1);
    network.reach(4, at + 10);
    let closed = network.closed();
    network.close(closed + 1);
    slow
}

/// A machine that comes later begins with a snapshot; the first block that it has.
fn one_late(network: &Network) -> u64 {
    let mut init = network.r3mes(LATE);
    init.args([
        "init",
        "--engine",
        "cometbft",
        "--join",
        &rpc_url(1),
        "--witness",
        &rpc_url(3),
    ]);
    printed(&mut init);
    let listen = "rpc_listen: 127.0.0.1:26657";
    configure(&network.home(LATE), listen, "rpc_listen: 0.0.0.0:26657");
    network.start(LATE);
    let newest = network.height(1);
    network.reach(LATE, newest + 1);
    // A state that was taken over is no block yet.
    let first = until("the one that came late has a block", || {
        let status = network.ask(LATE, "status", json!({}));
        let first = number(&status["sync_info"]["earliest_block_height"]);
        (first > 0).then_some(first)
    });
    assert!(first > 1, "it executed every block");
    network.reach(LATE, first + 5);
    println!("the one that came late began at height {first}");
    first
}

/// The serving node answers over the network with what was trained, and the machine that came last
/// computes the answer again.
fn answers(network: &Network) {
    let api = format!("http://{}:{ANSWERS}", address(SERVING));
    let client = openai::Client::new(&api).expect("a client");
    let models = network.runtime.block_on(client.models());
    let models = models.expect("the serving node answers");
    let trained = models.iter().find(|model| model.adapter.is_some());
    let ask = openai::CompletionAsk {
        model: trained.unwrap_or_else(|| panic!("{models:?}")).id.clone(),
        prompt: "Once upon a time".to_owned(),
        max_tokens: 8,
        temperature: 0.8,
        seed: 3,
    };
    let answer = network.runtime.block_on(client.complete(&ask));
    let receipt = answer.expect("it completes the prompt").receipt;
    let mut verify = network.r3mes(LATE);
    verify.args(["verify", "answer", &receipt, "--api", &api]);
    let verified = printed(&mut verify);
    assert_eq!(verified["answer_tokens"], 8, "{verified}");
    assert!(verified["adapter"].is_string(), "{verified}");
}

/// Asks until there is an answer.
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
