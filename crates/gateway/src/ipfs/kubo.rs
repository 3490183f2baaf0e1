//! Blocks kept in a Kubo node, spoken to over its RPC.
//!
//! Reference: <https://docs.ipfs.tech/reference/kubo/rpc/>. Kubo is trusted with keeping blocks,
//! not with their content: what it hands out is checked against its CID.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use r3mes_blobs::{
    AnyCid, BlobStore, Block, Cid, Collected, DiskOptions, DiskStore, Pin, PinName, StoreError,
    Usage, car,
};
use reqwest::{StatusCode, Url, header, redirect::Policy};
use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};

/// The name that our pins have in Kubo, by which they are told from an operator's own.
const PIN: &str = "r3mes";

/// How long stored blocks are safe without a pin.
const GRACE: Duration = Duration::from_secs(600);

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest silence: collecting garbage says nothing while it looks for what to keep.
const STALL_TIMEOUT: Duration = Duration::from_secs(600);

/// Longest answer: the list of what was collected, at some 80 bytes a block.
const MAX_ANSWER: usize = 256 << 20;

/// Parts the body of an upload; a CAR with this line in it would be one made for that.
const BOUNDARY: &str = "r3mes-0f6b1d9e4c7a4a52b3f8e1c2d5a69780";

/// A store whose blocks are in a Kubo node.
///
/// Pins are kept in a folder of ours, since Kubo knows one pin a root and refuses to pin what is
/// not complete. What is complete is pinned in Kubo as well, under the name `r3mes`; pins that an
/// operator has set there are left alone.
///
/// Kubo's own garbage collection knows no grace period: leave its `--enable-gc` off.
pub struct KuboStore {
    rpc: Rpc,
    pins: DiskStore,
    /// Touched whenever a block was stored, by any process that uses the folder.
    stored: PathBuf,
}

impl KuboStore {
    /// Connects to the RPC at `address`, such as `http://127.0.0.1:5001`, and keeps pins in
    /// `folder`, which all processes of a node share.
    ///
    /// # Errors
    /// When Kubo does not answer, or the folder cannot be used.
    pub fn open(address: &str, folder: &Path) -> Result<Self, StoreError> {
        let store = Self {
            rpc: Rpc::new(address)?,
            pins: DiskStore::open(folder, DiskOptions::default())?,
            stored: folder.join("stored"),
        };
        store.rpc.call("answer", "version", &[], None)?;
        Ok(store)
    }

    /// Pins in Kubo what is complete, and says whether it is.
    fn hold(&self, root: &Cid) -> Result<bool, StoreError> {
        if self.held(root)?.is_some() {
            return Ok(true);
        }
        let cid = root.to_string();
        let query = [("arg", &*cid), ("name", PIN), ("offline", "true")];
        Ok(self.rpc.call("pin", "pin/add", &query, None)?.is_some())
    }

    /// The name of Kubo's pin on this root, if there is one.
    fn held(&self, root: &Cid) -> Result<Option<String>, StoreError> {
        let cid = root.to_string();
        let query = [("arg", &*cid), ("type", "recursive"), ("names", "true")];
        let Some(answer) = self.rpc.call("list pins", "pin/ls", &query, None)? else {
            return Ok(None);
        };
        let held: Held = self.rpc.read("list pins", &answer)?;
        Ok(held.keys.into_values().next().map(|pin| pin.name))
    }

    /// Whether something was stored so lately that it may still be waiting for its pin.
    fn is_recent(&self) -> bool {
        let stored = fs::metadata(&self.stored).and_then(|file| file.modified());
        let age = stored.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        age.is_ok_and(|age| age < GRACE)
    }

    fn touch(&self) -> Result<(), StoreError> {
        fs::write(&self.stored, []).map_err(|source| StoreError::Io {
            action: "write",
            path: self.stored.clone(),
            source,
        })
    }
}

impl BlobStore for KuboStore {
    fn any_block(&self, cid: &AnyCid) -> Result<Option<Block>, StoreError> {
        let name = cid.to_string();
        let query = [("arg", &*name), ("offline", "true")];
        let Some(bytes) = self.rpc.call("read a block", "block/get", &query, None)? else {
            return Ok(None);
        };
        let block = Block::verify(cid, bytes);
        Ok(Some(
            block.map_err(|error| self.rpc.failed("read a block", error))?,
        ))
    }

    fn contains_any(&self, cid: &AnyCid) -> Result<bool, StoreError> {
        let name = cid.to_string();
        let query = [("arg", &*name), ("offline", "true")];
        let answer = self
            .rpc
            .call("look for a block", "block/stat", &query, None)?;
        Ok(answer.is_some())
    }

    fn insert(&self, blocks: &[Block]) -> Result<(), StoreError> {
        if blocks.is_empty() {
            return Ok(());
        }
        self.touch()?;
        let mut stream = BytesMut::from(&*car::header(&[]));
        for block in blocks {
            stream.extend_from_slice(&car::section_head(block));
            stream.extend_from_slice(block.bytes());
        }
        let query = [
            ("pin-roots", "false"),
            ("stats", "true"),
            ("fast-provide-root", "false"),
            ("offline", "true"),
        ];
        let action = "store blocks";
        let answer = self.rpc.call(action, "dag/import", &query, Some(&stream))?;
        let imported: Imported = self.rpc.read(action, &answer.unwrap_or_default())?;
        if imported.stats.blocks != blocks.len() as u64 {
            let text = format!(
                "{} of {} blocks were taken",
                imported.stats.blocks,
                blocks.len()
            );
            return Err(self.rpc.failed(action, text));
        }
        self.touch()
    }

    fn pin(&self, root: &Cid, name: &PinName) -> Result<(), StoreError> {
        self.pins.pin(root, name)?;
        self.hold(root)?;
        Ok(())
    }

    fn unpin(&self, root: &Cid, name: &PinName) -> Result<bool, StoreError> {
        let was = self.pins.unpin(root, name)?;
        let wanted = self.pins.pins()?.iter().any(|pin| pin.root == *root);
        if !wanted && self.held(root)?.is_some_and(|name| name == PIN) {
            let cid = root.to_string();
            let query = [("arg", &*cid)];
            self.rpc.call("remove a pin", "pin/rm", &query, None)?;
        }
        Ok(was)
    }

    fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.pins.pins()
    }

    /// What Kubo's repository holds, pins of others included; bytes are those on its disk.
    fn usage(&self) -> Result<Usage, StoreError> {
        let action = "measure its repository";
        let answer = self.rpc.call(action, "repo/stat", &[], None)?;
        let stat: Stat = self.rpc.read(action, &answer.unwrap_or_default())?;
        Ok(Usage {
            blocks: stat.blocks,
            bytes: stat.bytes,
        })
    }

    /// Kubo removes all that nothing pins, in no order. So nothing is removed while a block may be
    /// waiting for its pin, or a pin of ours for its blocks.
    fn collect_garbage(&self, keep_bytes: u64) -> Result<Collected, StoreError> {
        let before = self.usage()?;
        let nothing = Collected {
            removed: Usage::default(),
            kept: before,
        };
        if before.bytes <= keep_bytes || self.is_recent() {
            return Ok(nothing);
        }
        for pin in self.pins.pins()? {
            if !self.hold(&pin.root)? {
                return Ok(nothing);
            }
        }
        self.rpc.call("collect garbage", "repo/gc", &[], None)?;
        let kept = self.usage()?;
        let removed = Usage {
            blocks: before.blocks.saturating_sub(kept.blocks),
            bytes: before.bytes.saturating_sub(kept.bytes),
        };
        Ok(Collected { removed, kept })
    }
}

#[derive(Deserialize)]
struct Held {
    #[serde(rename = "Keys")]
    keys: std::collections::BTreeMap<String, HeldPin>,
}

#[derive(Deserialize)]
struct HeldPin {
    #[serde(rename = "Name", default)]
    name: String,
}

#[derive(Deserialize)]
struct Imported {
    #[serde(rename = "Stats")]
    stats: ImportStats,
}

#[derive(Deserialize)]
struct ImportStats {
    #[serde(rename = "BlockCount")]
    blocks: u64,
}

#[derive(Deserialize)]
struct Stat {
    #[serde(rename = "NumObjects")]
    blocks: u64,
    #[serde(rename = "RepoSize")]
    bytes: u64,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(rename = "Message")]
    message: String,
}

/// Kubo's RPC as blocking calls, which may come from any thread.
struct Rpc {
    address: Url,
    client: reqwest::Client,
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
}

impl Rpc {
    fn new(address: &str) -> Result<Self, StoreError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Service {
            service: address.to_owned(),
            action: "be used",
            source,
        };
        let url = Url::parse(address).map_err(|error| failed(error.into()))?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(STALL_TIMEOUT)
            .build()
            .map_err(|error| failed(error.into()))?;
        let mut runtime = Builder::new_multi_thread();
        runtime
            .worker_threads(1)
            .thread_name("kubo-rpc")
            .enable_all();
        Ok(Self {
            address: url,
            client,
            runtime: Some(runtime.build().map_err(|error| failed(error.into()))?),
        })
    }

    /// One call; `None` when Kubo says that it does not have what was asked for.
    fn call(
        &self,
        action: &'static str,
        command: &str,
        query: &[(&str, &str)],
        upload: Option<&[u8]>,
    ) -> Result<Option<Bytes>, StoreError> {
        let mut url = self.address.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/api/v0/{command}"));
        let mut request = self.client.post(url).query(query);
        if let Some(content) = upload {
            let kind = format!("multipart/form-data; boundary={BOUNDARY}");
            request = request
                .header(header::CONTENT_TYPE, kind)
                .body(multipart(content));
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move {
                // The receiver waits below.
                let _ = sender.send(exchange(request).await);
            });
        }
        let answer = receiver
            .recv()
            .map_err(|error| self.failed(action, error))?;
        let (status, bytes) = answer.map_err(|error| self.failed(action, error))?;
        if status == StatusCode::OK {
            return Ok(Some(bytes));
        }
        let complaint = serde_json::from_slice::<Complaint>(&bytes);
        let message = complaint.map_or_else(|_| status.to_string(), |said| said.message);
        let absent = ["not found locally", "could not find", "not pinned"];
        if absent.iter().any(|text| message.contains(text)) {
            return Ok(None);
        }
        Err(self.failed(action, message))
    }

    fn read<'b, T: Deserialize<'b>>(
        &self,
        action: &'static str,
        answer: &'b [u8],
    ) -> Result<T, StoreError> {
        serde_json::from_slice(answer).map_err(|error| self.failed(action, error))
    }

    fn failed(
        &self,
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        StoreError::Service {
            service: format!("Kubo at {}", self.address),
            action,
            source: source.into(),
        }
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        // Waiting for a runtime's end is not allowed within another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn exchange(request: reqwest::RequestBuilder) -> io::Result<(StatusCode, Bytes)> {
    let mut answer = request.send().await.map_err(io::Error::other)?;
    let mut bytes = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(io::Error::other)? {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(io::Error::other("the answer is too long"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((answer.status(), bytes.freeze()))
}

/// One file as the body of a form.
fn multipart(content: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{BOUNDARY}--\r\n");
    [head.as_bytes(), content, tail.as_bytes()].concat()
}
