use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use r3mes_inference::{GenerationError, RequestError};
use serde_json::{Value, json};

/// Seconds after which a client that was turned away should come back.
const RETRY_SECONDS: u32 = 1;

/// An answer that says what was wrong, in the shape that OpenAI's clients know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The request's field that is to blame.
    pub(super) param: Option<String>,
    pub(super) code: Option<&'static str>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// A field that is missing, of the wrong kind or out of range.
    pub(super) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    pub(super) fn unknown_model(message: impl Into<String>) -> Self {
        Self {
            param: Some("model".to_owned()),
            code: Some("model_not_found"),
            ..Self::new(StatusCode::NOT_FOUND, message)
        }
    }

    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self {
            code: Some("rate_limit_exceeded"),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, message)
        }
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self {
            code: Some("no_serving_node"),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }

    /// Nodes that took the request and sent nothing.
    pub(super) fn stalled(message: impl Into<String>) -> Self {
        Self {
            code: Some("serving_node_stalled"),
            ..Self::new(StatusCode::GATEWAY_TIMEOUT, message)
        }
    }

    /// The JSON body.
    pub(super) fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

/// The answer to a path that there is not.
pub(super) async fn no_such_path(uri: Uri) -> ApiError {
    let message = format!(
        "there is no {}; /v1/completions, /v1/chat/completions and /v1/models are there",
        uri.path()
    );
    ApiError::new(StatusCode::NOT_FOUND, message)
}

/// The answer to a method that a path does not have.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let retry = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        if retry.contains(&self.status) {
            let seconds = HeaderValue::from(RETRY_SECONDS);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let message = error.to_string();
        match error {
            RequestError::UnknownModel { .. } => Self::unknown_model(message),
            RequestError::OutOfRange { field, .. } => Self::field(field, message),
            RequestError::PromptTooLong { .. } | RequestError::TextTooLong { .. } => Self {
                code: Some("context_length_exceeded"),
                ..Self::field("prompt", message)
            },
            RequestError::EmptyPrompt
            | RequestError::Token { .. }
            | RequestError::Prompt { .. } => Self::field("prompt", message),
            RequestError::Busy { .. } => Self::busy(message),
            RequestError::Stopped => Self::unavailable(message),
        }
    }
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        let message = error.to_string();
        match error {
            GenerationError::Stopped => Self::unavailable(message),
            GenerationError::Computation { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        }
    }
}
