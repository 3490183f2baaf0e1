//! ABCI's socket protocol: protobuf messages, each after its length as a varint.

use std::io::{self, ErrorKind};

use prost::Message;
use tendermint_proto::v0_38::abci::{Request, Response, response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter, ReadHalf, WriteHalf};

/// The longest request that is read: the largest block there is, with room for what comes with it.
const MAX_REQUEST_BYTES: u64 = 128 << 20;
/// Requests are read by so many bytes at a time: CometBFT sends checks of many transactions at once.
const BUFFER_BYTES: usize = 64 << 10;
/// A varint of 64 bits has at most so many bytes.
const MAX_VARINT_BYTES: u32 = 10;

/// What CometBFT connects over.
pub(super) trait Stream:
    tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin
{
}
impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for S {}

/// One connection of CometBFT's.
pub(super) struct Connection {
    reader: BufReader<ReadHalf<Box<dyn Stream>>>,
    writer: BufWriter<WriteHalf<Box<dyn Stream>>>,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: BufReader::with_capacity(BUFFER_BYTES, reader),
            writer: BufWriter::with_capacity(BUFFER_BYTES, writer),
        }
    }

    /// The next request, or `None` when the other side has closed.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no request.
    pub(super) async fn read(&mut self) -> io::Result<Option<Request>> {
        let Some(length) = self.read_length().await? else {
            return Ok(None);
        };
        if length > MAX_REQUEST_BYTES {
            return Err(invalid(format!("a request of {length} bytes")));
        }
        // Grows with what really comes, whatever the length says.
        let mut bytes = Vec::new();
        let mut body = (&mut self.reader).take(length);
        if (body.read_to_end(&mut bytes).await? as u64) < length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Request::decode(bytes.as_slice())
            .map(Some)
            .map_err(|error| invalid(format!("what is no request: {error}")))
    }

    /// The next request, as [`read`](Self::read), and those behind it that are here already as a whole.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) async fn read_some(&mut self) -> io::Result<Vec<Request>> {
        let mut requests = Vec::new();
        loop {
            match self.read().await? {
                Some(request) => requests.push(request),
                None => break,
            }
            let mut rest = self.reader.buffer();
            let whole = prost::decode_length_delimiter(&mut rest);
            if whole.is_ok_and(|length| length <= rest.len()) {
                continue;
            }
            break;
        }
        Ok(requests)
    }

    /// Sends answers.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) async fn write(&mut self, answers: Vec<response::Value>) -> io::Result<()> {
        for answer in answers {
            let answer = Response {
                value: Some(answer),
            };
            let bytes = answer.encode_length_delimited_to_vec();
            self.writer.write_all(&bytes).await?;
        }
        self.writer.flush().await
    }

    async fn read_length(&mut self) -> io::Result<Option<u64>> {
        let mut length = 0u64;
        for place in 0..MAX_VARINT_BYTES {
            let byte = match self.reader.read_u8().await {
                Ok(byte) => byte,
                Err(error) if place == 0 && error.kind() == ErrorKind::UnexpectedEof => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            length |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(Some(length));
            }
        }
        Err(invalid("a length without an end".into()))
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("{what} came over ABCI: is the other side CometBFT 0.38?"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tendermint_proto::v0_38::abci::{RequestEcho, RequestFlush, request};

    async fn read_all(bytes: &[u8]) -> io::Result<Vec<Request>> {
        let (mut ours, theirs) = tokio::io::duplex(1 << 16);
        ours.write_all(bytes).await?;
        drop(ours);
        let mut connection = Connection::new(Box::new(theirs));
        let mut requests = Vec::new();
        loop {
            let some = connection.read_some().await?;
            if some.is_empty() {
                return Ok(requests);
            }
            requests.extend(some);
        }
    }

    #[tokio::test]
    async fn requests_come_one_after_another_and_broken_ones_are_refused() {
        let echo = |message: String| Request {
            value: Some(request::Value::Echo(RequestEcho { message })),
        };
        let flush = Request {
            value: Some(request::Value::Flush(RequestFlush {})),
        };
        let requests = [echo("a".into()), flush, echo("b".repeat(300))];
        let encoded: Vec<Vec<u8>> = requests
            .iter()
            .map(Message::encode_length_delimited_to_vec)
            .collect();
        let bytes = encoded.concat();
        assert_eq!(read_all(&bytes).await.unwrap(), requests);
        assert_eq!(read_all(&[]).await.unwrap(), []);

        let cut = read_all(&bytes[..bytes.len() - 1]).await.unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::UnexpectedEof);
        for broken in [
            &[0xff; 11][..],
            &[3, 0xff, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0x7f],
        ] {
            let error = read_all(broken).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{broken:?}");
        }
    }
}
