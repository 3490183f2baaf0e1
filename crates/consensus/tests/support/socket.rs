//! ABCI by hand, over the socket that CometBFT uses.

use std::path::Path;

use prost::Message as _;
use tendermint_proto::v0_38::abci::{Request, Response, request, response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// One connection, as CometBFT opens it.
pub(crate) struct Connection(UnixStream);

impl Connection {
    pub(crate) async fn open(folder: &Path) -> Self {
        Self(UnixStream::connect(folder.join("abci")).await.unwrap())
    }

    pub(crate) async fn ask(&mut self, value: request::Value) -> response::Value {
        self.tell(value).await;
        self.hear().await
    }

    pub(crate) async fn tell(&mut self, value: request::Value) {
        let request = Request { value: Some(value) };
        let bytes = request.encode_length_delimited_to_vec();
        self.0.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> response::Value {
        let mut length = Vec::new();
        while length.last().is_none_or(|byte| byte & 0x80 != 0) {
            length.push(self.0.read_u8().await.unwrap());
        }
        let length = prost::decode_length_delimiter(length.as_slice()).unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        let response = Response::decode(body.as_slice()).unwrap();
        response.value.unwrap()
    }
}
