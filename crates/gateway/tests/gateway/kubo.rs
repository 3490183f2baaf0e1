//! The real Kubo, which nobody here wrote: as a store behind ours, as a source of blocks, and as a
//! reader of our gateway.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use r3mes_blobs::{
    AnyCid, BlobStore, Cid, MemoryStore, PinName, ResolveError, Scope, Traversal, resolve,
};
use r3mes_gateway::ipfs::{
    FetchOptions, Fetcher, GatewayLimits, KuboStore, Source, router, routing,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::spawn_blocking,
};

use super::{
    outside::{is_left_out, program},
    support::{Running, client, content},
};

/// Set to 1 where Kubo cannot be built.
const SKIP: &str = "R3MES_SKIP_IPFS";

const LIMIT: u64 = 100 << 20;

/// The options under which a file has the same CID there as here.
const AS_HERE: [&str; 3] = ["--cid-version=1", "--raw-leaves", "--chunker=size-1048576"];

/// Hash functions besides its usual one by which it names blocks.
const OTHER_HASHES: [&str; 11] = [
    "sha2-512",
    "sha3-224",
    "sha3-256",
    "sha3-384",
    "sha3-512",
    "keccak-256",
    "keccak-512",
    "blake3",
    "dbl-sha2-256",
    "blake2b-256",
    "blake2s-256",
];

/// A Kubo node of its own, on loopback, that knows nobody. It ends when it is dropped.
struct Kubo {
    home: TempDir,
    rpc: String,
    gateway: String,
    _daemon: Child,
}

impl Kubo {
    /// Starts a node; `settings` are further keys of its configuration with JSON values.
    async fn start(settings: &[(&str, &str)]) -> Self {
        let home = TempDir::new().unwrap();
        run(home.path(), ["init", "--empty-repo"]).await;
        let usual = [
            ("Addresses.Swarm", "[]"),
            ("Addresses.API", "\"/ip4/127.0.0.1/tcp/0\""),
            ("Addresses.Gateway", "\"/ip4/127.0.0.1/tcp/0\""),
            ("AutoConf.Enabled", "false"),
            ("AutoTLS.Enabled", "false"),
            ("Bootstrap", "[]"),
            ("DNS.Resolvers", "{}"),
            ("Discovery.MDNS.Enabled", "false"),
            ("Ipns.DelegatedPublishers", "[]"),
            ("Plugins.Plugins.telemetry.Disabled", "true"),
            ("Provide.Enabled", "false"),
            ("Routing.DelegatedRouters", "[]"),
            ("Routing.Type", "\"none\""),
        ];
        for (key, value) in usual.iter().chain(settings) {
            run(home.path(), ["config", "--json", key, value]).await;
        }
        let mut daemon = ipfs(home.path())
            .arg("daemon")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (mut rpc, mut gateway) = (String::new(), String::new());
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let mut said = String::new();
        loop {
            let line = lines.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("Kubo ended early:\n{said}"));
            let address = |line: &str| {
                let port = line.rsplit('/').next().unwrap();
                format!("http://127.0.0.1:{port}")
            };
            match line.as_str() {
                "Daemon is ready" => break,
                line if line.starts_with("RPC API server listening") => rpc = address(line),
                line if line.starts_with("Gateway server listening") => gateway = address(line),
                _ => {}
            }
            said += &format!("{line}\n");
        }
        // Read on, so that the daemon never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            home,
            rpc,
            gateway,
            _daemon: daemon,
        }
    }

    /// Runs a command on the node and returns what it prints.
    async fn run<const N: usize>(&self, arguments: [&str; N]) -> Vec<u8> {
        run(self.home.path(), arguments).await
    }

    async fn add(&self, file: &[u8]) -> Cid {
        let path = self.home.path().join("file");
        std::fs::write(&path, file).unwrap();
        let [version, leaves, chunker] = AS_HERE;
        let path = path.to_str().unwrap();
        let add = [
            "add",
            "--quieter",
            "--pin=false",
            version,
            leaves,
            chunker,
            path,
        ];
        let printed = String::from_utf8(self.run(add).await).unwrap();
        printed.trim().parse().unwrap()
    }

    /// A store over the node, with its pins in a folder of the node's home.
    async fn store(&self) -> Arc<KuboStore> {
        let (rpc, folder) = (self.rpc.clone(), self.pins());
        let opened = spawn_blocking(move || KuboStore::open(&rpc, &folder));
        Arc::new(opened.await.unwrap().unwrap())
    }

    fn pins(&self) -> PathBuf {
        self.home.path().join("r3mes-pins")
    }

    /// Lets the grace period of what was stored so far end.
    fn age(&self) {
        let stored = std::fs::File::options()
            .write(true)
            .open(self.pins().join("stored"));
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        stored.unwrap().set_modified(long_ago).unwrap();
    }
}

fn ipfs(home: &Path) -> Command {
    let program = program("ipfs").expect("tests that are left out start none");
    let mut command = Command::new(program);
    command.env("IPFS_PATH", home).stdin(Stdio::null());
    command
}

async fn run<A: AsRef<OsStr>>(home: &Path, arguments: impl IntoIterator<Item = A>) -> Vec<u8> {
    let ran = ipfs(home).args(arguments).output().await.unwrap();
    let complaint = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{complaint}");
    ran.stdout
}

fn name(text: &str) -> PinName {
    PinName::new(text).unwrap()
}

/// Works with a store on a thread that may wait.
async fn with<T: Send + 'static>(
    store: &Arc<KuboStore>,
    work: impl FnOnce(&KuboStore) -> T + Send + 'static,
) -> T {
    let store = store.clone();
    spawn_blocking(move || work(&store)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_one_name_in_kubo_and_here() {
    if is_left_out(SKIP) {
        return;
    }
    let kubo = Kubo::start(&[]).await;
    let store = kubo.store().await;
    for len in [0, 11, 1 << 20, (1 << 20) + 1, 5_000_000] {
        let file = content(len as u64, len);
        let theirs = kubo.add(&file).await;
        let ours = MemoryStore::new().put(&file).unwrap();
        assert_eq!(ours, theirs, "{len} bytes");
        // What they added we read, checked block by block.
        let expected = file.clone();
        let read = with(&store, move |store| store.get(&theirs, LIMIT).unwrap()).await;
        assert!(read == expected, "{len} bytes");
    }
    for hash in OTHER_HASHES {
        let path = kubo.home.path().join("file");
        std::fs::write(&path, content(7, 300_000)).unwrap();
        let hash = format!("--hash={hash}");
        let add = [
            "add",
            "-Q",
            "--cid-version=1",
            "--raw-leaves",
            &hash,
            path.to_str().unwrap(),
        ];
        let printed = String::from_utf8(kubo.run(add).await).unwrap();
        let root: AnyCid = printed.trim().parse().unwrap();
        // The node and its two leaves, checked block by block.
        let links = with(&store, move |store| {
            let links = store.any_block(&root).unwrap().unwrap().links().unwrap();
            let here = links
                .iter()
                .map(|link| store.any_block(link).unwrap().unwrap());
            here.map(|block| block.bytes().len()).collect::<Vec<_>>()
        });
        assert_eq!(links.await, [262_144, 300_000 - 262_144], "{hash}");
    }
    let file = content(99, 3_000_000);
    let (cid, put) = (MemoryStore::new().put(&file).unwrap(), file.clone());
    let absent = with(&store, move |store| {
        let before = (store.contains(&cid).unwrap(), store.block(&cid).unwrap());
        assert_eq!(store.put(&put).unwrap(), cid);
        assert!(store.contains(&cid).unwrap() && store.missing(&cid).unwrap().is_empty());
        before
    });
    assert_eq!(absent.await, (false, None));
    // What we put they read.
    let read = kubo.run(["cat", &cid.to_string()]).await;
    assert!(read == file);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubo_keeps_what_is_pinned_and_nothing_is_removed_too_early() {
    if is_left_out(SKIP) {
        return;
    }
    let kubo = Kubo::start(&[]).await;
    let store = kubo.store().await;
    let (kept, dropped) = with(&store, |store| {
        let kept = store.put(&content(1, 3_000_000)).unwrap();
        let dropped = store.put(&content(2, 3_000_000)).unwrap();
        for pin in ["round-1", "round-2"] {
            store.pin(&kept, &name(pin)).unwrap();
        }
        // A block may be waiting for its pin.
        assert_eq!(store.collect_garbage(0).unwrap().removed.blocks, 0);
        (kept, dropped)
    })
    .await;
    kubo.age();
    // A pin whose blocks are still to come holds the collector back, too.
    let awaited = MemoryStore::new().put(&content(3, 3_000_000)).unwrap();
    let waiting = with(&store, move |store| {
        store.pin(&awaited, &name("download")).unwrap();
        store.collect_garbage(0).unwrap().removed.blocks
    });
    assert_eq!(waiting.await, 0);
    with(&store, move |store| {
        assert!(store.unpin(&awaited, &name("download")).unwrap());
        assert!(store.unpin(&kept, &name("round-1")).unwrap());
        assert!(!store.unpin(&kept, &name("round-1")).unwrap());
        assert!(store.collect_garbage(0).unwrap().removed.blocks >= 4);
        assert!(store.missing(&kept).unwrap().is_empty());
        assert!(!store.contains(&dropped).unwrap());
        // The last name goes, and with it Kubo's pin.
        assert!(store.unpin(&kept, &name("round-2")).unwrap());
        store.collect_garbage(0).unwrap();
        assert!(!store.contains(&kept).unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_own_pins_are_left_alone() {
    if is_left_out(SKIP) {
        return;
    }
    let kubo = Kubo::start(&[]).await;
    let cid = kubo.add(&content(1, 2_000_000)).await;
    let text = cid.to_string();
    kubo.run(["pin", "add", "--name=mine", &text]).await;
    let store = kubo.store().await;
    with(&store, move |store| {
        store.pin(&cid, &name("round-1")).unwrap();
        assert!(store.unpin(&cid, &name("round-1")).unwrap());
    })
    .await;
    let pins = kubo.run(["pin", "ls", "--names", "--type=recursive"]).await;
    let pins = String::from_utf8(pins).unwrap();
    assert!(pins.contains(&format!("{text} recursive mine")), "{pins}");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_fetcher_fetches_from_kubos_gateway() {
    if is_left_out(SKIP) {
        return;
    }
    let kubo = Kubo::start(&[]).await;
    let file = content(4, 5_000_000);
    let cid = kubo.add(&file).await;
    let source: Source = kubo.gateway.parse().unwrap();
    let here = Arc::new(MemoryStore::new());
    let fetcher = Fetcher::new(here.clone(), FetchOptions::default()).unwrap();
    let got = fetcher.get(&cid, &[source], LIMIT).await.unwrap();
    assert!(got == file);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubo_imports_the_car_that_our_gateway_sends_and_we_the_one_it_exports() {
    if is_left_out(SKIP) {
        return;
    }
    let store = Arc::new(MemoryStore::new());
    let file = content(5, 5_000_000);
    let cid = store.put(&file).unwrap();
    let running = Running::start(router(store, GatewayLimits::default())).await;
    let kubo = Kubo::start(&[]).await;
    for dups in ["n", "y"] {
        let url = running.url(&format!("/ipfs/{cid}?format=car&car-dups={dups}"));
        let car = client()
            .get(url)
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let path = kubo.home.path().join("blob.car");
        std::fs::write(&path, car).unwrap();
        kubo.run(["dag", "import", path.to_str().unwrap()]).await;
    }
    assert!(kubo.run(["cat", &cid.to_string()]).await == file);
    let exported = kubo.run(["dag", "export", &cid.to_string()]).await;
    let here = MemoryStore::new();
    let roots = r3mes_blobs::car::import(&here, &mut &exported[..], LIMIT).unwrap();
    assert_eq!(roots, [cid]);
    assert!(here.get(&cid, LIMIT).unwrap() == file);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubo_finds_us_by_our_router_and_fetches_over_http() {
    if is_left_out(SKIP) {
        return;
    }
    let store = Arc::new(MemoryStore::new());
    let file = content(6, 5_000_000);
    let cid = store.put(&file).unwrap();
    let gateway = Running::start(router(store.clone(), GatewayLimits::default())).await;
    let directory = Running::start(routing(store, &gateway.url("")).unwrap()).await;
    // It has no other way to a block: no peers, and no router but ours.
    let routers = format!("[\"{}\"]", directory.url("").trim_end_matches('/'));
    let settings = [
        ("Routing.Type", "\"autoclient\""),
        ("Routing.DelegatedRouters", &routers),
    ];
    let kubo = Kubo::start(&settings).await;
    let cid = cid.to_string();
    assert!(kubo.run(["cat", "--timeout=60s", &cid]).await == file);
    // The root names the same leaves there as here, and all of them have arrived.
    let leaves = kubo.run(["refs", "--offline", &cid]).await;
    assert_eq!(String::from_utf8(leaves).unwrap().lines().count(), 5);
    let root = kubo.run(["dag", "get", "--offline", &cid]).await;
    let root: serde_json::Value = serde_json::from_slice(&root).unwrap();
    assert_eq!(root["Links"].as_array().unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_found_in_the_sharded_directories_that_kubo_makes() {
    if is_left_out(SKIP) {
        return;
    }
    let kubo = Kubo::start(&[("Import.UnixFSHAMTDirectorySizeThreshold", "\"1B\"")]).await;
    let folder = kubo.home.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let entry = |number: usize| format!("{}-{number}", "entry".repeat(number % 5));
    for number in 0..300 {
        std::fs::write(folder.join(entry(number)), entry(number)).unwrap();
    }
    let add = [
        "add",
        "-r",
        "-Q",
        "--cid-version=1",
        folder.to_str().unwrap(),
    ];
    let root = String::from_utf8(kubo.run(add).await).unwrap();
    let root: Cid = root.trim().parse().unwrap();
    let store = Arc::new(MemoryStore::new());
    let exported = kubo.run(["dag", "export", &root.to_string()]).await;
    r3mes_blobs::car::import(&*store, &mut &exported[..], LIMIT).unwrap();
    let mut deepest = 0;
    for number in 0..300 {
        let found = resolve(&*store, root, &[entry(number)]).unwrap();
        assert_eq!(
            store
                .get(&Cid::try_from(&found.cid).unwrap(), LIMIT)
                .unwrap(),
            entry(number).as_bytes()
        );
        deepest = deepest.max(found.way.len());
    }
    assert!(deepest > 1, "the directory has one shard only");
    let absent = resolve(&*store, root, &["absent".to_owned()]);
    assert!(matches!(absent, Err(ResolveError::NoEntry { .. })));
    // All shards, and none of the files, list the directory.
    let mut listing = Traversal::new(root, Scope::Bytes { from: 0, to: 1 });
    let mut shards = 0;
    while let Some(block) = listing.next(&*store).unwrap() {
        assert_eq!(block.cid().codec(), 0x70);
        shards += 1;
    }
    assert_eq!(shards, store.usage().unwrap().blocks - 300);
}
