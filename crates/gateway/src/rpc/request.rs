//! Requests and errors, in both ways of asking.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// An error of JSON-RPC 2.0, with CometBFT's messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RpcError {
    pub(super) code: i64,
    pub(super) message: Cow<'static, str>,
    pub(super) data: String,
}

/// Code of an error that is gone when what stands behind the RPC is there again.
const UNAVAILABLE: i64 = -32001;

impl RpcError {
    pub(super) fn parse(data: impl Into<String>) -> Self {
        Self::new(-32700, "Parse error. Invalid JSON", data)
    }

    pub(super) fn invalid_request(data: impl Into<String>) -> Self {
        Self::new(-32600, "Invalid Request", data)
    }

    pub(super) fn unknown_method(method: &str) -> Self {
        let data = format!("there is no method {method:?}: GET / lists them");
        Self::new(-32601, "Method not found", data)
    }

    pub(super) fn invalid_params(data: impl Into<String>) -> Self {
        Self::new(-32602, "Invalid params", data)
    }

    pub(super) fn internal(data: impl Into<String>) -> Self {
        Self::new(-32603, "Internal error", data)
    }

    /// What stands behind the RPC is away.
    pub(super) fn unavailable(data: impl Into<String>) -> Self {
        Self::new(UNAVAILABLE, "Unavailable", data)
    }

    /// An error that CometBFT gave.
    pub(super) fn relayed(error: &Value) -> Self {
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        Self {
            code: error["code"].as_i64().unwrap_or_default(),
            message: text("message").into(),
            data: text("data"),
        }
    }

    /// The same over a WebSocket, where CometBFT calls wrong parameters an internal error.
    pub(super) fn over_a_socket(self) -> Self {
        match self.code {
            -32602 => Self::internal(self.data),
            _ => self,
        }
    }

    pub(super) fn is_unavailable(&self) -> bool {
        self.code == UNAVAILABLE
    }

    /// An error with everything that caused it.
    pub(super) fn caused(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::internal(text)
    }

    fn new(code: i64, message: &'static str, data: impl Into<String>) -> Self {
        let data = data.into();
        Self {
            code,
            message: message.into(),
            data,
        }
    }

    /// The same in the words of gRPC.
    pub(crate) fn into_status(self) -> tonic::Status {
        match self.code {
            UNAVAILABLE => tonic::Status::unavailable(self.data),
            -32602 => tonic::Status::invalid_argument(self.data),
            _ => tonic::Status::internal(self.data),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"code": self.code, "message": self.message, "data": self.data})
    }
}

/// Named parameters of a call.
#[derive(Debug)]
pub(super) enum Params {
    /// From a query string: `height=5`, `path="/a"`, `data=0x00`.
    Uri(HashMap<String, String>),
    /// From JSON-RPC: numbers also as strings, bytes as their method has them.
    Json(Map<String, Value>),
}

/// How bytes are written in JSON parameters.
#[derive(Clone, Copy, Debug)]
pub(super) enum JsonBytes {
    Base64,
    Hex,
}

impl Params {
    /// Parameters of JSON-RPC, by name or in the order of `names`.
    pub(super) fn from_json(params: Option<Value>, names: &[&str]) -> Result<Self, RpcError> {
        match params {
            None | Some(Value::Null) => Ok(Self::Json(Map::new())),
            Some(Value::Object(named)) => Ok(Self::Json(named)),
            Some(Value::Array(values)) if values.len() == names.len() => {
                let names = names.iter().map(|name| (*name).to_owned());
                Ok(Self::Json(names.zip(values).collect()))
            }
            Some(Value::Array(values)) => Err(RpcError::invalid_params(format!(
                "expected {} parameters ([{}]), got {}",
                names.len(),
                names.join(" "),
                values.len()
            ))),
            Some(_) => Err(RpcError::invalid_params(
                "parameters are an object or an array",
            )),
        }
    }

    /// A text; empty if it is not there. In a query string it is quoted, or `0x` and hexadecimal digits.
    pub(super) fn text(&self, name: &str) -> Result<String, RpcError> {
        match self {
            Self::Uri(_) => String::from_utf8(self.bytes(name, JsonBytes::Base64)?)
                .map_err(|_| wrong(name, "a text")),
            Self::Json(params) => match params.get(name) {
                None | Some(Value::Null) => Ok(String::new()),
                Some(Value::String(text)) => Ok(text.clone()),
                Some(_) => Err(wrong(name, "a string")),
            },
        }
    }

    /// A number of CometBFT's, which JSON writes as a string; none if it is not there.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, RpcError> {
        let text = match self {
            Self::Uri(params) => params.get(name).map(|text| unquoted(text)),
            Self::Json(params) => match params.get(name) {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(text.as_str()),
                Some(_) => return Err(wrong(name, "a whole number in quotes")),
            },
        };
        let is_there = |text: &&str| !(text.is_empty() && matches!(self, Self::Uri(_)));
        let number = text.filter(is_there).map(str::parse).transpose();
        number.map_err(|_| wrong(name, "a whole number"))
    }

    /// A number of one of our own methods, in quotes or not; none if it is not there.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, RpcError> {
        let text = match self {
            Self::Json(params) => match params.get(name) {
                Some(Value::Number(number)) => number.to_string(),
                _ => self.text(name)?,
            },
            Self::Uri(params) => {
                let text = params.get(name).map(|text| unquoted(text));
                text.unwrap_or_default().to_owned()
            }
        };
        if text.is_empty() {
            return Ok(None);
        }
        let number = text.parse().map_err(|_| wrong(name, "a whole number"))?;
        Ok(Some(number))
    }

    /// Yes or no; no if it is not there.
    pub(super) fn flag(&self, name: &str) -> Result<bool, RpcError> {
        let flag = match self {
            Self::Json(params) => params.get(name).unwrap_or(&Value::Null).clone(),
            Self::Uri(params) => match params.get(name).map_or("", String::as_str) {
                "" => Value::Null,
                text => serde_json::from_str(text).unwrap_or(Value::String(text.to_owned())),
            },
        };
        match flag {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(flag),
            _ => Err(wrong(name, "true or false")),
        }
    }

    /// Bytes; empty if they are not there. In a query string `0x` and hexadecimal digits, or a text in
    /// quotes for its own bytes.
    pub(super) fn bytes(&self, name: &str, form: JsonBytes) -> Result<Vec<u8>, RpcError> {
        match self {
            Self::Uri(params) => {
                let text = params.get(name).map_or("", String::as_str);
                if text.is_empty() {
                    return Ok(Vec::new());
                }
                if let Some(digits) = text.strip_prefix("0x") {
                    return hex::decode(digits).map_err(|_| wrong(name, "hexadecimal digits"));
                }
                let quoted = serde_json::from_str::<String>(text);
                let text =
                    quoted.map_err(|_| wrong(name, "quoted, or 0x and hexadecimal digits"))?;
                Ok(text.into_bytes())
            }
            Self::Json(_) => {
                let text = self.text(name)?;
                match form {
                    JsonBytes::Base64 => STANDARD.decode(&text).map_err(|_| wrong(name, "base64")),
                    JsonBytes::Hex => {
                        hex::decode(&text).map_err(|_| wrong(name, "hexadecimal digits"))
                    }
                }
            }
        }
    }

    /// A hash: 32 bytes.
    pub(super) fn hash(&self, name: &str) -> Result<[u8; 32], RpcError> {
        let bytes = self.bytes(name, JsonBytes::Base64)?;
        bytes
            .try_into()
            .map_err(|_| wrong(name, "a hash of 32 bytes"))
    }
}

fn unquoted(text: &str) -> &str {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or(text)
}

fn wrong(name: &str, expected: &str) -> RpcError {
    RpcError::invalid_params(format!("parameter {name} must be {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(name: &str, value: &str) -> Params {
        Params::Uri(HashMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn both_ways_of_asking_give_the_same_values() {
        for digits in ["5", "\"5\""] {
            assert_eq!(uri("h", digits).number("h"), Ok(Some(5)));
            assert_eq!(uri("h", digits).integer("h"), Ok(Some(5)));
        }
        assert_eq!(uri("p", "\"/a\"").text("p"), Ok("/a".into()));
        assert_eq!(
            uri("d", "0x0aFF").bytes("d", JsonBytes::Hex),
            Ok(vec![10, 255])
        );
        assert_eq!(
            uri("d", "\"ab\"").bytes("d", JsonBytes::Hex),
            Ok(b"ab".to_vec())
        );
        assert_eq!(uri("f", "true").flag("f"), Ok(true));
        let params = json!({"h": "5", "n": 5, "d": "0aff", "b": "Cv8=", "f": true});
        let json = Params::from_json(Some(params), &[]).unwrap();
        assert_eq!(json.number("h"), Ok(Some(5)));
        assert_eq!(json.number("n"), Ok(Some(5)));
        assert_eq!(json.integer("h"), Ok(Some(5)));
        assert_eq!(json.bytes("d", JsonBytes::Hex), Ok(vec![10, 255]));
        assert_eq!(json.bytes("b", JsonBytes::Base64), Ok(vec![10, 255]));
        assert_eq!(json.flag("f"), Ok(true));
        assert_eq!(json.number("missing"), Ok(None));
        let placed = Params::from_json(Some(json!(["7"])), &["h"]).unwrap();
        assert_eq!(placed.integer("h"), Ok(Some(7)));
    }

    #[test]
    fn wrong_values_are_named() {
        for (params, why) in [
            (uri("h", "-1"), "parameter h must be a whole number"),
            (
                uri("h", "99999999999999999999"),
                "parameter h must be a whole number",
            ),
        ] {
            assert_eq!(params.number("h"), Err(RpcError::invalid_params(why)));
        }
        let numbers = Params::from_json(Some(json!({"h": 5, "x": "x"})), &[]).unwrap();
        for wrong in ["h", "x"] {
            assert!(numbers.integer(wrong).is_err(), "{wrong}");
        }
        assert!(uri("p", "bare").text("p").is_err());
        assert!(uri("f", "maybe").flag("f").is_err());
        assert!(uri("d", "0xzz").bytes("d", JsonBytes::Hex).is_err());
        assert!(uri("d", "0x00").hash("d").is_err());
        assert!(Params::from_json(Some(json!([1, 2])), &["a"]).is_err());
        assert!(Params::from_json(Some(json!(1)), &["a"]).is_err());
    }
}
