//! A broker with a clock and connections.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Moment,
    broker::{Action, Broker, PeerId},
    outbox::Outbox,
    tokens::Tokens,
    wire::Frame,
};

/// Bytes that may wait for one connection. Windows keep an honest reader of many calls below it.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Bytes that may wait for another gateway, with which many calls share one link.
const MAX_GATEWAY_BYTES: usize = 1 << 30;
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(500);

/// A node's id and the key that took it.
pub type Owned = (String, [u8; 32]);

/// A broker, its clock, and the connections it has.
pub struct Hub {
    state: Mutex<State>,
    began: Instant,
    began_us: u64,
    owned: mpsc::UnboundedSender<Owned>,
}

struct State {
    broker: Broker,
    outboxes: HashMap<PeerId, Arc<Outbox>>,
    /// Whether connections have been ended for good.
    closed: bool,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

impl Hub {
    /// A broker that tells `owned` of every node id that is taken for the first time.
    pub fn new(broker: Broker, owned: mpsc::UnboundedSender<Owned>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            state: Mutex::new(State {
                broker,
                outboxes: HashMap::new(),
                closed: false,
            }),
            began: Instant::now(),
            began_us: since.map_or(0, micros),
            owned,
        }
    }

    /// Tells the broker what time it is until `shutdown`, then ends all connections.
    pub(crate) async fn keep_time(&self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            let deadline = self.with(|broker, _| broker.next_deadline());
            let until = deadline.map_or(TICK, |at| {
                Duration::from_micros(at.micros_after(self.now())).min(TICK)
            });
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {}
                () = tokio::time::sleep(until), if deadline.is_some() => {}
            }
            self.with(|broker, now| broker.tick(now));
        }
        self.close_all();
    }

    /// Serves one connection, whose preface was read, until it ends.
    pub async fn attend<R, W>(&self, read: R, write: W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let outbox = Arc::new(Outbox::new(MAX_WAITING_BYTES));
        let mut nonce = [0; 32];
        if let Err(error) = getrandom::fill(&mut nonce) {
            tracing::error!(%error, "functions.broker.random");
            return;
        }
        match self.open(&outbox, |broker, now| broker.connect(nonce, now)) {
            Ok(peer) => self.move_frames(peer, &outbox, read, write).await,
            Err(reason) => tracing::warn!(reason, "functions.broker.refused"),
        }
    }

    /// Serves a link on which the gateway of that name calls here, until it ends.
    pub async fn attend_gateway<R, W>(&self, name: &str, read: R, write: W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let outbox = Arc::new(Outbox::new(MAX_GATEWAY_BYTES));
        let opened: Result<_, Infallible> =
            self.open(&outbox, |broker, now| Ok(broker.connect_gateway(name, now)));
        let Ok(peer) = opened;
        self.move_frames(peer, &outbox, read, write).await;
    }

    /// Serves what speaks other protocols in this process, until it ends.
    pub async fn attend_front<R, W>(&self, read: R, write: W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let outbox = Arc::new(Outbox::new(MAX_GATEWAY_BYTES));
        let opened: Result<_, Infallible> =
            self.open(&outbox, |broker, now| Ok(broker.connect_front(now)));
        let Ok(peer) = opened;
        self.move_frames(peer, &outbox, read, write).await;
    }

    /// Gives calls to nodes of the gateway of that name over a link, until it ends.
    pub async fn attend_remote<R, W>(&self, name: &str, read: R, write: W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let outbox = Arc::new(Outbox::new(MAX_GATEWAY_BYTES));
        let opened: Result<_, Infallible> =
            self.open(&outbox, |broker, now| Ok(broker.connect_remote(name, now)));
        let Ok(peer) = opened;
        self.move_frames(peer, &outbox, read, write).await;
    }

    async fn move_frames<R, W>(&self, peer: PeerId, outbox: &Outbox, read: R, write: W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        tokio::select! {
            _ = outbox.write_to(write) => {}
            _ = self.read(peer, read) => {}
            () = outbox.overdue() => {}
        }
        self.with(|broker, now| broker.disconnect(peer, now));
        self.state().outboxes.remove(&peer);
    }

    fn open<E>(
        &self,
        outbox: &Arc<Outbox>,
        connect: impl FnOnce(&mut Broker, Moment) -> Result<PeerId, E>,
    ) -> Result<PeerId, E> {
        let now = self.now();
        let mut state = self.state();
        let peer = connect(&mut state.broker, now)?;
        state.outboxes.insert(peer, Arc::clone(outbox));
        self.act(&mut state);
        if state.closed {
            outbox.close();
        }
        Ok(peer)
    }

    async fn read(&self, peer: PeerId, mut read: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut waiting = BytesMut::with_capacity(READ_BYTES);
        let mut most_body = self.with(|broker, _| broker.most_body(peer));
        loop {
            if read.read_buf(&mut waiting).await? == 0 {
                return Ok(());
            }
            let mut frames = Vec::new();
            while let Some(frame) =
                Frame::decode_within(&mut waiting, most_body).map_err(io::Error::other)?
            {
                frames.push(frame);
            }
            most_body = self.with(|broker, now| {
                for frame in frames {
                    broker.receive(peer, frame, now);
                }
                broker.most_body(peer)
            });
            waiting.reserve(READ_BYTES);
        }
    }

    /// When this broker began, in microseconds since 1970.
    pub fn began_us(&self) -> u64 {
        self.began_us
    }

    /// New tokens in place of those before.
    pub fn set_tokens(&self, tokens: Tokens) {
        self.with(|broker, now| broker.set_tokens(tokens, now));
    }

    /// Lets `step` drive the broker, then does what it wants done. Frames enter the outboxes before
    /// anybody else can drive it, so their order is the broker's.
    pub fn with<T>(&self, step: impl FnOnce(&mut Broker, Moment) -> T) -> T {
        let now = self.now();
        let mut state = self.state();
        let result = step(&mut state.broker, now);
        self.act(&mut state);
        result
    }

    fn act(&self, state: &mut State) {
        for action in state.broker.take_actions() {
            match action {
                Action::Send(peer, frame) => {
                    if let Some(outbox) = state.outboxes.get(&peer) {
                        outbox.push(frame);
                    }
                }
                Action::Close(peer) => {
                    if let Some(outbox) = state.outboxes.get(&peer) {
                        outbox.close();
                    }
                }
                Action::Own { id, key } => {
                    // Nobody may listen any more while the process ends.
                    let _ = self.owned.send((id, key));
                }
            }
        }
    }

    fn close_all(&self) {
        let mut state = self.state();
        state.closed = true;
        for outbox in state.outboxes.values() {
            outbox.close();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        Moment(self.began_us.saturating_add(micros(self.began.elapsed())))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
