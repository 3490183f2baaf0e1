//! The same relayed call over several transports, in turns: a client's bytes go through a relay to a node that
//! dialled out, and come back.
//!
//! `cargo run --release [-- --quick]` prints a table of those without encryption and one of those with TLS 1.3.
//! Each figure is the best of several turns, and beside it stands how many times that of the frames it is.
//! Client, relay and node share this process and its threads. The relay of the frames is the project's whole
//! broker, with its routing, access, quotas and metering; those of gRPC and QUIC pass bytes on and do nothing
//! else. All sides send without delay (TCP_NODELAY), cut payloads into the same pieces, let as many calls fly at
//! once, and encrypt by AES-256-GCM with the certificates of one authority.

mod frames;
mod grpc;
mod measure;
mod quic;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use quinn::rustls::crypto::CryptoProvider;
use r3mes_functions::tls::{self, Authority};

use self::measure::{FIGURES, Turns};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Calls in flight where many are.
const CALLERS: u32 = 64;
/// The host that certificates are for.
const HOST: &str = "127.0.0.1";
/// How long they hold.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Bytes of one message where a payload is cut into several: what a frame holds.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes that gRPC and QUIC let come in before they are read, on a stream and on a connection. The windows of
/// the frames are smaller: 1 MiB a call.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// The client's end of a transport.
trait Echo: Send + Sync {
    /// Has a node give these bytes back.
    fn echo(&self, argument: Bytes) -> BoxFuture<'_, Outcome<Bytes>>;
}

/// A transport, and the best of what was measured of it.
struct Side {
    name: &'static str,
    client: Arc<dyn Echo>,
    best: [Option<f64>; FIGURES.len()],
}

impl Side {
    fn new(name: &'static str, client: Arc<dyn Echo>) -> Self {
        let best = [None; FIGURES.len()];
        Self { name, client, best }
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let quick = std::env::args().any(|word| word == "--quick");
    // gRPC then encrypts by the same implementation as the frames; QUIC cannot, and takes its own.
    let provider = CryptoProvider::clone(&tls::provider());
    provider
        .install_default()
        .map_err(|_| "TLS has a provider already")?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path())?;
    let encrypted = Some(&authority);
    let mut plain = [
        Side::new("frames", frames::start(None).await?),
        Side::new("gRPC, one stream", grpc::start(None, true).await?),
        Side::new("gRPC, a stream a call", grpc::start(None, false).await?),
    ];
    let mut secret = [
        Side::new("frames", frames::start(encrypted).await?),
        Side::new("gRPC, one stream", grpc::start(encrypted, true).await?),
        Side::new(
            "gRPC, a stream a call",
            grpc::start(encrypted, false).await?,
        ),
        Side::new("QUIC", quic::start(&authority).await?),
    ];
    let turns = Turns::new(quick);
    let mut sides: Vec<&mut Side> = plain.iter_mut().chain(&mut secret).collect();
    turns.measure(&mut sides).await?;
    print("without encryption", &plain);
    print("with TLS 1.3", &secret);
    Ok(())
}

/// Prints a table; the first side is what the others are compared with.
fn print(with: &str, sides: &[Side]) {
    let names: Vec<&str> = sides.iter().map(|side| side.name).collect();
    println!("| {with} | {} |", names.join(" | "));
    println!("|---|{}", "---:|".repeat(sides.len()));
    for (index, figure) in FIGURES.iter().enumerate() {
        let frames = sides[0].best[index];
        let cells = sides.iter().enumerate().map(|(number, side)| {
            let (Some(best), Some(frames)) = (side.best[index], frames) else {
                return "-".to_owned();
            };
            let digits = figure.digits;
            match number {
                0 => format!("{best:.digits$}"),
                _ => format!("{best:.digits$} ({:.2})", best / frames),
            }
        });
        let cells: Vec<String> = cells.collect();
        println!("| {} | {} |", figure.name, cells.join(" | "));
    }
    println!();
}

/// A payload as messages of at most [`PIECE_BYTES`]; an empty one is one.
fn pieces(mut payload: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(payload.len() / PIECE_BYTES + 1);
    while payload.len() > PIECE_BYTES {
        pieces.push(payload.split_to(PIECE_BYTES));
    }
    pieces.push(payload);
    pieces
}

/// What came in several messages as one.
fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        1 => pieces.remove(0),
        _ => pieces.concat().into(),
    }
}
