//! Arguments and results, in pieces that a message of the cluster holds.

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};

use super::{KeepError, KeptCalls, OPERATION, nats};

/// Bytes of a piece; servers take messages of 1 MiB unless they are told otherwise.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that are written or read at a time.
const AT_ONCE: usize = 8;

impl KeptCalls {
    /// Keeps a value; how many pieces it has.
    pub(super) async fn write(&self, name: &str, value: Bytes) -> Result<u32, KeepError> {
        let pieces = value.len().div_ceil(PIECE_BYTES);
        let piece = |at: usize| {
            let end = value.len().min((at + 1) * PIECE_BYTES);
            value.slice(at * PIECE_BYTES..end)
        };
        let writing = stream::iter(0..pieces).map(|at| {
            let put = self.values.put(format!("{name}.{at}"), piece(at));
            async { put.await.map_err(|error| nats("keep a value", error)) }
        });
        writing
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(u32::try_from(pieces).unwrap_or(u32::MAX))
    }

    /// A value that belongs to call `id`.
    pub(super) async fn read(&self, name: &str, pieces: u32, id: &str) -> Result<Bytes, KeepError> {
        let reading = stream::iter(0..pieces).map(|at| async move {
            let doing = "give a value back";
            let name = format!("{name}.{at}");
            let piece = self.values.get(&name).await;
            if let Some(piece) = piece.map_err(|error| nats(doing, error))? {
                return Ok(piece);
            }
            // Any replica answers; the stream's leader knows.
            let subject = format!("{}{name}", self.values.prefix);
            let stream = &self.values.stream;
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(piece) if piece.headers.get(OPERATION).is_none() => Ok(piece.payload),
                Ok(_) => Err(KeepError::Forgotten(id.to_owned())),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                    Err(KeepError::Forgotten(id.to_owned()))
                }
                Err(error) => Err(nats(doing, error).into()),
            }
        });
        let mut reading = reading.buffered(AT_ONCE);
        let mut whole = BytesMut::new();
        while let Some(piece) = reading.try_next().await? {
            if pieces == 1 {
                return Ok(piece);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Lets go of a value. What stays is forgotten with time.
    pub(super) async fn drop_value(&self, name: &str, pieces: u32) {
        for at in 0..pieces {
            if let Err(error) = self.values.purge(format!("{name}.{at}")).await {
                tracing::debug!(%error, "functions.federation.forget");
            }
        }
    }
}

/// Items as one MessagePack array of bytes.
pub(super) fn packed(items: &[Bytes]) -> Bytes {
    let bytes = items.iter().map(|item| item.len() + 5).sum::<usize>();
    let mut packed = Vec::with_capacity(bytes + 5);
    // Writing to memory does not fail, and neither array nor item is as long as 2^32.
    let _ = rmp::encode::write_array_len(&mut packed, items.len() as u32);
    for item in items {
        let _ = rmp::encode::write_bin_len(&mut packed, item.len() as u32);
        packed.extend_from_slice(item);
    }
    packed.into()
}

/// The items of what [`packed`] made.
pub(super) fn unpacked(mut packed: Bytes) -> Result<Vec<Bytes>, KeepError> {
    let malformed = |error: &dyn std::fmt::Display| KeepError::Malformed(error.to_string());
    let take = |packed: &mut Bytes, rest: usize| drop(packed.split_to(packed.len() - rest));
    let mut rest = &packed[..];
    let items = rmp::decode::read_array_len(&mut rest).map_err(|error| malformed(&error))?;
    let left = rest.len();
    take(&mut packed, left);
    let mut unpacked = Vec::new();
    for _ in 0..items {
        let mut rest = &packed[..];
        let bytes = rmp::decode::read_bin_len(&mut rest).map_err(|error| malformed(&error))?;
        let left = rest.len();
        take(&mut packed, left);
        if packed.len() < bytes as usize {
            return Err(malformed(&"an item is cut short"));
        }
        unpacked.push(packed.split_to(bytes as usize));
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_as_they_were_kept() {
        for items in [
            vec![],
            vec![Bytes::new()],
            vec![Bytes::from(vec![7; 70_000]), "a".into()],
        ] {
            let packed = packed(&items);
            assert_eq!(unpacked(packed.clone()).unwrap(), items);
            for cut in [0, packed.len() - 1] {
                let cut = unpacked(packed.slice(..cut));
                assert!(cut.is_err() || items.is_empty() && packed.len() == 1);
            }
        }
    }
}
