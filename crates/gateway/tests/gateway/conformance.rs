//! The official conformance suite of IPFS gateways, which nobody here wrote, against our gateway.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use r3mes_blobs::{MemoryStore, car};
use r3mes_gateway::ipfs::{GatewayLimits, router};
use tokio::process::Command;

use super::{outside::program, support::Running};

/// What we claim: all of the trustless gateway but IPNS, of which no record is here.
const SPECS: &str = "trustless-block-gateway,trustless-car-gateway,trustless-car-gateway-optional";

/// The suite's files with the blocks that its tests of these specifications ask for.
fn cars(fixtures: &Path) -> Vec<PathBuf> {
    let folder = fs::read_dir(fixtures.join("trustless_gateway_car")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path());
    let mut cars: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "car"))
        .collect();
    cars.push(fixtures.join("gateway-raw-block.car"));
    cars
}

/// The tests of trustless gateways that ended so, without those that only hold others.
fn ended(said: &str, how: &str) -> BTreeSet<String> {
    let mark = format!("--- {how}: TestTrustless");
    let lines = said
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(&mark));
    let names = lines.map(|line| {
        line.rsplit_once(" (")
            .map_or(line, |(name, _)| name)
            .to_owned()
    });
    let all: BTreeSet<String> = names.collect();
    let holds = |name: &String| {
        all.iter()
            .any(|other| other.starts_with(&format!("{name}/")))
    };
    all.iter().filter(|name| !holds(name)).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the suite, which tools/programs gateway-conformance builds"]
async fn the_official_suite_passes_as_far_as_the_specification_is_claimed() {
    let suite = program("gateway-conformance").unwrap();
    let home = suite.parent().unwrap().join("../gateway-conformance");
    let store = Arc::new(MemoryStore::new());
    for path in cars(&home.join("fixtures")) {
        let mut file = fs::File::open(&path).unwrap();
        let imported = car::import(&*store, &mut file, 1 << 20);
        imported.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    }
    let running = Running::start(router(store, GatewayLimits::default())).await;
    let mut command = Command::new(suite);
    command
        .args(["-test.v", &format!("-specs={SPECS}")])
        .env("GATEWAY_URL", running.url(""))
        .env("GATEWAY_CONFORMANCE_HOME", &home)
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .kill_on_drop(true);
    let ran = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let (passed, failed) = (ended(&said, "PASS"), ended(&said, "FAIL"));
    for name in &passed {
        println!("ok {name}");
    }
    for name in &failed {
        println!("failed: {name}");
    }
    assert!(ran.status.success() && failed.is_empty(), "{said}");
    assert!(passed.len() > 300, "only {} tests were run", passed.len());
}
