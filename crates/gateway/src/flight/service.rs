//! The service: Flight's calls over a blob store.

use std::{ops::ControlFlow, pin::Pin, sync::Arc, time::Duration};

use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
    encode::FlightDataEncoderBuilder,
    error::FlightError,
    flight_service_server::{FlightService, FlightServiceServer},
};
use arrow_ipc::writer::IpcWriteOptions;
use arrow_schema::ArrowError;
use axum::Router;
use bytes::Bytes;
use flight_tonic::{
    Code, Request, Response, Status, Streaming, service::interceptor::InterceptedService,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use r3mes_blobs::{BlobStore, Cid};
use r3mes_types::Address;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time,
};

use super::{
    Catalogue, CatalogueError, Listed, Name, Token, actions,
    get::{Asked, Opened, absent, blocking, broken, open},
    put::{self, Target},
    token::AUTHORIZATION,
};

/// Longest message, in bytes: a layer of a large adapter fits.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Flights that one listing looks at.
const MAX_LISTED: usize = 1024;
/// Batches that wait for a slow client.
const QUEUED_BATCHES: usize = 2;
/// Every call's path begins so.
const SERVICE: &str = "/arrow.flight.protocol.FlightService";

/// Limits of a [`router`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightLimits {
    /// Tables being sent, and packages being looked at, at once.
    pub concurrent_gets: usize,
    /// Tables being received at once, each in memory.
    pub concurrent_puts: usize,
    /// Longest blob that is received, or read as a package, in bytes.
    pub max_bytes: usize,
    /// Longest pause of a client that sends or is sent to.
    pub patience: Duration,
}

impl Default for FlightLimits {
    /// 64 out, 4 in, 256 MiB, 30 seconds.
    fn default() -> Self {
        Self {
            concurrent_gets: 64,
            concurrent_puts: 4,
            max_bytes: 256 << 20,
            patience: Duration::from_secs(30),
        }
    }
}

/// Arrow Flight over the blobs of `store`, for whoever shows `token`.
pub fn router(
    store: Arc<dyn BlobStore>,
    catalogue: Arc<dyn Catalogue>,
    token: Token,
    limits: FlightLimits,
) -> Router {
    let service = Service {
        store,
        catalogue,
        token: token.clone(),
        limits,
        gets: Arc::new(Semaphore::new(limits.concurrent_gets)),
        puts: Arc::new(Semaphore::new(limits.concurrent_puts)),
    };
    let server = FlightServiceServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let admit = move |call: Request<()>| token.admit(call.metadata()).map(|()| call);
    let admitted = InterceptedService::new(server, admit);
    Router::new().route_service(&format!("{SERVICE}/{{method}}"), admitted)
}

#[derive(Clone)]
struct Service {
    store: Arc<dyn BlobStore>,
    catalogue: Arc<dyn Catalogue>,
    token: Token,
    limits: FlightLimits,
    gets: Arc<Semaphore>,
    puts: Arc<Semaphore>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    /// Finds out what a name stands for.
    async fn asked(&self, name: Name) -> Result<Asked, Status> {
        match name {
            Name::Adapter(cid) => {
                // Nobody needs to ask the ledger about what is not here.
                if !self.has(cid).await? {
                    return Err(absent(&cid));
                }
                let facts = self.catalogue.adapter(cid).await.map_err(silent)?;
                let facts = facts.ok_or_else(|| {
                    Status::not_found(format!(
                        "the ledger knows no adapter {cid}, so its shapes are unknown; as bytes it \
                         may be at blob/{cid}"
                    ))
                })?;
                Ok(Asked::Adapter(cid, facts))
            }
            Name::Gradients { miner, round } => {
                Ok(Asked::Package(self.recorded(miner, round).await?))
            }
            Name::Package(cid) => Ok(Asked::Package(cid)),
            Name::Blob(cid) => Ok(Asked::Blob(cid)),
            Name::Block(cid) => Ok(Asked::Block(cid)),
        }
    }

    async fn has(&self, cid: Cid) -> Result<bool, Status> {
        blocking(&self.store, move |store| {
            store.contains(&cid).map_err(|error| broken(&error))
        })
        .await
    }

    /// The package that the ledger records under `gradients/MINER/ROUND`.
    async fn recorded(&self, miner: Address, round: u32) -> Result<Cid, Status> {
        let recorded = self.catalogue.package(miner, round).await;
        recorded.map_err(silent)?.ok_or_else(|| {
            let name = Name::Gradients { miner, round };
            Status::not_found(format!("the ledger has no package recorded as {name}"))
        })
    }

    /// Looks a flight's blob up, which may take a package into memory: that needs one of the places.
    async fn open(&self, asked: Asked, _: &OwnedSemaphorePermit) -> Result<Opened, Status> {
        let limit = self.limits.max_bytes;
        blocking(&self.store, move |store| open(store, asked, limit)).await
    }

    /// The flight that is listed, if its blob is here and is what its name says.
    async fn listed(&self, listed: Listed) -> Option<Result<FlightInfo, Status>> {
        let cid = listed.cid;
        let told = async {
            if !self.has(cid).await? {
                return Err(absent(&cid));
            }
            let asked = match listed.name {
                Name::Gradients { .. } => Asked::Package(cid),
                name => self.asked(name).await?,
            };
            let place = Arc::clone(&self.gets).acquire_owned().await;
            let place = place.map_err(|_| Status::unavailable("this node is stopping"))?;
            info(listed.name, &self.open(asked, &place).await?)
        };
        match told.await {
            Err(status) if [Code::NotFound, Code::FailedPrecondition].contains(&status.code()) => {
                None
            }
            told => Some(told),
        }
    }

    /// Sends a table batch by batch; a client that does not read is given up after a while, and is told
    /// that there was more.
    fn send(&self, opened: Opened, place: OwnedSemaphorePermit) -> Answers<FlightData> {
        let (sender, receiver) = mpsc::channel(QUEUED_BATCHES);
        let (ending, ended) = oneshot::channel();
        let (store, patience) = (Arc::clone(&self.store), self.limits.patience);
        let schema = Arc::clone(&opened.schema);
        let runtime = Handle::current();
        // Ends with the client: nobody takes what it sends then.
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let mut late = false;
            let mut push = |batch| {
                let sent = runtime.block_on(time::timeout(patience, sender.send(batch)));
                late = sent.is_err();
                match sent {
                    Ok(Ok(())) => ControlFlow::Continue(()),
                    Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
                }
            };
            let sent = opened.send(&*store, &mut push);
            let sent = match late {
                true => Err(Status::deadline_exceeded(format!(
                    "the rest was not sent, because nothing was read for {patience:?}: ask again"
                ))),
                false => sent,
            };
            // Whoever has gone away does not ask why.
            let _ = ending.send(sent);
        });
        let batches = stream::unfold(receiver, async |mut receiver| {
            let next = receiver.recv().await;
            next.map(|next| (Ok(next), receiver))
        });
        // A table without its end is not taken for a whole one.
        let end = stream::once(ended).filter_map(async |ended| match ended {
            Ok(Ok(())) => None,
            Ok(Err(status)) => Some(Err(status)),
            Err(_) => Some(Err(Status::internal(
                "this node failed while it was sending",
            ))),
        });
        let batches = batches.chain(end);
        let messages = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .with_max_flight_data_size(MAX_MESSAGE_BYTES)
            .build(batches.map_err(FlightError::from));
        messages.map_err(Status::from).boxed()
    }

    async fn keep(&self, target: Target, bytes: Vec<u8>) -> Result<Cid, Status> {
        let (expected, name) = match target {
            Target::Blob(_, expected) => (expected, None),
            Target::Recorded { miner, round } => {
                let name = Name::Gradients { miner, round };
                (Some(self.recorded(miner, round).await?), Some(name))
            }
        };
        blocking(&self.store, move |store| {
            let cid = store.put(&bytes).map_err(|error| match &error {
                r3mes_blobs::AddError::Store { source } => broken(source),
                other => broken(other),
            })?;
            // Not pinned, it goes with the next garbage.
            if let Some(expected) = expected.filter(|expected| *expected != cid) {
                let called = name.map_or_else(|| "the descriptor".to_owned(), |n| n.to_string());
                return Err(Status::invalid_argument(format!(
                    "what was written is {cid}, {called} says {expected}"
                )));
            }
            let pinned = store.pin(&cid, &actions::pin());
            pinned.map_err(|error| broken(&error))?;
            Ok(cid)
        })
        .await
    }
}

#[flight_tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoExchangeStream = Answers<FlightData>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;

    /// Whoever has come so far has shown the token; it is told how to show it from now on.
    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let answer = HandshakeResponse::default();
        let mut response = Response::new(stream::iter([Ok(answer)]).boxed());
        let metadata = response.metadata_mut();
        metadata.insert(AUTHORIZATION, self.token.bearer());
        Ok(response)
    }

    async fn list_flights(
        &self,
        request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        let prefix = String::from_utf8(request.into_inner().expression.to_vec());
        let prefix = prefix.map_err(|_| {
            Status::invalid_argument("the criteria are the beginning of a name, such as adapter/")
        })?;
        let listed = self.catalogue.list().await.map_err(silent)?;
        let named = move |listed: &Listed| listed.name.to_string().starts_with(&prefix);
        let wanted: Vec<Listed> = listed.into_iter().filter(named).take(MAX_LISTED).collect();
        let service = self.clone();
        let infos = stream::iter(wanted).filter_map(move |listed| {
            let service = service.clone();
            async move { service.listed(listed).await }
        });
        Ok(Response::new(infos.boxed()))
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let name = Name::of_descriptor(request.get_ref())?;
        let place = place(&self.gets)?;
        let opened = self.open(self.asked(name).await?, &place).await?;
        Ok(Response::new(info(name, &opened)?))
    }

    async fn poll_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented(
            "nothing here takes long: ask GetFlightInfo",
        ))
    }

    async fn get_schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        let place = place(&self.gets)?;
        let asked = self.asked(Name::of_descriptor(request.get_ref())?).await?;
        let opened = self.open(asked, &place).await?;
        let options = IpcWriteOptions::default();
        let schema = SchemaAsIpc::new(&opened.schema, &options);
        Ok(Response::new(schema.try_into().map_err(unwritable)?))
    }

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let place = place(&self.gets)?;
        let asked = self.asked(Name::of_ticket(request.get_ref())?).await?;
        let opened = self.open(asked, &place).await?;
        Ok(Response::new(self.send(opened, place)))
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let _place = place(&self.puts)?;
        let (limit, patience) = (self.limits.max_bytes, self.limits.patience);
        let (target, bytes) = put::receive(request.into_inner(), limit, patience).await?;
        let cid = self.keep(target, bytes).await?;
        let app_metadata = Bytes::from(cid.to_string());
        let answer = stream::iter([Ok(PutResult { app_metadata })]);
        Ok(Response::new(answer.boxed()))
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented(
            "there is nothing to exchange: use DoGet and DoPut",
        ))
    }

    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let action = request.into_inner();
        let result = blocking(&self.store, move |store| actions::run(store, &action)).await?;
        let body = Bytes::from(result.to_string());
        let answer = stream::iter([Ok(arrow_flight::Result { body })]);
        Ok(Response::new(answer.boxed()))
    }

    async fn list_actions(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        let types = actions::types().into_iter().map(Ok);
        Ok(Response::new(stream::iter(types).boxed()))
    }
}

/// What is told of a flight.
fn info(name: Name, opened: &Opened) -> Result<FlightInfo, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(name.ticket());
    let info = FlightInfo::new()
        .try_with_schema(&opened.schema)
        .map_err(unwritable)?
        .with_descriptor(name.descriptor())
        .with_endpoint(endpoint)
        .with_total_records(opened.records as i64)
        .with_total_bytes(opened.bytes as i64)
        .with_ordered(true);
    Ok(info.with_app_metadata(opened.cid.to_string()))
}

/// A place for one more call.
fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        Status::resource_exhausted("too many tables are on their way: try again in a moment")
    })
}

fn silent(error: CatalogueError) -> Status {
    match error {
        CatalogueError::NoModel { .. } => Status::failed_precondition(error.to_string()),
        CatalogueError::Silent { .. } => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a Flight call could not be answered"
            );
            Status::unavailable(format!("{error}: try again"))
        }
    }
}

fn unwritable(error: ArrowError) -> Status {
    tracing::error!(%error, "a schema cannot be written");
    Status::internal("the schema could not be put together")
}
