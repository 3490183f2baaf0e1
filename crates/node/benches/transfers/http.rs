//! JSON-RPC over one HTTP/1.1 connection that stays open: little work of its own, since it shares the
//! processor with what is measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

/// For how long an answer is waited for; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an RPC listens.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// An open connection.
pub(crate) struct Connection {
    stream: BufReader<Box<dyn Stream + Send>>,
    body: Vec<u8>,
}

/// A request as it goes over the wire.
pub(crate) fn request(calls: &Value) -> Vec<u8> {
    let body = calls.to_string();
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Connection {
    pub(crate) fn open(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let stream: Box<dyn Stream + Send> = match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        };
        Ok(Self {
            stream: BufReader::new(stream),
            body: Vec::new(),
        })
    }

    /// The answer to one call.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        let call = serde_json::json!({
            "jsonrpc": "2.0", "id": 0, "method": method, "params": params,
        });
        let mut answer = self.exchange(&request(&call))?;
        anyhow::ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        Ok(answer["result"].take())
    }

    /// Sends a [`request`] and reads its answer.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Value> {
        self.stream.get_mut().write_all(request)?;
        self.read_body()?;
        serde_json::from_slice(&self.body).context("an answer that is no JSON")
    }

    fn read_body(&mut self) -> anyhow::Result<()> {
        self.body.clear();
        let mut line = self.line()?;
        anyhow::ensure!(line.starts_with("HTTP/1.1 "), "not HTTP: {line}");
        let (mut length, mut chunked) = (0, false);
        loop {
            line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse()?,
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                Some(_) => {}
            }
        }
        if !chunked {
            return self.take(length);
        }
        loop {
            let length = usize::from_str_radix(&self.line()?, 16)?;
            self.take(length)?;
            self.line()?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line)?;
        anyhow::ensure!(read > 0, "the connection was closed");
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn take(&mut self, length: usize) -> anyhow::Result<()> {
        let begin = self.body.len();
        self.body.resize(begin + length, 0);
        Ok(self.stream.read_exact(&mut self.body[begin..])?)
    }
}
