//! gRPC: calls in, answers out, bytes as they are.

use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::post;
use bytes::{Buf, BufMut, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, UnaryService};
use tonic::{Status, codegen::Service};
use tower_http::timeout::TimeoutLayer;

use super::node::Node;
use super::reflected;

/// Names the version of the state, in questions and answers.
const HEIGHT: &str = "x-cosmos-block-height";
/// Bytes of a call.
const MAX_CALL_BYTES: usize = 2 << 20;
/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The gRPC services of a node, with health and reflection.
///
/// # Errors
/// When our own descriptions do not fit together, which a test rules out.
pub fn grpc_router(node: Node) -> Result<Router, reflected::DescriptionError> {
    let descriptors = reflected::descriptors()?;
    let (_, health) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_file_descriptor_set(descriptors.clone())
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let router = Router::new()
        .route("/{service}/{method}", post(call))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            TIMEOUT,
        ))
        .with_state(node);
    let router = mounted(router, "/grpc.health.v1.Health", health);
    let v1 = reflection().build_v1()?;
    let router = mounted(router, "/grpc.reflection.v1.ServerReflection", v1);
    let v1alpha = reflection().build_v1alpha()?;
    let path = "/grpc.reflection.v1alpha.ServerReflection";
    Ok(mounted(router, path, v1alpha))
}

fn mounted<S>(router: Router, path: &str, service: S) -> Router
where
    S: Service<
            Request,
            Response = axum::http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    router.route_service(&format!("{path}/{{method}}"), service)
}

async fn call(State(node): State<Node>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let mut grpc = Grpc::new(Raw).max_decoding_message_size(MAX_CALL_BYTES);
    let answer = grpc.unary(Call { node, path }, request).await;
    answer.map(Body::new)
}

struct Call {
    node: Node,
    path: String,
}

impl UnaryService<Bytes> for Call {
    type Response = Bytes;
    type Future =
        Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send + 'static>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (node, path) = (self.node.clone(), self.path.clone());
        Box::pin(async move {
            let height = height(request.metadata())?;
            let answer = node.call(&path, request.get_ref(), height).await?;
            let mut response = tonic::Response::new(Bytes::from(answer.value));
            let height = answer.height.map(HeaderValue::from);
            if let Some(height) = height.and_then(|h| h.to_str().ok()?.parse().ok()) {
                response.metadata_mut().insert(HEIGHT, height);
            }
            Ok(response)
        })
    }
}

fn height(metadata: &MetadataMap) -> Result<Option<u64>, Status> {
    let Some(value) = metadata.get(HEIGHT) else {
        return Ok(None);
    };
    let height = value.to_str().ok().and_then(|text| text.parse().ok());
    let height: u64 = height
        .ok_or_else(|| Status::invalid_argument(format!("{HEIGHT} must be a whole number")))?;
    Ok((height > 0).then_some(height))
}

/// Messages as the bytes they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
