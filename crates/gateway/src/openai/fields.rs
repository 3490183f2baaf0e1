use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::error::ApiError;

/// A request's JSON object, read field by field, so that an error names the field.
///
/// `null` counts as absent, as it does with OpenAI.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let refused = |message| ApiError::new(StatusCode::BAD_REQUEST, message);
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(refused("the body must be a JSON object".to_owned())),
            Err(error) => Err(refused(format!("the body is not valid JSON: {error}"))),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn required(&self, name: &str) -> Result<&Value, ApiError> {
        self.get(name)
            .ok_or_else(|| ApiError::field(name, format!("`{name}` is required")))
    }

    pub(super) fn text(&self, name: &str) -> Result<&str, ApiError> {
        let value = self.required(name)?;
        value.as_str().ok_or_else(|| wrong(name, "a string", value))
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f32>, ApiError> {
        let number = self.read(name, "a number", Value::as_f64)?;
        Ok(number.map(|number| number as f32))
    }

    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        self.read(name, "a whole number that is not negative", |value| {
            usize::try_from(value.as_u64()?).ok()
        })
    }

    /// A seed: any whole number of 64 bits, negative ones taken as their two's complement.
    pub(super) fn seed(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.read(name, "a whole number of 64 bits", |value| {
            value
                .as_u64()
                .or_else(|| value.as_i64().map(i64::cast_unsigned))
        })
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, ApiError> {
        self.read(name, "an object", |value| {
            value.as_object().cloned().map(Self)
        })
    }

    /// Refuses a field that would change the answer in a way that is not offered here, unless it
    /// has one of the values that change nothing.
    pub(super) fn unsupported(&self, name: &str, harmless: &[Value]) -> Result<(), ApiError> {
        match self.get(name) {
            Some(value) if !harmless.contains(value) => {
                let message = format!("`{name}` is not supported here: leave it out");
                Err(ApiError::field(name, message))
            }
            _ => Ok(()),
        }
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let read = read(value);
        read.map(Some).ok_or_else(|| wrong(name, expected, value))
    }
}

/// A value of the wrong kind. The value itself is not repeated: it may be a prompt.
pub(super) fn wrong(name: &str, expected: &str, value: &Value) -> ApiError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "another number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    ApiError::field(name, format!("`{name}` must be {expected}, not {found}"))
}
