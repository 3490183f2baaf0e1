//! The house plan as a test: which crate may lean on which.

use std::{collections::BTreeSet, process::Command};

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
fn every_crate_of_the_plan_exists() {
    let found: BTreeSet<String> = workspace().into_iter().map(|(name, _)| name).collect();
    let planned: BTreeSet<String> = MAY_DEPEND_ON
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(found, planned);
}
