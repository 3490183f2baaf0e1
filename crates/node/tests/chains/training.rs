//! Training from the command line: an operator registers a model, proposes a dataset and starts a run.
//! A miner and a validator without a ledger of their own, who believe only what is proved to them, take
//! part in its rounds and are paid. The miner's blobs are in a Kubo node. A serving node answers with the
//! model, by its own template. Then the miner leaves, and before its stake is paid out its packages are
//! audited a second time by another panel.

use std::{fs, ops::Range, path::Path};

use r3mes_node::{
    config::{BlobBackEnd, Config},
    home,
};
use serde_json::Value;

use super::{
    chat, checkpoint,
    homes::{Home, complaint, json, json_alone, until},
    kubo::Kubo,
};

/// Rounds of the run.
pub(crate) const ROUNDS: u64 = 2;
/// The plan of the run: as small as a model of one block, and every package is audited twice.
const PLAN: &str = "
name: letters
preset: demonstration
dataset: 2
rounds: 2
steps: 2
hyper: {batch: 2, sequence: 16, rank: 2, targets: [q, down], chunk: 64, top_k: 8}
min_miners: 1
audited_share: 1
reaudited_share: 1
";
/// What a home that trains or verifies puts at stake: enough for the penalties of several rounds.
const STAKE: &str = "300000000uremes";
/// What it is given.
const GIVEN: &str = "400000000uremes";

fn text(name: &str) -> String {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/texts");
    assets.join(name).display().to_string()
}

/// Registers the small model, proposes a dataset and starts the run, each tried without sending first.
pub(crate) fn begin(founder: &Home, folder: &Path) {
    let checkpoint = folder.join("checkpoint");
    checkpoint::write(&checkpoint);
    let packed = checkpoint.join("letters.r3mes").display().to_string();
    let pack = json_alone(&["pack", &checkpoint.display().to_string(), &packed]);
    let plan = folder.join("run.yaml").display().to_string();
    fs::write(&plan, PLAN).unwrap();
    let texts = [text("burgess-busterbrown.txt"), text("carroll-alice.txt")];
    let model = [
        "tx",
        "model",
        "register",
        &packed,
        "--name",
        "letters",
        "--licence",
        "MIT",
    ];
    let dataset = [
        "tx",
        "dataset",
        "propose",
        &texts[0],
        &texts[1],
        "--model",
        "letters",
        "--name",
        "stories",
        "--licence",
        "public-domain",
        "--source",
        "assets/texts",
        "--shards",
        "2",
        "--sequence",
        "16",
    ];
    let run = [
        "tx", "run", "start", "--config", &plan, "--model", "letters",
    ];
    let too_short = [&run[..], &["--reaudited-share", "2"]].concat();
    assert!(complaint(&founder.dir, &too_short).contains("0 to 1"));
    for (command, made) in [(&model[..], "model"), (&dataset, "dataset"), (&run, "run")] {
        let dry = json(&founder.dir, &[command, &["--dry-run"]].concat());
        assert_eq!(dry["sent"], false, "{dry}");
        let done = json(&founder.dir, command);
        assert_eq!(done["transaction"]["code"], 0, "{done}");
        let expected = match made {
            "model" => pack["model"].clone(),
            "dataset" => Value::from(2),
            _ => Value::from(1),
        };
        assert_eq!(done[made], expected, "{done}");
    }
    // The same model again changes nothing; another one under its name is refused.
    let again = json(&founder.dir, &model);
    assert_eq!(again["unchanged"], true, "{again}");
    let taken = [&model[..], &["--price", "7uremes"]].concat();
    assert!(complaint(&founder.dir, &taken).contains("is registered"));

    let dataset = json(&founder.dir, &["query", "dataset", "2"]);
    assert_eq!(dataset["dataset"]["status"], "adopted", "{dataset}");
    let tokens = |shard: &Value| shard["tokens"].as_u64().unwrap();
    let trained: u64 = dataset["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(tokens)
        .sum();
    let held_out = tokens(&dataset["dataset"]["held_out"]);
    // A tenth is held out, in windows that share a token.
    assert!((trained / 10..trained / 8).contains(&held_out), "{dataset}");
    let run = json(&founder.dir, &["query", "run", "1"]);
    assert_eq!(run["params"]["reaudited_share"], 1_000_000, "{run}");
    assert_eq!(run["params"]["rounds"], ROUNDS, "{run}");
}

/// A home without a ledger, with a stake and one role, which is registered as `configure` leaves it.
pub(crate) fn join(
    founder: &Home,
    folder: &Path,
    role: &str,
    configure: impl FnOnce(&Home),
) -> Home {
    let arguments = ["--roles", role, "--join", &founder.rpc];
    let home = Home::make(folder.join(format!("away-{role}")), &arguments);
    let config = fs::read_to_string(home.dir.join("config.yaml")).unwrap();
    assert!(config.contains("light:"), "{config}");
    assert!(!config.contains("ledger:"), "{config}");
    configure(&home);
    let account = address(&home);
    json(&founder.dir, &["tx", "send", &account, GIVEN]);
    json(
        &home.dir,
        &["tx", "register", "--roles", role, "--stake", STAKE],
    );
    home
}

pub(crate) fn address(home: &Home) -> String {
    let keys = json(&home.dir, &["keys", "show"]);
    keys["account"].as_str().unwrap().to_owned()
}

/// The height that a home's light client has verified.
fn verified(home: &Home) -> u64 {
    let kept = fs::read(home.dir.join("data/light.json")).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    let height = kept["block"]["signed"]["header"]["height"].as_str();
    height.unwrap_or_else(|| panic!("{kept}")).parse().unwrap()
}

/// The one miner's part in a round.
pub(crate) fn entry(home: &Home, round: u64) -> Value {
    let round = json(&home.dir, &["query", "round", &round.to_string()]);
    let entries = round["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{round}");
    entries[0].clone()
}

fn panel(audit: &Value) -> Vec<&Value> {
    let seats = audit["panel"].as_array().unwrap();
    assert!(!seats.is_empty(), "{audit}");
    seats.iter().collect()
}

#[test]
fn a_run_begun_by_its_operator_trains_far_from_the_ledger_and_is_audited_again_when_the_miner_leaves()
 {
    let folder = tempfile::tempdir().unwrap();
    let roles = ["--roles", "validator,proposer"];
    let arguments = [&["--chain-id", "chains-2"], &roles[..]].concat();
    let founder = Home::make(folder.path().join("founder"), &arguments);
    let _ledger = founder.start_with(&roles);
    is_ready(&founder, "proposer");
    begin(&founder, folder.path());
    let kubo = Kubo::start();
    let miner = join(&founder, folder.path(), "miner", |home| {
        if let Some(kubo) = &kubo {
            keep_in(kubo, home);
        }
    });
    let validator = join(&founder, folder.path(), "validator", |_| {});
    // Who has no say starts nothing.
    let start = ["tx", "run", "start", "--model", "letters", "--dataset", "2"];
    let refused = complaint(&miner.dir, &start);
    assert!(refused.contains("no say"), "{refused}");

    let begun = verified(&miner);
    let before = [coins(&miner), coins(&validator)];
    let _away = [(&miner, "miner"), (&validator, "validator")].map(|(home, role)| {
        let running = home.spawn(&["--roles", role, "--chain", &founder.rpc]);
        is_ready(home, role);
        let services = json(&home.dir, &["status"])["services"].clone();
        assert_eq!(services.as_object().unwrap().len(), 1, "{services}");
        running
    });
    until("all rounds close", || {
        let run = json(&founder.dir, &["query", "run"]);
        (run["status"] == "finished").then_some(())
    });
    assert!(verified(&miner) > begun, "nothing was verified");
    are_paid(
        &founder,
        0..ROUNDS,
        (&miner, before[0]),
        (&validator, before[1]),
    );

    if let Some(kubo) = &kubo {
        has_packages(kubo, &founder, &miner);
    }
    chat::is_held_with_the_registered_model(&founder, &validator, folder.path());

    json(&miner.dir, &["tx", "leave"]);
    for round in 0..ROUNDS {
        let second = until("the second audit is closed", || {
            let second = entry(&founder, round)["reaudit"].clone();
            (second["phase"] == "closed").then_some(second)
        });
        assert_eq!(second["outcome"], "accepted", "{second}");
        assert!(second["paid"].as_u64() > Some(0), "{second}");
        let first = &entry(&founder, round)["audit"];
        for seat in panel(&second["audit"]) {
            assert!(seat["verdict"].is_object(), "{seat}");
            let sat = panel(first)
                .iter()
                .any(|one| one["validator"] == seat["validator"]);
            assert!(!sat, "a panel judges its own verdict: {second}");
        }
    }
    validators_decide(&founder, &validator);

    // What holds the stake now is its time alone.
    let node = json(&founder.dir, &["query", "node", &address(&miner)])["node"].clone();
    assert_eq!(node["status"], "left", "{node}");
    assert_eq!(node["disputes"], 0, "{node}");
    assert_eq!(node["locks"], 0, "{node}");
}

/// Has a home keep its blobs in a Kubo node.
fn keep_in(kubo: &Kubo, home: &Home) {
    let home = home::Home::new(&home.dir);
    let mut config = Config::load(&home).unwrap();
    config.blobs.store = BlobBackEnd::Kubo;
    config.blobs.kubo_rpc.clone_from(&kubo.rpc);
    fs::write(home.config_file(), config.to_yaml()).unwrap();
}

/// Kubo has every package that the validator took from the miner, and the miner's home has none.
fn has_packages(kubo: &Kubo, founder: &Home, miner: &Home) {
    assert!(!miner.dir.join("data/miner/blobs").exists());
    for round in 0..ROUNDS {
        let package = entry(founder, round)["package"].clone();
        let bytes = kubo.cat(package["cid"].as_str().unwrap());
        let hash = r3mes_types::Hash::of(&bytes).to_string();
        assert_eq!(package["hash"], hash.as_str(), "{package}");
        assert_eq!(package["bytes"], bytes.len(), "{package}");
    }
}

/// A validator that is not the authority proposes a dataset, whose shards it keeps itself, and a run on
/// it. With three quarters of the stake its own votes decide.
fn validators_decide(founder: &Home, validator: &Home) {
    let text = text("carroll-alice.txt");
    let dataset = [
        "tx",
        "dataset",
        "propose",
        &text,
        "--model",
        "letters",
        "--name",
        "alice",
        "--licence",
        "public-domain",
        "--source",
        "a validator",
        "--shards",
        "1",
        "--sequence",
        "16",
    ];
    let proposed = json(&validator.dir, &dataset);
    assert_eq!(proposed["dataset"], 3, "{proposed}");
    let kept = validator.dir.join("data/validator/blobs");
    let store = r3mes_node::agents::open_store(&kept, 1 << 12, false).unwrap();
    let spec = &proposed["spec"];
    for shard in [&spec["shards"][0], &spec["held_out"]] {
        let cid = shard["cid"].as_str().unwrap().parse().unwrap();
        assert!(store.missing(&cid).unwrap().is_empty(), "{shard}");
    }
    let run = [
        "tx",
        "run",
        "start",
        "--model",
        "letters",
        "--dataset",
        "3",
        "--preset",
        "demonstration",
        "--learning-rate",
        "0.001",
        "--min-miners",
        "3",
        "--title",
        "on alice alone",
    ];
    let refused = complaint(&validator.dir, &run);
    assert!(refused.contains("is proposed"), "{refused}");
    json(&validator.dir, &["tx", "dataset", "vote", "3", "yes"]);
    let refused = complaint(&validator.dir, &run);
    assert!(
        refused.contains("context"),
        "a sequence of 128 is too long: {refused}"
    );
    let plan = validator.dir.join("run.yaml").display().to_string();
    fs::write(&plan, "hyper: {sequence: 16, chunk: 64, top_k: 8}\n").unwrap();
    let run = [&run[..], &["--config", &plan]].concat();
    let proposed = json(&validator.dir, &run);
    assert_eq!(proposed["proposal"], 1, "{proposed}");
    let proposals = json(&founder.dir, &["query", "proposals"]);
    let proposal = &proposals["proposals"][0];
    assert_eq!(proposal["title"], "on alice alone", "{proposals}");
    assert_eq!(proposal["status"], "open", "{proposals}");
    json(&validator.dir, &["tx", "proposal", "vote", "1", "yes"]);
    let run = json(&founder.dir, &["query", "run", "2"]);
    assert_eq!(run["status"], "active", "{run}");
    assert_eq!(run["params"]["dataset"], 3, "{run}");
}

pub(crate) fn is_ready(home: &Home, role: &str) {
    until("the role is ready", || {
        let status = json(&home.dir, &["status"]);
        (status["services"][role]["phase"] == "ready").then_some(())
    });
}

/// What an account has, with what vests.
pub(crate) fn coins(home: &Home) -> u64 {
    let account = json(&home.dir, &["query", "account"]);
    let amounts = [&account["balance"]["amount"], &account["vesting"]["total"]];
    amounts.map(|amount| amount.as_u64().unwrap()).iter().sum()
}

/// The miner gets what its entries in these rounds say and nothing more, and the validator's work is
/// paid too. Beside each is what it had before.
pub(crate) fn are_paid(
    founder: &Home,
    rounds: Range<u64>,
    miner: (&Home, u64),
    validator: (&Home, u64),
) {
    let mut earned = 0;
    for round in rounds {
        let entry = entry(founder, round);
        assert_eq!(entry["outcome"], "accepted", "{entry}");
        assert_eq!(entry["miner"], address(miner.0), "{entry}");
        for seat in panel(&entry["audit"]) {
            assert!(seat["verdict"].is_object(), "{seat}");
        }
        earned += entry["paid"].as_u64().unwrap();
    }
    assert!(earned > 0);
    // Read apart, balance and vesting can miss a part on its way from one to the other.
    until("the miner has its rewards", || {
        let received = coins(miner.0) - miner.1;
        assert!(received <= earned, "{received} of {earned}");
        (received == earned).then_some(())
    });
    assert!(coins(validator.0) > validator.1);
}
