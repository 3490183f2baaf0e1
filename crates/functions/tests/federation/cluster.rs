//! Real NATS servers for tests.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// The program, or `None` if its tests are to be left out.
fn program() -> Option<PathBuf> {
    if std::env::var_os("R3MES_SKIP_NATS_SERVER").is_some_and(|skip| !skip.is_empty()) {
        eprintln!("left out, because R3MES_SKIP_NATS_SERVER is set");
        return None;
    }
    let folder = std::env::var_os("R3MES_PROGRAMS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.programs/bin"),
        PathBuf::from,
    );
    let program = folder.join("nats-server");
    assert!(
        program.is_file(),
        "{} is missing: build it with tools/programs (this needs Go), or leave these tests out with R3MES_SKIP_NATS_SERVER=1",
        program.display()
    );
    Some(program)
}

/// NATS servers that are one cluster, killed when it is dropped.
pub(crate) struct Cluster {
    servers: Vec<Child>,
    ports: Vec<u16>,
    _data: TempDir,
}

impl Cluster {
    /// As many servers as asked for; `None` if these tests are to be left out.
    pub(crate) fn start(servers: usize) -> Option<Self> {
        Self::start_with(servers, None)
    }

    /// Servers that speak TLS with the certificate and the key in these files, if they are given.
    pub(crate) fn start_with(servers: usize, tls: Option<(&Path, &Path)>) -> Option<Self> {
        let program = program()?;
        let data = tempfile::tempdir().unwrap();
        let free: Vec<TcpListener> = (0..2 * servers)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports = free.iter().map(|free| free.local_addr().unwrap().port());
        let ports: Vec<u16> = ports.collect();
        drop(free);
        let (clients, routes) = ports.split_at(servers);
        let urls: Vec<String> = routes
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        let start = |at: usize| {
            let mut command = Command::new(&program);
            command
                .args(["--addr", "127.0.0.1", "--jetstream"])
                .args(["--port", &clients[at].to_string()])
                .args(["--name", &format!("server{at}")])
                .arg("--store_dir")
                .arg(data.path().join(at.to_string()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if servers > 1 {
                command
                    .args(["--cluster_name", "test", "--cluster", &urls[at]])
                    .args(["--routes", &urls.join(",")]);
            }
            if let Some((certificate, key)) = tls {
                command.arg("--tls").arg("--tlscert").arg(certificate);
                command.arg("--tlskey").arg(key);
            }
            command.spawn().unwrap()
        };
        Some(Self {
            servers: (0..servers).map(start).collect(),
            ports: clients.to_vec(),
            _data: data,
        })
    }

    pub(crate) fn kill(&mut self, server: usize) {
        self.servers[server].kill().unwrap();
        self.servers[server].wait().unwrap();
    }

    /// How many servers there were.
    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    /// The servers, this one first.
    pub(crate) fn urls(&self, first: usize) -> Vec<String> {
        let mut ports = self.ports.clone();
        ports.rotate_left(first);
        let url = |port: &u16| format!("nats://127.0.0.1:{port}");
        ports.iter().map(url).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
