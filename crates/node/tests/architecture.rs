//! The house plan as a test: which crate may lean on which, where a protocol is spoken, and where errors
//! need no types.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Every crate, and the workspace crates it may depend on. An edge that is not here is an
/// architecture decision: write an ADR first.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("state", &[]),
    ("exact", &[]),
    ("blobs", &["types"]),
    ("ledger", &["types", "state"]),
    ("model", &["types", "exact"]),
    ("training", &["types", "exact", "model"]),
    ("inference", &["types", "exact", "model"]),
    ("functions", &[]),
    ("consensus", &["types", "state", "ledger"]),
    ("http", &[]),
    ("functions-http", &["functions", "http"]),
    (
        "gateway",
        &[
            "types",
            "state",
            "blobs",
            "ledger",
            "consensus",
            "model",
            "training",
            "inference",
            "functions",
            "http",
        ],
    ),
    ("sim", &["types", "state", "ledger", "training"]),
    (
        "node",
        &[
            "types",
            "state",
            "blobs",
            "exact",
            "ledger",
            "model",
            "training",
            "inference",
            "consensus",
            "functions",
            "http",
            "functions-http",
            "gateway",
        ],
    ),
];

/// The crates that give the same bytes on every machine, and all that they may be built from. What
/// their `clippy.toml` cannot name (an async runtime, a logger, a clock or a network of another
/// crate) does not come in here.
const PURE: &[(&str, &[&str])] = &[
    (
        "types",
        &[
            "bech32",
            "blake3",
            "cid",
            "hex",
            "k256",
            "ripemd",
            "sha2",
            "thiserror",
            "zeroize",
        ],
    ),
    (
        "ledger",
        &["r3mes-types", "r3mes-state", "sha2", "thiserror"],
    ),
];

/// Libraries of HTTP and gRPC, and the crates that are built from any of each.
const SPOKEN_BY: &[(&[&str], &[&str])] = &[
    (
        &[
            "axum",
            "hyper",
            "hyper-util",
            "reqwest",
            "rmcp",
            "tokio-tungstenite",
            "tower",
            "tower-http",
            "utoipa-swagger-ui",
        ],
        &["functions-http", "gateway", "http"],
    ),
    (
        &[
            "arrow-flight",
            "cosmos-sdk-proto",
            "tonic",
            "tonic-health",
            "tonic-reflection",
        ],
        &["gateway"],
    ),
];

/// Names of libraries, and all places under `crates` where they stand.
const STANDS_IN: &[(&str, &[&str])] = &[
    (
        "serde_json",
        &[
            // Blocks of DAG-JSON, which other writers link to.
            "blobs/src/ipld.rs",
            // The last height that CometBFT's key signed, and its file.
            "consensus/src/cometbft/signed.rs",
            "consensus/src/cometbft/signer.rs",
            "functions-http/src",
            "gateway/src",
            // The files of a checkpoint, and the header of a packed model.
            "model/src/checkpoint/chat.rs",
            "model/src/checkpoint/mod.rs",
            "model/src/config.rs",
            "model/src/config/hugging_face.rs",
            "model/src/packed/header.rs",
            // What is printed, and files.
            "node/src/cli",
            // Defaults on the page of settings, in its test.
            "node/src/config/page.rs",
            "node/src/process/lock.rs",
            "node/src/services/functions.rs",
            // What the gateway tells of the ledger, and questions of RPC that it sends.
            "node/src/services/gateway.rs",
            "node/src/services/inspect.rs",
            "node/src/testnet/check.rs",
        ],
    ),
    // Errors that only travel, to the top of a task, a command or a test, and are told there once. What
    // a caller decides by, and all that is parsed, has types of its own.
    (
        "anyhow",
        &[
            "node/src/agents",
            "node/src/cli",
            "node/src/demo",
            "node/src/flight/mod.rs",
            "node/src/genesis/founding.rs",
            // The example at its top.
            "node/src/lib.rs",
            "node/src/materials.rs",
            "node/src/services",
            "node/src/testnet/check.rs",
            "node/src/testnet/homes.rs",
            "node/src/testnet/mod.rs",
            // For development only.
            "sim/src",
            // The tree's library has it in the traits that a store implements.
            "state/src/snapshot.rs",
        ],
    ),
    (
        "abci::",
        &[
            "consensus/src/cometbft",
            // The encoding of results, which their hash is made of and under which they are stored.
            "consensus/src/block.rs",
            "consensus/src/results.rs",
            // The Cosmos SDK's answers have ABCI's events in them.
            "gateway/src/cosmos/rest.rs",
            "gateway/src/cosmos/tx.rs",
        ],
    ),
];

/// Every crate, and the names of all that it is built from.
fn workspace() -> Vec<(String, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    packages
        .iter()
        .map(|package| {
            let normal = package["dependencies"]
                .as_array()
                .expect("a list of dependencies")
                .iter()
                .filter(|dependency| dependency["kind"] != "dev");
            let name = package["name"].as_str().and_then(ours);
            let name = name.expect("every crate is called r3mes-something");
            let names = normal.filter_map(|dependency| dependency["name"].as_str());
            (name, names.map(str::to_owned).collect())
        })
        .collect()
}

/// The name in the plan of a crate of ours.
fn ours(name: &str) -> Option<String> {
    name.strip_prefix("r3mes-").map(str::to_owned)
}

#[test]
fn arrows_between_crates_point_only_where_the_plan_says() {
    for (name, dependencies) in workspace() {
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(known, _)| *known == name) else {
            panic!("crate {name} is not in the plan");
        };
        for dependency in dependencies.iter().filter_map(|name| ours(name)) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn pure_crates_are_built_from_what_is_listed_only() {
    let all = workspace();
    for (name, listed) in PURE {
        let built_from = all.iter().find(|(known, _)| known == name);
        let (_, built_from) = built_from.expect("a crate of the plan");
        let listed: BTreeSet<String> = listed.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(*built_from, listed, "{name}");
    }
}

#[test]
fn pure_crates_wait_for_nothing() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (path, text) in sources(&crates) {
        if !PURE.iter().any(|(name, _)| path.starts_with(name)) {
            continue;
        }
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for word in ["async ", ".await", "Future", "Poll<"] {
                assert!(!line.contains(word), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn only_the_surfaces_are_built_from_http_and_grpc() {
    let all = workspace();
    for (libraries, speakers) in SPOKEN_BY {
        let speaks = |names: &BTreeSet<String>| libraries.iter().any(|&name| names.contains(name));
        let found = all.iter().filter(|(_, names)| speaks(names));
        let found: BTreeSet<&str> = found.map(|(name, _)| name.as_str()).collect();
        assert_eq!(found, speakers.iter().copied().collect(), "{libraries:?}");
    }
}

#[test]
fn json_abci_and_untyped_errors_stand_only_where_the_plan_says() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources(&crates);
    for (library, places) in STANDS_IN {
        let mut unused: BTreeSet<&str> = places.iter().copied().collect();
        for (path, text) in &sources {
            if !text.contains(library) {
                continue;
            }
            let place = places.iter().find(|place| path.starts_with(place));
            let place = place.unwrap_or_else(|| panic!("{library} in {}", path.display()));
            unused.remove(place);
        }
        assert!(unused.is_empty(), "{library} is not in {unused:?}");
    }
}

/// All sources under `crates/*/src` but unit tests, by their paths from `crates`.
fn sources(crates: &Path) -> Vec<(PathBuf, String)> {
    let mut folders: Vec<PathBuf> = entries(crates)
        .iter()
        .map(|path| path.join("src"))
        .collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source is text");
                let path = path.strip_prefix(crates).expect("a path under crates");
                sources.push((path.to_owned(), text));
            }
        }
    }
    sources
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of sources");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.collect()
}

#[test]
fn every_crate_of_the_plan_exists() {
    let found: BTreeSet<String> = workspace().into_iter().map(|(name, _)| name).collect();
    let planned: BTreeSet<String> = MAY_DEPEND_ON
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(found, planned);
}
