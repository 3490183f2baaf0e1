//! A frame: what connections carry, after the [`PREFACE`] of whoever opened them.
//!
//! ```text
//! offset  bytes  what
//!      0      4  length of head and body together
//!      4      4  call: which call of this connection it belongs to, 0 for the connection itself
//!      8      1  kind
//!      9      1  flags
//!     10      2  length of the head
//!     12      -  head: a MessagePack map, see `messages`
//!      -      -  body: bytes that only the two ends of a call understand
//! ```
//! Numbers are little-endian. A kind that is not known is skipped, so newer peers can be spoken to.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What a node or client sends before all frames, so that a port can serve other protocols too.
pub const PREFACE: [u8; 8] = *b"R3MESfn1";
/// Bytes before the head.
pub const HEADER_BYTES: usize = 12;
/// Most bytes of one frame's body. Longer payloads are cut into several frames.
pub const MAX_BODY_BYTES: usize = 256 << 10;
/// Most bytes of a body that describes the connection itself, such as the functions of a node.
pub const MAX_CONTROL_BYTES: usize = 4 << 20;

/// Head and body up to this are copied out of what was read, so that a short frame that is kept keeps no
/// more than itself in memory, and the buffer is read into again.
const COPIED_BYTES: usize = 4 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Broker to peer, first: a challenge to sign.
    Challenge = 1,
    /// Peer to broker: who it is.
    Hello = 2,
    /// Broker to peer: it may go on.
    Welcome = 3,
    /// Either way, last: why the connection ends.
    Goodbye = 4,
    /// Node to broker: the functions it offers, in place of those before.
    Register = 5,
    /// Broker to node: which of them are offered now.
    Registered = 6,
    /// Node to broker: its live load. Any frame counts as a sign of life.
    Load = 7,
    /// Either way: asks for a `Pong`.
    Ping = 8,
    /// The answer to a `Ping`.
    Pong = 9,
    /// Client to broker: a question about nodes and functions.
    Ask = 10,
    /// Broker to client: the answer.
    Answer = 11,
    /// Client to broker to node: a call, with the first bytes of its arguments.
    Call = 16,
    /// Either way: further bytes.
    Data = 17,
    /// Either way: how many further bytes may be sent.
    Credit = 18,
    /// Client to broker to node: nobody waits for this call any more.
    Cancel = 19,
    /// Node to broker to client: how far the call has come.
    Progress = 20,
    /// Broker to client: the call waits for a node, and at which place.
    Queued = 21,
    /// Broker to client: a node has the call.
    Started = 22,
    /// Node to broker to client, last: the call failed.
    Failed = 23,
    /// Broker to client: the answer that follows is one that was kept, and how old it is.
    Cached = 24,
    /// Gateway to gateway: a node that it has, in place of what was known of it.
    Offer = 32,
    /// Gateway to gateway: a node that it has no more.
    Withdraw = 33,
    /// Gateway to gateway: how busy a node is.
    State = 34,
    /// Gateway to gateway: what was used of a quota.
    Used = 35,
}

impl Kind {
    const ALL: [Self; 24] = [
        Self::Challenge,
        Self::Hello,
        Self::Welcome,
        Self::Goodbye,
        Self::Register,
        Self::Registered,
        Self::Load,
        Self::Ping,
        Self::Pong,
        Self::Ask,
        Self::Answer,
        Self::Call,
        Self::Data,
        Self::Credit,
        Self::Cancel,
        Self::Progress,
        Self::Queued,
        Self::Started,
        Self::Failed,
        Self::Cached,
        Self::Offer,
        Self::Withdraw,
        Self::State,
        Self::Used,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Most bytes of such a frame's body.
    const fn max_body(self) -> usize {
        match self {
            Self::Register | Self::Registered => MAX_CONTROL_BYTES,
            // What a node registered, and what it said of itself before.
            Self::Offer | Self::Answer => 2 * MAX_CONTROL_BYTES,
            Self::Call | Self::Data => MAX_BODY_BYTES,
            _ => 0,
        }
    }
}

/// Marks of a `Call` or `Data` frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// More bytes of the same item follow.
    pub const NONE: Self = Self(0);
    /// An item ends with this frame.
    pub const ITEM: Self = Self(1);
    /// The sender has nothing more to send in this call. A frame with `END` alone carries no item.
    pub const END: Self = Self(2);
    /// The last item, and the end.
    pub const LAST: Self = Self(3);

    /// Whether an item ends here.
    pub const fn ends_item(self) -> bool {
        self.0 & Self::ITEM.0 != 0
    }

    /// Whether the sender's side of the call ends here.
    pub const fn ends_stream(self) -> bool {
        self.0 & Self::END.0 != 0
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Its marks.
    pub flags: Flags,
    /// Which call of the connection it belongs to; 0 for the connection itself.
    pub call: u32,
    /// A MessagePack map, or nothing.
    pub head: Bytes,
    /// Bytes that only the ends of a call understand.
    pub body: Bytes,
}

/// Why bytes are not frames. The connection cannot go on after it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The head is longer than the frame.
    #[error("a frame of {length} bytes cannot have a head of {head}")]
    Head {
        /// Bytes of head and body that were declared.
        length: usize,
        /// Bytes of the head that were declared.
        head: usize,
    },
    /// The body is longer than that kind of frame may have.
    #[error("a frame of kind {kind} cannot have a body of {body} bytes, at most {most}")]
    Body {
        /// The kind's number.
        kind: u8,
        /// Bytes that were declared.
        body: usize,
        /// Most that there may be.
        most: usize,
    },
}

impl Frame {
    /// A frame without head, body and marks.
    pub const fn bare(kind: Kind, call: u32) -> Self {
        Self {
            kind,
            flags: Flags::NONE,
            call,
            head: Bytes::new(),
            body: Bytes::new(),
        }
    }

    /// Bytes of the encoded frame.
    pub fn len(&self) -> usize {
        HEADER_BYTES + self.head.len() + self.body.len()
    }

    /// Whether head and body are empty.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.body.is_empty()
    }

    /// The same frame in memory of its own. As it was read, it may keep much more of what came with it.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            head: Bytes::copy_from_slice(&self.head),
            body: Bytes::copy_from_slice(&self.body),
            ..*self
        }
    }

    /// Appends everything but the body, which a writer may send from where it lies.
    pub fn encode_head(&self, to: &mut BytesMut) {
        let length = self.head.len() + self.body.len();
        to.reserve(HEADER_BYTES + self.head.len());
        to.put_u32_le(u32::try_from(length).expect("bounded by MAX_CONTROL_BYTES and a head"));
        to.put_u32_le(self.call);
        to.put_u8(self.kind as u8);
        to.put_u8(self.flags.0);
        to.put_u16_le(u16::try_from(self.head.len()).expect("heads are made by `messages`"));
        to.put_slice(&self.head);
    }

    /// Takes the next frame off the front of `from`; `None` until all its bytes are there. Frames of
    /// unknown kinds are skipped.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the header says so.
    pub fn decode(from: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        Self::decode_within(from, usize::MAX)
    }

    /// As [`Frame::decode`], from a peer that may send bodies of at most so many bytes, whatever the kind.
    ///
    /// # Errors
    /// As [`Frame::decode`].
    pub fn decode_within(
        from: &mut BytesMut,
        most_body: usize,
    ) -> Result<Option<Self>, FrameError> {
        loop {
            if from.len() < HEADER_BYTES {
                return Ok(None);
            }
            let mut header = &from[..HEADER_BYTES];
            let length = header.get_u32_le() as usize;
            let call = header.get_u32_le();
            let (number, flags) = (header.get_u8(), header.get_u8());
            let head = header.get_u16_le() as usize;
            let body = length
                .checked_sub(head)
                .ok_or(FrameError::Head { length, head })?;
            let kind = Kind::from_byte(number);
            let most = kind.map_or(MAX_CONTROL_BYTES, Kind::max_body);
            let most = most.min(most_body);
            if body > most {
                return Err(FrameError::Body {
                    kind: number,
                    body,
                    most,
                });
            }
            if from.len() < HEADER_BYTES + length {
                from.reserve(HEADER_BYTES + length - from.len());
                return Ok(None);
            }
            from.advance(HEADER_BYTES);
            let mut rest = match length <= COPIED_BYTES {
                true => {
                    let copy = Bytes::copy_from_slice(&from[..length]);
                    from.advance(length);
                    copy
                }
                false => from.split_to(length).freeze(),
            };
            let Some(kind) = kind else { continue };
            let head = rest.split_to(head);
            return Ok(Some(Self {
                kind,
                flags: Flags(flags),
                call,
                head,
                body: rest,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(frame: &Frame) -> BytesMut {
        let mut bytes = BytesMut::new();
        frame.encode_head(&mut bytes);
        bytes.extend_from_slice(&frame.body);
        bytes
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from);
        (
            0..Kind::ALL.len(),
            0..4u8,
            any::<u32>(),
            bytes(40),
            bytes(300),
        )
            .prop_map(|(kind, flags, call, head, body)| {
                let kind = Kind::ALL[kind];
                let body = body.slice(..body.len().min(kind.max_body()));
                Frame {
                    kind,
                    flags: Flags(flags),
                    call,
                    head,
                    body,
                }
            })
    }

    proptest! {
        #[test]
        fn frames_read_back_the_same_however_they_arrive(
            frames in proptest::collection::vec(any_frame(), 1..8),
            cut in 1..50usize,
        ) {
            let all: Vec<u8> = frames.iter().flat_map(encoded).collect();
            let (mut read, mut waiting) = (Vec::new(), BytesMut::new());
            for piece in all.chunks(cut) {
                waiting.extend_from_slice(piece);
                while let Some(frame) = Frame::decode(&mut waiting).unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(waiting.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut waiting = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Frame::decode(&mut waiting) {}
            let most = HEADER_BYTES + u16::MAX as usize + 2 * MAX_CONTROL_BYTES;
            prop_assert!(waiting.capacity() <= most, "{} bytes are kept", waiting.capacity());
        }
    }

    #[test]
    fn a_body_that_is_too_long_is_refused_before_it_arrives() {
        let mut header = BytesMut::new();
        header.put_u32_le(MAX_BODY_BYTES as u32 + 1);
        header.put_u32_le(7);
        header.put_slice(&[Kind::Data as u8, 0, 0, 0]);
        let refusal = Frame::decode(&mut header).unwrap_err();
        assert!(
            matches!(refusal, FrameError::Body { kind: 17, .. }),
            "{refusal}"
        );
    }

    #[test]
    fn a_frame_of_an_unknown_kind_is_skipped() {
        let mut bytes = encoded(&Frame::bare(Kind::Ping, 0));
        bytes[8] = 200;
        bytes.extend_from_slice(&encoded(&Frame::bare(Kind::Pong, 0)));
        let frame = Frame::decode(&mut bytes).unwrap().unwrap();
        assert_eq!(frame.kind, Kind::Pong);
    }
}
