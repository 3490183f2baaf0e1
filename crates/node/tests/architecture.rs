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
            "gateway",
        ],
    ),
];

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
    let ours = |name: &Value| {
        name.as_str()
            .and_then(|name| name.strip_prefix("r3mes-"))
            .map(str::to_owned)
    };
    let packages = metadata["packages"].as_array().expect("a list of packages");
    packages
        .iter()
        .map(|package| {
            let normal = package["dependencies"]
                .as_array()
                .expect("a list of dependencies")
                .iter()
                .filter(|dependency| dependency["kind"] != "dev");
            let name = ours(&package["name"]).expect("every crate is called r3mes-something");
            (
                name,
                normal
                    .filter_map(|dependency| ours(&dependency["name"]))
                    .collect(),
            )
        })
        .collect()
}

#[test]
fn arrows_between_crates_point_only_where_the_plan_says() {
    for (name, dependencies) in workspace() {
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(known, _)| *known == name) else {
            panic!("crate {name} is not in the plan");
        };
        for dependency in &dependencies {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
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
