//! From tables to blobs, for `DoPut`.

use std::{panic::AssertUnwindSafe, time::Duration};

use arrow_flight::{
    FlightData, FlightDescriptor,
    decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder},
    error::FlightError,
};
use flight_tonic::Status;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use r3mes_blobs::Cid;
use r3mes_types::Address;

use super::{
    name::{Name, path},
    table::{Kind, Writer},
};

/// Most messages of one call.
const MAX_MESSAGES: usize = 1 << 16;

/// Where a table goes, as the descriptor of its first message says.
pub(super) enum Target {
    /// Any blob of a kind, or the one of this CID.
    Blob(Kind, Option<Cid>),
    /// The package that the ledger records of a miner in a round.
    Recorded { miner: Address, round: u32 },
}

impl Target {
    fn new(descriptor: &FlightDescriptor) -> Result<Self, Status> {
        let path = path(descriptor)?;
        match path.as_str() {
            "adapter" => return Ok(Self::Blob(Kind::Adapter, None)),
            "package" => return Ok(Self::Blob(Kind::Package, None)),
            "blob" => return Ok(Self::Blob(Kind::Blob, None)),
            _ => {}
        }
        match path.parse() {
            Ok(Name::Adapter(cid)) => Ok(Self::Blob(Kind::Adapter, Some(cid))),
            Ok(Name::Package(cid)) => Ok(Self::Blob(Kind::Package, Some(cid))),
            Ok(Name::Blob(cid)) => Ok(Self::Blob(Kind::Blob, Some(cid))),
            Ok(Name::Gradients { miner, round }) => Ok(Self::Recorded { miner, round }),
            Ok(Name::Block(_)) | Err(_) => Err(Status::invalid_argument(
                "write to adapter, package or blob, with or without /CID, or to \
                 gradients/MINER/ROUND",
            )),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Blob(kind, _) => *kind,
            Self::Recorded { .. } => Kind::Package,
        }
    }
}

/// Reads a whole table of at most `max_bytes` and returns where it goes and its canonical bytes. A
/// client that pauses longer than `patience` is given up.
pub(super) async fn receive(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    max_bytes: usize,
    patience: Duration,
) -> Result<(Target, Vec<u8>), Status> {
    let mut messages = FlightDataDecoder::new(messages.map_err(FlightError::from));
    let mut next = async || {
        // The decoder panics at some damaged headers; its state is not used again then.
        let next = AssertUnwindSafe(messages.next()).catch_unwind();
        let next = tokio::time::timeout(patience, next).await;
        let next = next.map_err(|_| {
            Status::deadline_exceeded(format!("nothing came for {} s", patience.as_secs()))
        })?;
        let next = next.map_err(|_| Status::invalid_argument("a damaged Arrow message"))?;
        next.transpose().map_err(malformed)
    };
    let first = next().await?;
    let Some(DecodedFlightData {
        inner,
        payload: DecodedPayload::Schema(schema),
    }) = first
    else {
        return Err(Status::invalid_argument(
            "the first message must carry a descriptor and the schema",
        ));
    };
    let target = Target::new(&inner.flight_descriptor.unwrap_or_default())?;
    let mut writer = Writer::new(target.kind(), &schema, max_bytes)?;
    for _ in 0..MAX_MESSAGES {
        let Some(message) = next().await? else {
            return Ok((target, writer.finish()?));
        };
        match message.payload {
            DecodedPayload::RecordBatch(batch) => writer.push(&batch)?,
            DecodedPayload::None => {}
            DecodedPayload::Schema(_) => {
                return Err(Status::invalid_argument("a table has one schema"));
            }
        }
    }
    Err(Status::resource_exhausted(format!(
        "a table may come in at most {MAX_MESSAGES} messages: put more rows into each"
    )))
}

fn malformed(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::invalid_argument(format!("not Arrow as it should be: {other}")),
    }
}
