//! How queries are answered: question in, answer and state key out.

use r3mes_types::query::{MAX_PAGE, MAX_PAGE_KEY, PageRequest, Query};
use r3mes_types::wire::{Blob, DecodeError, List, Value, Wire};

use crate::error::{LedgerError, QueryError};
use crate::store::{Key, Map, View};

/// An encoded answer, and the state key it stands under if it is a single entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The encoded answer.
    pub value: Vec<u8>,
    /// The state key, for proofs.
    pub key: Option<Vec<u8>>,
}

/// Parses the question, asks `find`, encodes what it finds.
///
/// # Errors
/// [`QueryError::Malformed`], or what `find` gives.
pub fn reply<Q: Query>(
    data: &[u8],
    find: impl FnOnce(Q) -> Result<(Q::Answer, Option<Vec<u8>>), LedgerError>,
) -> Result<Answer, LedgerError> {
    let question = Q::decode(data).map_err(malformed)?;
    let (answer, key) = find(question)?;
    Ok(Answer {
        value: answer.encode(),
        key,
    })
}

/// Entries of one page, and where the next begins (empty at the end).
pub type Page<K, V> = (Vec<(K, V)>, Blob<MAX_PAGE_KEY>);

/// One page of a whole table.
///
/// # Errors
/// [`QueryError::Malformed`] when the page begins at what is no key of the table.
pub fn page<K: Key, V: Value>(
    view: &dyn View,
    map: &Map<K, V>,
    request: &PageRequest,
) -> Result<Page<K, V>, LedgerError> {
    page_of(view, map, &(), request)
}

/// One page of the entries whose keys begin with `part`.
///
/// # Errors
/// [`QueryError::Malformed`] when the page begins at what is no key of the table.
pub fn page_of<P: Key, K: Key, V: Value>(
    view: &dyn View,
    map: &Map<K, V>,
    part: &P,
    request: &PageRequest,
) -> Result<Page<K, V>, LedgerError> {
    let after = page_start(request)?;
    let size = request.size();
    let mut entries = map.range_of(view, part, after.as_ref(), size + 1)?;
    let more = entries.len() > size;
    entries.truncate(size);
    let last = entries.last().map(|(key, _)| key);
    let next = next_page(last.filter(|_| more))?;
    Ok((entries, next))
}

/// The key after which a page begins; `None` for the first page.
///
/// # Errors
/// [`QueryError::Malformed`] when it is no key.
pub fn page_start<K: Key>(request: &PageRequest) -> Result<Option<K>, LedgerError> {
    if request.after.is_empty() {
        return Ok(None);
    }
    let mut rest = &*request.after;
    let key = K::read(&mut rest).filter(|_| rest.is_empty());
    let key = key.ok_or_else(|| malformed("the page begins at what is no key"))?;
    Ok(Some(key))
}

/// Where the page begins that follows the entry with this key; nowhere (empty) after the end.
///
/// # Errors
/// [`QueryError::Malformed`] when the key has more than [`MAX_PAGE_KEY`] bytes.
pub fn next_page<K: Key>(last: Option<&K>) -> Result<Blob<MAX_PAGE_KEY>, LedgerError> {
    let mut bytes = Vec::new();
    if let Some(key) = last {
        key.write(&mut bytes);
    }
    Blob::new(bytes).map_err(malformed)
}

/// The values of a page as a list of an answer.
///
/// # Errors
/// Never for a page: it has at most [`MAX_PAGE`] entries.
pub fn listed<T>(values: Vec<T>) -> Result<List<T, MAX_PAGE>, LedgerError> {
    List::new(values).map_err(|error: DecodeError| malformed(error))
}

fn malformed(why: impl std::fmt::Display) -> LedgerError {
    QueryError::Malformed {
        why: why.to_string(),
    }
    .into()
}
