//! A request's body as the arguments of a call: one item, the MessagePack array `[args, kwargs]`.

use axum::{
    body::Bytes,
    extract::{FromRequest, Multipart, Request},
    http::{StatusCode, header},
};
use rmpv::Value as Packed;
use serde_json::{Map, Value};

use super::{problem::Problem, values};

/// Kinds of bodies that are understood.
const KINDS: &str = "application/json, multipart/form-data or application/msgpack";

/// Bytes of a form's fields that are no files, together. They may be JSON, which takes far more memory.
const MAX_FIELD_BYTES: usize = 2 << 20;

/// Reads the arguments.
///
/// - JSON: an object gives arguments by name, a list gives them by position, nothing gives none.
/// - `multipart/form-data`: every field is an argument by name; a file is bytes, another field is JSON
///   or, where it is none, text.
/// - MessagePack: the item itself.
pub(super) async fn read(request: Request) -> Result<Bytes, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
    match kind.as_str() {
        "multipart/form-data" => {
            let form = Multipart::from_request(request, &()).await;
            let form = form.map_err(|error| Problem::new(error.status(), error.body_text()))?;
            encode(Vec::new(), fields(form).await?)
        }
        "application/msgpack" | "application/vnd.msgpack" => item(body(request).await?),
        "" | "application/json" => json(&body(request).await?),
        other => {
            let words = format!("a body of {other} is not understood: send {KINDS}");
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, words))
        }
    }
}

async fn body(request: Request) -> Result<Bytes, Problem> {
    let body = Bytes::from_request(request, &()).await;
    body.map_err(|error| Problem::new(error.status(), error.body_text()))
}

fn json(body: &[u8]) -> Result<Bytes, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return encode(Vec::new(), Vec::new());
    }
    let value = values::parse(body).map_err(|error| Problem::invalid(error.to_string()))?;
    arguments(value)
}

/// Arguments as JSON has them, as a call carries them: an object gives them by name, a list by position.
///
/// # Errors
/// What is wrong with them.
pub fn arguments_of(value: Value) -> Result<Bytes, String> {
    arguments(value).map_err(|problem| problem.to_string())
}

fn arguments(value: Value) -> Result<Bytes, Problem> {
    match value {
        Value::Object(fields) => named(fields),
        Value::Array(items) => {
            let items: Result<Vec<_>, _> = items.into_iter().map(pack).collect();
            encode(items?, Vec::new())
        }
        _ => Err(Problem::invalid(
            "arguments must be an object, by name, or a list, by position",
        )),
    }
}

/// Arguments by name.
///
/// # Errors
/// When one of them cannot be packed.
pub(super) fn named(fields: Map<String, Value>) -> Result<Bytes, Problem> {
    let named = fields.into_iter().map(|(k, v)| Ok((k.into(), pack(v)?)));
    encode(Vec::new(), named.collect::<Result<_, Problem>>()?)
}

fn pack(value: Value) -> Result<Packed, Problem> {
    values::pack(value).map_err(|error| Problem::invalid(error.to_string()))
}

async fn fields(mut form: Multipart) -> Result<Vec<(Packed, Packed)>, Problem> {
    let (mut named, mut written) = (Vec::new(), 0);
    let refused = |error: axum::extract::multipart::MultipartError| {
        Problem::new(error.status(), error.body_text())
    };
    while let Some(field) = form.next_field().await.map_err(refused)? {
        let Some(name) = field.name().map(str::to_owned) else {
            return Err(Problem::invalid("a field of the form has no name"));
        };
        let is_file = field.file_name().is_some();
        let bytes = field.bytes().await.map_err(refused)?;
        let value = match (is_file, std::str::from_utf8(&bytes)) {
            (false, Ok(text)) => {
                written += text.len();
                if written > MAX_FIELD_BYTES {
                    let words = format!(
                        "the fields that are no files have more than {MAX_FIELD_BYTES} bytes: send \
                         long ones as files"
                    );
                    return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, words));
                }
                match values::parse(text.as_bytes()) {
                    Ok(value) => pack(value)?,
                    Err(_) => text.into(),
                }
            }
            _ => Packed::Binary(bytes.into()),
        };
        named.push((name.into(), value));
    }
    Ok(named)
}

fn encode(args: Vec<Packed>, kwargs: Vec<(Packed, Packed)>) -> Result<Bytes, Problem> {
    let mut bytes = Vec::new();
    let whole = Packed::Array(vec![Packed::Array(args), Packed::Map(kwargs)]);
    match rmpv::encode::write_value(&mut bytes, &whole) {
        Ok(()) => Ok(bytes.into()),
        Err(error) => Err(Problem::invalid(error.to_string())),
    }
}

/// An item that the caller packed.
fn item(bytes: Bytes) -> Result<Bytes, Problem> {
    let mut rest = &bytes[..];
    let form = "the body must be the MessagePack array [args, kwargs]";
    let pair = rmp::decode::read_array_len(&mut rest);
    match pair.map_err(|_| Problem::invalid(form))? {
        2 => Ok(bytes),
        _ => Err(Problem::invalid(form)),
    }
}
