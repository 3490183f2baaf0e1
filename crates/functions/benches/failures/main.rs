//! What other callers notice of a failure: how long their calls take while nothing is wrong, and while somebody
//! provokes the failure without a pause, in turns.
//!
//! `cargo bench -p r3mes-functions --bench failures [-- FAILURE ... --quick]` prints a table, of all failures
//! where none is named. Gateway, node, callers and who provokes are processes of their own over loopback; the
//! latter has the lowest priority of the scheduler, as a stranger on another machine would take no processor from
//! here. Of each turn the median and the 99% are taken, and of all turns the least of either, since what else
//! runs on the machine only ever adds to them.

mod ends;
mod trouble;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use r3mes_functions::{client::Client, wire::messages::CallHead};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use self::trouble::Trouble;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Who calls while it happens, and how often each begins a call: 2,000 calls a second together, if none waits.
const CALLERS: usize = 8;
const PACE: Duration = Duration::from_millis(4);

#[tokio::main]
async fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["gateway"] => ends::gateway().await,
        ["node", broker, id, prefix] => ends::node(broker, id, prefix).await,
        ["trouble", broker, name] => Trouble::named(name)?.provoke(broker).await,
        _ => measure(&words).await,
    }
}

/// A process of this program that says one line when it is ready, and ends with its input.
struct Part {
    process: Child,
    said: String,
}

impl Part {
    fn start(arguments: &[&str]) -> Outcome<Self> {
        let program = std::env::current_exe()?;
        Self::of(Command::new(program).args(arguments))
    }

    /// The same, where it hardly takes anybody's processor.
    fn start_behind(arguments: &[&str]) -> Outcome<Self> {
        let program = std::env::current_exe()?;
        Self::of(
            Command::new("nice")
                .args(["-n", "19"])
                .arg(program)
                .args(arguments),
        )
    }

    fn of(command: &mut Command) -> Outcome<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        let said = said.trim().to_owned();
        if said.is_empty() {
            return Err(format!("{command:?} ended before it was ready").into());
        }
        Ok(Self { process, said })
    }

    /// Ends it, where it should have gone on until now.
    fn end(mut self) -> Outcome<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("what provokes the failure ended: {status}").into()),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // What has ended already cannot be ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Says that this process is ready.
fn ready(word: &str) -> Outcome<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{word}")?;
    Ok(output.flush()?)
}

async fn measure(words: &[&str]) -> Outcome<()> {
    let quick = words.contains(&"--quick");
    let (each, turns) = match quick {
        true => (Duration::from_secs(1), 1),
        false => (Duration::from_secs(2), 6),
    };
    // Cargo adds a word of its own.
    let named = words.iter().filter(|word| !word.starts_with("--"));
    let mut troubles = named
        .map(|name| Trouble::named(name))
        .collect::<Outcome<Vec<_>>>()?;
    if troubles.is_empty() {
        troubles.extend(Trouble::ALL);
    }
    let gateway = Part::start(&["gateway"])?;
    let address = gateway.said.as_str();
    let _node = Part::start(&["node", address, "bench", ""])?;
    println!("| while | median, µs | 99%, µs | quiet: median | 99% | 99%, times quiet |");
    println!("|---|---:|---:|---:|---:|---:|");
    for trouble in troubles {
        let (mut quiet, mut loud) = (Least::default(), Least::default());
        for _ in 0..turns {
            quiet.keep(calls(address, each).await?);
            let provoking = Part::start_behind(&["trouble", address, trouble.name()])?;
            loud.keep(calls(address, each).await?);
            provoking.end()?;
        }
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |",
            trouble.words(),
            loud.median,
            loud.most,
            quiet.median,
            quiet.most,
            loud.most / quiet.most
        );
    }
    Ok(())
}

/// The least of several turns, in microseconds.
struct Least {
    median: f64,
    /// What one call in a hundred exceeds.
    most: f64,
}

impl Default for Least {
    fn default() -> Self {
        Self {
            median: f64::MAX,
            most: f64::MAX,
        }
    }
}

impl Least {
    /// Keeps what a turn was better in.
    fn keep(&mut self, mut times: Vec<Duration>) {
        times.sort_unstable();
        let us = |hundredth: usize| times[times.len() * hundredth / 100].as_secs_f64() * 1e6;
        self.median = self.median.min(us(50));
        self.most = self.most.min(us(99));
    }
}

/// How long calls take that begin at a steady pace.
async fn calls(broker: &str, each: Duration) -> Outcome<Vec<Duration>> {
    let client = Arc::new(ends::client(broker).await?);
    let (mut callers, until) = (JoinSet::new(), Instant::now() + each);
    for number in 0..CALLERS {
        let client = Arc::clone(&client);
        callers.spawn(async move {
            tokio::time::sleep(PACE * number as u32 / CALLERS as u32).await;
            let (mut pace, mut times) = (interval(PACE), Vec::new());
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while Instant::now() < until {
                pace.tick().await;
                let began = Instant::now();
                echo(&client).await?;
                times.push(began.elapsed());
            }
            Outcome::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = callers.join_next().await {
        times.extend(done??);
    }
    Ok(times)
}

async fn echo(client: &Client) -> Outcome<()> {
    let reply = client.call(&CallHead::new("echo"), "argument").await?;
    match reply.result().await? {
        echoed if echoed == "argument" => Ok(()),
        _ => Err("other bytes came back".into()),
    }
}
