//! Machines in network namespaces, on a switch whose cables can be pulled.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// Set in the process that runs in the switch's namespace, to what the namespaces' names begin with.
const INSIDE: &str = "R3MES_HOSTS_PREFIX";
/// Delay of a slow cable in each direction, in milliseconds, and the share of frames it loses.
const DELAY_MS: u32 = 200;
const LOSS_PERCENT: u32 = 1;

/// Machines with addresses of their own, all on one switch.
pub(crate) struct Lan {
    prefix: String,
    hosts: usize,
}

/// A cable that is slow as long as this lives.
pub(crate) struct Slow {
    port: String,
    /// The machine's network namespace.
    machine: String,
    relay: Option<Child>,
}

impl Drop for Slow {
    fn drop(&mut self) {
        let (port, machine) = (&self.port, &self.machine);
        let Some(relay) = &mut self.relay else {
            let _ = command(&format!("tc qdisc del dev {port} root")).status();
            let _ = command(&format!("tc -n {machine} qdisc del dev eth0 root")).status();
            return;
        };
        // It runs until it is killed; the whole namespace goes when that fails.
        let _ = relay.kill();
        let _ = relay.wait();
        let _ = command(&format!("ip link set {port} master main")).status();
    }
}

/// The address of a machine.
pub(crate) fn address(host: usize) -> String {
    format!("10.77.0.{host}")
}

fn command(words: &str) -> Command {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// Runs a command that must succeed.
fn must(words: &str) {
    let output = command(words)
        .output()
        .unwrap_or_else(|error| panic!("{words}: {error}"));
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {}", why.trim());
}

/// Runs the test `name` of this binary in the namespace of a switch with so many machines, numbered
/// from 1. In that process it gives the machines; in the one that was started by a person, `None`, when
/// all is over. With `R3MES_SKIP_NETNS` nothing is run.
pub(crate) fn enter(name: &str, hosts: usize) -> Option<Lan> {
    if let Ok(prefix) = env::var(INSIDE) {
        return Some(Lan { prefix, hosts });
    }
    if env::var_os("R3MES_SKIP_NETNS").is_some_and(|skip| !skip.is_empty()) {
        eprintln!("left out, because R3MES_SKIP_NETNS is set");
        return None;
    }
    let lan = Outside(Lan {
        prefix: format!("r3mes-{}", std::process::id()),
        hosts,
    });
    lan.0.make();
    let mut inside = command(&format!("ip netns exec {}", lan.0.switch()));
    inside.arg(env::current_exe().expect("this binary has a path"));
    inside.args(["--exact", name, "--nocapture"]);
    let status = inside.env(INSIDE, &lan.0.prefix).status();
    assert!(status.expect("it starts").success(), "see above");
    None
}

/// Takes everything down when it is dropped.
struct Outside(Lan);

impl Drop for Outside {
    fn drop(&mut self) {
        for host in 1..=self.0.hosts {
            self.0.kill(host);
            // What is not there any more need not be removed.
            let _ = command(&format!("ip netns del {}", self.0.name(host))).output();
        }
        let _ = command(&format!("ip netns del {}", self.0.switch())).output();
    }
}

impl Lan {
    fn switch(&self) -> String {
        format!("{}-switch", self.prefix)
    }

    fn name(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn make(&self) {
        let switch = self.switch();
        let made = command(&format!("ip netns add {switch}")).output();
        let mend = "Run this test as root with iproute2 installed (on Debian: apt-get install iproute2), on Linux with \
                    network namespaces, or leave it out with R3MES_SKIP_NETNS=1";
        let made =
            made.unwrap_or_else(|error| panic!("machines need `ip netns`: {error}. {mend}."));
        let why = String::from_utf8_lossy(&made.stderr);
        assert!(
            made.status.success(),
            "machines need `ip netns`: {}. {mend}.",
            why.trim()
        );
        let on_switch = format!("ip -n {switch}");
        must(&format!("{on_switch} link set lo up"));
        for bridge in ["main", "island"] {
            must(&format!("{on_switch} link add {bridge} type bridge"));
            must(&format!("{on_switch} link set {bridge} up"));
        }
        must(&format!(
            "{on_switch} address add {}/24 dev main",
            address(254)
        ));
        for host in 1..=self.hosts {
            let name = self.name(host);
            must(&format!("ip netns add {name}"));
            must(&format!(
                "{on_switch} link add port{host} type veth peer name eth0 netns {name}"
            ));
            must(&format!("{on_switch} link set port{host} master main up"));
            must(&format!("ip -n {name} link set lo up"));
            must(&format!(
                "ip -n {name} address add {}/24 dev eth0",
                address(host)
            ));
            must(&format!("ip -n {name} link set eth0 up"));
        }
    }

    /// A program on a machine.
    pub(crate) fn on(&self, host: usize, program: &Path) -> Command {
        let mut command = command(&format!("ip netns exec {}", self.name(host)));
        command.arg(program);
        command
    }

    /// Cuts machines off from the others, together.
    pub(crate) fn cut(&self, hosts: &[usize]) {
        for host in hosts {
            must(&format!("ip link set port{host} master island"));
        }
    }

    /// Connects machines with the others again.
    pub(crate) fn heal(&self, hosts: &[usize]) {
        for host in hosts {
            must(&format!("ip link set port{host} master main"));
        }
    }

    /// Ends every process of a machine without warning, as when its power fails.
    pub(crate) fn kill(&self, host: usize) {
        let pids = command(&format!("ip netns pids {}", self.name(host))).output();
        let pids = pids.map(|pids| pids.stdout).unwrap_or_default();
        let pids = String::from_utf8_lossy(&pids).into_owned();
        if !pids.is_empty() {
            let mut kill = command("kill -9");
            // One that has ended by itself meanwhile is as dead.
            let _ = kill
                .args(pids.split_whitespace())
                .stderr(Stdio::null())
                .status();
        }
    }

    /// Makes a machine's cable slow and lossy: by netem, or where the kernel has none, by a relay.
    pub(crate) fn slow(&self, host: usize) -> Slow {
        let port = format!("port{host}");
        let netem = format!("root netem delay {DELAY_MS}ms loss {LOSS_PERCENT}%");
        let shaped = command(&format!("tc qdisc add dev {port} {netem}")).output();
        if shaped.is_ok_and(|shaped| shaped.status.success()) {
            must(&format!(
                "tc -n {} qdisc add dev eth0 {netem}",
                self.name(host)
            ));
            let machine = self.name(host);
            return Slow {
                port,
                machine,
                relay: None,
            };
        }
        eprintln!("this kernel has no netem: a relay delays and loses the frames");
        must("ip link add relay0 type veth peer name relay1");
        must("ip link set relay1 master main up");
        must("ip link set relay0 promisc on up");
        must(&format!("ip link set {port} nomaster promisc on"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts/relay.py");
        let mut relay = command("python3");
        relay.arg(script).args([&port, "relay0"]);
        relay.arg(DELAY_MS.to_string());
        relay.arg((f64::from(LOSS_PERCENT) / 100.0).to_string());
        let mut relay = relay
            .arg("1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed: tools/setup does it");
        let says = relay.stdout.take().expect("it is a pipe");
        let mut line = String::new();
        BufReader::new(says)
            .read_line(&mut line)
            .expect("it says something");
        assert_eq!(line, "ready\n");
        Slow {
            port,
            machine: self.name(host),
            relay: Some(relay),
        }
    }

    /// What a round trip to a slow machine takes at least, in milliseconds.
    pub(crate) const fn round_trip_ms() -> u32 {
        2 * DELAY_MS
    }
}
