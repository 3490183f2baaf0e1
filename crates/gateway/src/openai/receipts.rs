use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use r3mes_blobs::{AddError, BlobStore, Cid, GetError, PinName, StoreError};
use r3mes_inference::Receipt;
use r3mes_types::wire::Wire;

/// Receipts kept; the oldest go first.
pub const MAX_RECEIPTS: usize = 4096;

/// Longest receipt read back, in bytes.
const MAX_RECEIPT_BYTES: u64 = 16 << 20;

/// Header of an answer that says where its receipts can be had, separated by commas.
pub const RECEIPT_HEADER: &str = "x-r3mes-receipt";

/// Header of a request with the client's nonce, 64 hexadecimal digits, which the receipts bind.
pub const NONCE_HEADER: &str = "x-r3mes-nonce";

/// The receipts of answers given here, as blobs under a pin of their own.
pub(super) struct Receipts {
    store: Arc<dyn BlobStore>,
    pin: PinName,
    known: Mutex<Known>,
}

/// Which receipts there are, oldest first, and which answers they belong to.
#[derive(Default)]
struct Known {
    order: VecDeque<(Option<String>, Cid)>,
    by_answer: HashMap<String, Cid>,
}

impl Receipts {
    /// Finds the receipts that an earlier run has left in the store.
    pub(super) fn open(store: Arc<dyn BlobStore>) -> Result<Self, StoreError> {
        let pin = PinName::new("receipts").expect("the name is a valid one");
        let left = store.pins()?.into_iter().filter(|left| left.name == pin);
        let known = Known {
            order: left.map(|left| (None, left.root)).collect(),
            by_answer: HashMap::new(),
        };
        Ok(Self {
            store,
            pin,
            known: Mutex::new(known),
        })
    }

    /// Keeps the receipt of the answer `id`. Blocks.
    pub(super) fn keep(&self, id: &str, receipt: &Receipt) -> Result<Cid, AddError> {
        let cid = self.store.put(&receipt.encode())?;
        self.store.pin(&cid, &self.pin)?;
        let mut gone = Vec::new();
        {
            let mut known = self.known();
            known.order.push_back((Some(id.to_owned()), cid));
            known.by_answer.insert(id.to_owned(), cid);
            while known.order.len() > MAX_RECEIPTS
                && let Some((id, cid)) = known.order.pop_front()
            {
                known.by_answer.remove(&id.unwrap_or_default());
                gone.push(cid);
            }
        }
        for cid in gone {
            self.store.unpin(&cid, &self.pin)?;
        }
        Ok(cid)
    }

    /// The encoded receipt of an answer, by the answer's id or the receipt's CID. Blocks.
    pub(super) fn read(&self, id: &str) -> Result<Option<(Cid, Vec<u8>)>, GetError> {
        let cid = {
            let known = self.known();
            let named = known.by_answer.get(id).copied();
            let by_cid = || {
                let cid: Cid = id.parse().ok()?;
                let mut all = known.order.iter();
                all.any(|(_, kept)| *kept == cid).then_some(cid)
            };
            named.or_else(by_cid)
        };
        let Some(cid) = cid else {
            return Ok(None);
        };
        match self.store.get(&cid, MAX_RECEIPT_BYTES) {
            Ok(bytes) => Ok(Some((cid, bytes))),
            Err(GetError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
