//! Adding files and getting them back, beside Kubo.
//!
//! `cargo bench -p r3mes-blobs --bench kubo [-- --quick]`. It needs the program ipfs (tools/programs);
//! the folders are made under `TMPDIR`, and take some gigabytes.
//!
//! Here a file is read, cut, hashed and stored by [`DiskStore`], and read back with every block checked.
//! Kubo does the same work (the CIDs are compared) in two ways: asked over its RPC, as another program
//! would, by a daemon that has no network; and as the command `ipfs`, alone on a repository of its own.
//! The faster of the two counts.
//!
//! As it comes, Kubo neither waits for the disk nor checks what it reads; it can be told to do both.
//! Both settings are compared: Kubo *careful* with a durable store here, and Kubo *as it comes* with one
//! that does not flush. Reads here are checked either way.
//!
//! All take turns on the same file, which lies in memory, with content that nobody has seen before; the
//! table has the least of the turns.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use r3mes_blobs::{BlobStore, Cid, DiskOptions, DiskStore, FileReader};

type Failure = Box<dyn std::error::Error>;

/// Sizes in bytes, and turns of each.
const FULL: &[(u64, usize)] = &[(1_000_000, 9), (100_000_000, 5), (1_000_000_000, 3)];
const QUICK: &[(u64, usize)] = &[(1_000_000, 3), (100_000_000, 1)];

/// The options under which a file has the same CID in Kubo as here.
const AS_HERE: [&str; 4] = [
    "--cid-version=1",
    "--raw-leaves",
    "--chunker=size-1048576",
    "--pin=false",
];

/// Settings of a Kubo that speaks with nobody.
const ALONE: [(&str, &str); 13] = [
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

/// Kubo's usual stores, with the one of blocks told to wait for the disk.
const FLUSHED: &str = r#"{"type": "mount", "mounts": [
    {"mountpoint": "/blocks", "path": "blocks", "prefix": "flatfs.datastore",
     "shardFunc": "/repo/flatfs/shard/v1/next-to-last/2", "sync": true, "type": "flatfs"},
    {"mountpoint": "/", "path": "datastore", "prefix": "leveldb.datastore",
     "compression": "none", "type": "levelds"}]}"#;
/// Settings of a careful Kubo besides.
const CAREFUL: [(&str, &str); 2] = [
    ("Datastore.HashOnRead", "true"),
    ("Datastore.Spec", FLUSHED),
];

/// Bytes that a file is written and an upload is sent by.
const PIECE: usize = 1 << 20;
/// Parts the body of an upload; no file here has this line in it.
const BOUNDARY: &str = "r3mes-bench-5b0e1c2d5a69780";

fn main() -> Result<(), Failure> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let folder = tempfile::tempdir()?;
    let pairs = [
        Pair::open(&folder.path().join("careful"), "careful", true)?,
        Pair::open(&folder.path().join("as-it-comes"), "as it comes", false)?,
    ];
    println!("| | bytes | Kubo | here, MB/s | Kubo, MB/s | by | ratio |");
    println!("|---|---:|---|---:|---:|---|---:|");
    let mut seed = 0;
    for &(bytes, turns) in if quick { QUICK } else { FULL } {
        let mut bests: [Best; 2] = Default::default();
        for _ in 0..turns {
            seed += 1;
            let file = folder.path().join("file");
            write_content(&file, seed, bytes)?;
            for (pair, best) in pairs.iter().zip(&mut bests) {
                pair.turn(&file, bytes, best)?;
            }
        }
        for (what, of) in [("add", 0), ("get", 1)] {
            for (pair, best) in pairs.iter().zip(&bests) {
                best.show(what, bytes, pair.name, of);
            }
        }
    }
    Ok(())
}

/// A store of ours, and Kubo with the same promises in both ways.
struct Pair {
    name: &'static str,
    ours: DiskStore,
    daemon: Daemon,
    command: Kubo,
}

impl Pair {
    fn open(folder: &Path, name: &'static str, careful: bool) -> Result<Self, Failure> {
        let options = DiskOptions {
            durable: careful,
            ..DiskOptions::default()
        };
        fs::create_dir(folder)?;
        Ok(Self {
            name,
            ours: DiskStore::open(folder.join("ours"), options)?,
            daemon: Daemon::start(Kubo::init(&folder.join("daemon"), careful)?)?,
            command: Kubo::init(&folder.join("command"), careful)?,
        })
    }

    fn turn(&self, file: &Path, bytes: u64, best: &mut Best) -> Result<(), Failure> {
        let [add, get] = &mut best.0;
        let cid = add[0].time(|| Ok(self.ours.put_reader(&mut File::open(file)?)?))?;
        let added = [
            add[1].time(|| self.daemon.add(file))?,
            add[2].time(|| self.command.add(file))?,
        ];
        let name = cid.to_string();
        assert_eq!(added, [name.clone(), name], "one file has one CID");
        let got = [
            get[0].time(|| get_here(&self.ours, &cid))?,
            get[1].time(|| self.daemon.cat(&cid))?,
            get[2].time(|| self.command.cat(&cid))?,
        ];
        assert_eq!(got, [bytes; 3], "all of it comes back");
        Ok(())
    }
}

/// The least times of adding and of getting: here, over Kubo's RPC, by Kubo's command.
#[derive(Default)]
struct Best([[Least; 3]; 2]);

struct Least(Duration);

impl Default for Least {
    fn default() -> Self {
        Self(Duration::MAX)
    }
}

impl Least {
    fn time<T>(&mut self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let begin = Instant::now();
        let done = work()?;
        self.0 = self.0.min(begin.elapsed());
        Ok(done)
    }
}

impl Best {
    fn show(&self, what: &str, bytes: u64, name: &str, of: usize) {
        let [here, rpc, command] = [0, 1, 2].map(|way| self.0[of][way].0.as_secs_f64());
        let (kubo, by) = match rpc <= command {
            true => (rpc, "RPC"),
            false => (command, "command"),
        };
        let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
        println!(
            "| {what} | {bytes} | {name} | {:.0} | {:.0} | {by} | {:.2} |",
            rate(here),
            rate(kubo),
            kubo / here
        );
    }
}

/// Writes bytes that repeat nowhere and differ from seed to seed.
fn write_content(path: &Path, seed: u64, bytes: u64) -> io::Result<()> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut file = File::create(path)?;
    let mut left = bytes;
    while left > 0 {
        let mut piece = Vec::with_capacity(PIECE);
        while piece.len() < PIECE {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            piece.extend(state.to_le_bytes());
        }
        piece.truncate(PIECE.min(left as usize));
        file.write_all(&piece)?;
        left -= piece.len() as u64;
    }
    // What is measured should not wait for this file.
    file.sync_all()
}

/// How many bytes of a file came out of the store.
fn get_here(store: &DiskStore, cid: &Cid) -> Result<u64, Failure> {
    let mut reader = FileReader::open(store, cid)?;
    let mut bytes = 0;
    while let Some(chunk) = reader.next_chunk()? {
        bytes += chunk.len() as u64;
    }
    Ok(bytes)
}

/// A repository of Kubo's.
struct Kubo {
    program: PathBuf,
    repository: PathBuf,
}

impl Kubo {
    fn init(repository: &Path, careful: bool) -> Result<Self, Failure> {
        let folder = std::env::var_os("R3MES_PROGRAMS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.programs/bin"),
            PathBuf::from,
        );
        let program = folder.join("ipfs");
        if !program.is_file() {
            let program = program.display();
            return Err(format!("{program} is missing: build it with tools/programs").into());
        }
        fs::create_dir(repository)?;
        let kubo = Self {
            program,
            repository: repository.to_owned(),
        };
        kubo.run(&["init", "--empty-repo"])?;
        let more = if careful { &CAREFUL[..] } else { &[] };
        for (key, value) in ALONE.iter().chain(more) {
            kubo.run(&["config", "--json", key, value])?;
        }
        Ok(kubo)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("IPFS_PATH", &self.repository);
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.command().args(arguments).output()?;
        if !output.status.success() {
            return Err(format!("ipfs {arguments:?}: {}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn add(&self, file: &Path) -> Result<String, Failure> {
        let path = file.to_str().ok_or("TMPDIR is no text")?;
        let [version, leaves, chunker, pin] = AS_HERE;
        self.run(&["add", "--quieter", version, leaves, chunker, pin, path])
    }

    fn cat(&self, cid: &Cid) -> Result<u64, Failure> {
        let mut child = self
            .command()
            .args(["cat", &cid.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = child.stdout.take().ok_or("no output")?;
        let bytes = drain(&mut output)?;
        match child.wait()?.success() {
            true => Ok(bytes),
            false => Err("ipfs cat failed".into()),
        }
    }
}

/// A Kubo that runs until it is dropped.
struct Daemon {
    child: Child,
    rpc: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn start(kubo: Kubo) -> Result<Self, Failure> {
        let child = kubo
            .command()
            .arg("daemon")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut daemon = Self {
            child,
            rpc: String::new(),
        };
        let output = daemon.child.stdout.take().ok_or("no output")?;
        let mut lines = BufReader::new(output).lines();
        for line in lines.by_ref() {
            let line = line?;
            if line.starts_with("RPC API server listening") {
                let port = line.rsplit('/').next().unwrap_or_default();
                daemon.rpc = format!("127.0.0.1:{port}");
            }
            if line == "Daemon is ready" {
                // Read on, so that the daemon never waits for a reader.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(daemon);
            }
        }
        Err("Kubo ended early".into())
    }

    fn add(&self, file: &Path) -> Result<String, Failure> {
        let options = AS_HERE.map(|option| option.trim_start_matches("--").to_owned());
        let options = options.map(|option| match option.contains('=') {
            true => option,
            false => option + "=true",
        });
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{BOUNDARY}--\r\n");
        let mut file = File::open(file)?;
        let length = head.len() as u64 + file.metadata()?.len() + tail.len() as u64;
        let mut stream = self.post(
            &format!("add?quieter=true&{}", options.join("&")),
            &format!(
                "Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n"
            ),
        )?;
        stream.write_all(head.as_bytes())?;
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => stream.write_all(&piece[..read])?,
            }
        }
        stream.write_all(tail.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let hash = answer
            .rsplit_once("\"Hash\":\"")
            .ok_or_else(|| answer.clone())?;
        Ok(hash.1.split('"').next().unwrap_or_default().to_owned())
    }

    fn cat(&self, cid: &Cid) -> Result<u64, Failure> {
        let mut stream = BufReader::with_capacity(PIECE, self.post(&format!("cat?arg={cid}"), "")?);
        let mut chunked = false;
        loop {
            let line = next_line(&mut stream)?;
            chunked |= line.eq_ignore_ascii_case("transfer-encoding: chunked");
            if line.is_empty() {
                break;
            }
        }
        if !chunked {
            return Ok(drain(&mut stream)?);
        }
        let mut bytes = 0;
        loop {
            let length = u64::from_str_radix(&next_line(&mut stream)?, 16)?;
            if length == 0 {
                return Ok(bytes);
            }
            bytes += drain(&mut (&mut stream).take(length))?;
            next_line(&mut stream)?;
        }
    }

    /// Begins a request, the only one on its connection.
    fn post(&self, call: &str, headers: &str) -> Result<TcpStream, Failure> {
        let mut stream = TcpStream::connect(&self.rpc)?;
        let head = format!(
            "POST /api/v0/{call} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes())?;
        Ok(stream)
    }
}

fn next_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    line.truncate(line.trim_end().len());
    Ok(line)
}

fn drain(from: &mut dyn Read) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut bytes = 0;
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(bytes),
            read => bytes += read as u64,
        }
    }
}
