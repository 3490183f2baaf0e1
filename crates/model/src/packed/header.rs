//! The header of a packed file: what it says, and that it says it in one way only.

use std::fmt::Write;
use std::io::Read;

use serde::Deserialize;

use super::{ALIGNMENT, Entry, PackedError, entries};
use crate::chat::ChatFormat;
use crate::config::ModelConfig;

/// Longest header of a packed file, in bytes.
pub const MAX_HEADER_BYTES: usize = 4 << 20;
/// Name and version of the format, as the file's metadata carries it.
pub const FORMAT: &str = "r3mes-packed-1";

/// What a file begins with.
pub(super) struct Header {
    pub(super) config: ModelConfig,
    pub(super) chat: Option<ChatFormat>,
    pub(super) entries: Vec<Entry>,
    /// Bytes of the header without the eight before it.
    pub(super) length: usize,
}

pub(super) fn read_header(file: &mut impl Read) -> Result<Header, PackedError> {
    let ended = |reason| {
        move |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => PackedError::Header { reason },
            _ => PackedError::Read { source },
        }
    };
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(ended("the file is shorter than eight bytes"))?;
    let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_HEADER_BYTES {
        return Err(PackedError::Header {
            reason: "the header is too long",
        });
    }
    let mut header = vec![0; length];
    file.read_exact(&mut header)
        .map_err(ended("the file ends inside its header"))?;
    let (config, chat) = read_metadata(&header)?;
    let entries = entries(&config);
    if header != encode_header(&config, chat.as_ref(), &entries)[8..] {
        return Err(PackedError::NotCanonical);
    }
    Ok(Header {
        config,
        chat,
        entries,
        length,
    })
}

/// The beginning of the file: the header's length and the header, padded with spaces so that the
/// data starts at a multiple of 64 bytes.
pub(crate) fn encode_header(
    config: &ModelConfig,
    chat: Option<&ChatFormat>,
    entries: &[Entry],
) -> Vec<u8> {
    let json_string = |text: &str| serde_json::Value::from(text).to_string();
    let chat = chat.map_or_else(String::new, |chat| {
        format!(
            "\"bos_token\":{},\"chat_template\":{},\"eos_token\":{},",
            json_string(&chat.bos),
            json_string(&chat.template),
            json_string(&chat.eos),
        )
    });
    let mut text = format!(
        "{{\"__metadata__\":{{{chat}\"config\":{},\"format\":{}}}",
        json_string(&config.to_packed_json()),
        json_string(FORMAT),
    );
    for entry in entries {
        let (dtype, shape) = entry.header_fields();
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        write!(
            text,
            ",\"{}\":{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
            entry.name(),
            shape.join(","),
            entry.range.start,
            entry.range.end,
        )
        .expect("writing to a string never fails");
    }
    text.push('}');
    let padded = (8 + text.len()).next_multiple_of(ALIGNMENT);
    let mut header = ((padded - 8) as u64).to_le_bytes().to_vec();
    header.extend_from_slice(text.as_bytes());
    header.resize(padded, b' ');
    header
}

/// The configuration that a header carries, and the chat template if it carries one.
fn read_metadata(header: &[u8]) -> Result<(ModelConfig, Option<ChatFormat>), PackedError> {
    #[derive(Deserialize)]
    struct Carried {
        #[serde(rename = "__metadata__")]
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        bos_token: Option<String>,
        chat_template: Option<String>,
        eos_token: Option<String>,
        config: String,
        format: String,
    }
    let carried: Carried = serde_json::from_slice(header).map_err(|_| PackedError::Header {
        reason: "its header is not JSON with a configuration and a format in its metadata",
    })?;
    let metadata = carried.metadata;
    if metadata.format != FORMAT {
        return Err(PackedError::Format {
            found: metadata.format,
        });
    }
    let config = ModelConfig::from_packed_json(&metadata.config).map_err(PackedError::Config)?;
    let chat = match (
        metadata.bos_token,
        metadata.chat_template,
        metadata.eos_token,
    ) {
        (Some(bos), Some(template), Some(eos)) => Some(ChatFormat { template, bos, eos }),
        (None, None, None) => None,
        _ => return Err(PackedError::NotCanonical),
    };
    if let Some(chat) = &chat {
        chat.check_sizes().map_err(PackedError::Chat)?;
    }
    Ok((config, chat))
}
