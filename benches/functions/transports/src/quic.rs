//! QUIC. The node keeps a connection on which the relay opens a stream for each call; a client opens one for each
//! call on a connection of its own. Cryptography is ring's: the providers of this project have no suites for QUIC.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
    rustls::{
        self, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        version::TLS13,
    },
};
use r3mes_functions::tls::Authority;

use crate::{
    CALLERS, CERTIFICATE_LIFE, CONNECTION_WINDOW_BYTES, Echo, HOST, Outcome, STREAM_WINDOW_BYTES,
};

/// Most bytes of a packet where Ethernet lies between, without its headers.
const PACKET_BYTES: u16 = 1452;
/// Pieces that are passed on at a time.
const AT_ONCE: usize = 32;

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(CALLERS))
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .max_idle_timeout(None)
        .initial_mtu(PACKET_BYTES)
        .mtu_discovery_config(None);
    Arc::new(transport)
}

fn endpoint(server: Option<ServerConfig>) -> Outcome<Endpoint> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(Endpoint::new(
        EndpointConfig::default(),
        server,
        socket,
        Arc::new(TokioRuntime),
    )?)
}

async fn pass(mut from: RecvStream, mut to: SendStream) -> Outcome<()> {
    let mut pieces = vec![Bytes::new(); AT_ONCE];
    while let Some(count) = from.read_chunks(&mut pieces).await? {
        to.write_all_chunks(&mut pieces[..count]).await?;
    }
    Ok(to.finish()?)
}

/// Passes each stream of a client on to the node.
async fn relay(client: Connection, node: Connection) -> Outcome<()> {
    loop {
        let (to_client, from_client) = client.accept_bi().await?;
        let node = node.clone();
        tokio::spawn(async move {
            let (to_node, from_node) = node.open_bi().await?;
            tokio::try_join!(pass(from_client, to_node), pass(from_node, to_client))
        });
    }
}

/// Gives back what each stream brings.
async fn node(relay: Connection) -> Outcome<()> {
    loop {
        let (mut back, mut argument) = relay.accept_bi().await?;
        tokio::spawn(async move {
            let argument = argument.read_to_end(usize::MAX).await?;
            back.write_chunk(argument.into()).await?;
            Outcome::Ok(back.finish()?)
        });
    }
}

struct Quic {
    relay: Connection,
    _ends: [Endpoint; 4],
}

impl Echo for Quic {
    fn echo(&self, argument: Bytes) -> BoxFuture<'_, Outcome<Bytes>> {
        Box::pin(async {
            let (mut there, mut back) = self.relay.open_bi().await?;
            there.write_chunk(argument).await?;
            there.finish()?;
            Ok(back.read_to_end(usize::MAX).await?.into())
        })
    }
}

/// A client whose relay has a node, with a certificate of `authority`.
pub(crate) async fn start(authority: &Authority) -> Outcome<Arc<dyn Echo>> {
    let issued = authority.issue("quic", &[HOST.into()], CERTIFICATE_LIFE)?;
    let provider = Arc::new(ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&issued.certificate)?],
            PrivateKeyDer::from_pem_file(&issued.key)?,
        )?;
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
    server.transport_config(transport());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.certificate())?)?;
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
    client.transport_config(transport());

    // One port of the relay for nodes, one for clients.
    let for_nodes = endpoint(Some(server.clone()))?;
    let for_clients = endpoint(Some(server))?;
    let (node_end, client_end) = (endpoint(None)?, endpoint(None)?);
    let meet = async |near: &Endpoint, far: &Endpoint| {
        let there = near.connect_with(client.clone(), far.local_addr()?, HOST)?;
        let here = async { Ok(far.accept().await.ok_or("the endpoint is closed")?.await?) };
        let there = async { Outcome::Ok(there.await?) };
        tokio::try_join!(there, here)
    };
    let (at_node, to_node) = meet(&node_end, &for_nodes).await?;
    let (at_client, to_client) = meet(&client_end, &for_clients).await?;
    tokio::spawn(node(at_node));
    tokio::spawn(relay(to_client, to_node));
    Ok(Arc::new(Quic {
        relay: at_client,
        _ends: [for_nodes, for_clients, node_end, client_end],
    }))
}
