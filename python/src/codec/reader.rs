//! Items to Python values.

use bytes::Bytes;
use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyMemoryView, PySlice, PyString, PyTuple},
};
use rmp::Marker;

use super::{ALIGNMENT, MAX_DEPTH, Reading, extension};
use crate::{
    hooks::hooks,
    memory::{Memory, count_copy},
};

/// Gives what stands for the items that follow.
pub(super) type StreamOf<'a, 'py> = &'a dyn Fn() -> PyResult<Bound<'py, PyAny>>;

/// Items up to this hold no buffers, so that nobody needs their memory afterwards.
const SMALL: usize = ALIGNMENT;

/// The value of an item; `stream` stands for the items that follow, where there may be any.
pub(super) fn value<'py>(
    py: Python<'py>,
    item: Bytes,
    reading: &Reading,
    stream: Option<StreamOf<'_, 'py>>,
) -> PyResult<Bound<'py, PyAny>> {
    if item.len() <= SMALL {
        return Decoder::new(&item, None, reading, stream).document(py);
    }
    let memory = Bound::new(py, Memory::new(item))?;
    let bytes = memory.get().bytes();
    Decoder::new(bytes, Some(&memory), reading, stream).document(py)
}

struct Decoder<'a, 'py> {
    item: &'a [u8],
    at: usize,
    /// The item's memory, for buffers in it.
    memory: Option<&'a Bound<'py, Memory>>,
    reading: &'a Reading,
    stream: Option<StreamOf<'a, 'py>>,
    /// Where buffers begin, once known.
    buffers: Option<usize>,
}

fn invalid(words: impl Into<String>) -> PyErr {
    PyValueError::new_err(format!("what came is no value: {}", words.into()))
}

impl<'a, 'py> Decoder<'a, 'py> {
    fn new(
        item: &'a [u8],
        memory: Option<&'a Bound<'py, Memory>>,
        reading: &'a Reading,
        stream: Option<StreamOf<'a, 'py>>,
    ) -> Self {
        Self {
            item,
            at: 0,
            memory,
            reading,
            stream,
            buffers: None,
        }
    }

    fn document(mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.value(py, 0, false)
    }

    fn take(&mut self, bytes: usize) -> PyResult<&'a [u8]> {
        let end = self.at.checked_add(bytes);
        let taken = end.and_then(|end| self.item.get(self.at..end));
        let taken = taken.ok_or_else(|| invalid("it ends too early"))?;
        self.at += bytes;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn value(&mut self, py: Python<'py>, depth: usize, key: bool) -> PyResult<Bound<'py, PyAny>> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("it has more than {MAX_DEPTH} levels")));
        }
        let marker = Marker::from_u8(self.number::<1>()?[0]);
        let long = |bytes: [u8; 4]| u32::from_be_bytes(bytes) as usize;
        let short = |bytes: [u8; 2]| u16::from_be_bytes(bytes) as usize;
        Ok(match marker {
            Marker::FixPos(number) => number.into_pyobject(py)?.into_any(),
            Marker::FixNeg(number) => number.into_pyobject(py)?.into_any(),
            Marker::Null => py.None().into_bound(py),
            Marker::True => true.into_pyobject(py)?.to_owned().into_any(),
            Marker::False => false.into_pyobject(py)?.to_owned().into_any(),
            Marker::U8 => self.number::<1>()?[0].into_pyobject(py)?.into_any(),
            Marker::U16 => u16::from_be_bytes(self.number()?)
                .into_pyobject(py)?
                .into_any(),
            Marker::U32 => u32::from_be_bytes(self.number()?)
                .into_pyobject(py)?
                .into_any(),
            Marker::U64 => u64::from_be_bytes(self.number()?)
                .into_pyobject(py)?
                .into_any(),
            Marker::I8 => i8::from_be_bytes(self.number()?)
                .into_pyobject(py)?
                .into_any(),
            Marker::I16 => i16::from_be_bytes(self.number()?)
                .into_pyobject(py)?
                .into_any(),
            Marker::I32 => i32::from_be_bytes(self.number()?)
                .into_pyobject(py)?
                .into_any(),
            Marker::I64 => i64::from_be_bytes(self.number()?)
                .into_pyobject(py)?
                .into_any(),
            Marker::F32 => f32::from_be_bytes(self.number()?)
                .into_pyobject(py)?
                .into_any(),
            Marker::F64 => f64::from_be_bytes(self.number()?)
                .into_pyobject(py)?
                .into_any(),
            Marker::FixStr(bytes) => self.text(py, bytes.into())?,
            Marker::Str8 => {
                let bytes = self.number::<1>()?[0].into();
                self.text(py, bytes)?
            }
            Marker::Str16 => {
                let bytes = short(self.number()?);
                self.text(py, bytes)?
            }
            Marker::Str32 => {
                let bytes = long(self.number()?);
                self.text(py, bytes)?
            }
            Marker::Bin8 => {
                let bytes = self.number::<1>()?[0].into();
                PyBytes::new(py, self.take(bytes)?).into_any()
            }
            Marker::Bin16 => {
                let bytes = short(self.number()?);
                PyBytes::new(py, self.take(bytes)?).into_any()
            }
            Marker::Bin32 => {
                let bytes = long(self.number()?);
                PyBytes::new(py, self.take(bytes)?).into_any()
            }
            Marker::FixArray(count) => self.array(py, count.into(), depth, key)?,
            Marker::Array16 => {
                let count = short(self.number()?);
                self.array(py, count, depth, key)?
            }
            Marker::Array32 => {
                let count = long(self.number()?);
                self.array(py, count, depth, key)?
            }
            Marker::FixMap(count) => self.map(py, count.into(), depth)?.into_any(),
            Marker::Map16 => {
                let count = short(self.number()?);
                self.map(py, count, depth)?.into_any()
            }
            Marker::Map32 => {
                let count = long(self.number()?);
                self.map(py, count, depth)?.into_any()
            }
            Marker::FixExt1 => self.extension(py, 1, depth)?,
            Marker::FixExt2 => self.extension(py, 2, depth)?,
            Marker::FixExt4 => self.extension(py, 4, depth)?,
            Marker::FixExt8 => self.extension(py, 8, depth)?,
            Marker::FixExt16 => self.extension(py, 16, depth)?,
            Marker::Ext8 => {
                let bytes = self.number::<1>()?[0].into();
                self.extension(py, bytes, depth)?
            }
            Marker::Ext16 => {
                let bytes = short(self.number()?);
                self.extension(py, bytes, depth)?
            }
            Marker::Ext32 => {
                let bytes = long(self.number()?);
                self.extension(py, bytes, depth)?
            }
            Marker::Reserved => return Err(invalid("MessagePack has no type 0xc1")),
        })
    }

    fn text(&mut self, py: Python<'py>, bytes: usize) -> PyResult<Bound<'py, PyAny>> {
        let text = std::str::from_utf8(self.take(bytes)?)
            .map_err(|error| invalid(format!("text that is not UTF-8: {error}")))?;
        Ok(PyString::new(py, text).into_any())
    }

    /// Lists; where a key stands, tuples, which Python can look up.
    fn array(
        &mut self,
        py: Python<'py>,
        count: usize,
        depth: usize,
        key: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut entries = Vec::with_capacity(count.min(self.item.len() - self.at));
        for _ in 0..count {
            entries.push(self.value(py, depth + 1, key)?);
        }
        match key {
            true => Ok(PyTuple::new(py, entries)?.into_any()),
            false => Ok(PyList::new(py, entries)?.into_any()),
        }
    }

    fn map(&mut self, py: Python<'py>, count: usize, depth: usize) -> PyResult<Bound<'py, PyDict>> {
        let map = PyDict::new(py);
        for _ in 0..count {
            let key = self.value(py, depth + 1, true)?;
            map.set_item(key, self.value(py, depth + 1, false)?)?;
        }
        Ok(map)
    }

    fn extension(
        &mut self,
        py: Python<'py>,
        bytes: usize,
        depth: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let kind = i8::from_be_bytes(self.number()?);
        let end = self
            .at
            .checked_add(bytes)
            .filter(|end| *end <= self.item.len());
        let end = end.ok_or_else(|| invalid("an extension ends too early"))?;
        let value = match kind {
            extension::BUFFER => {
                let (kind, dtype, shape, offset, length): (
                    String,
                    String,
                    Vec<usize>,
                    usize,
                    usize,
                ) = self
                    .value(py, depth + 1, false)?
                    .cast::<PyList>()?
                    .to_tuple()
                    .extract()?;
                self.buffer(py, (&kind, &dtype, shape), offset, length)?
            }
            extension::OBJECT => {
                let (name, fields): (Bound<'_, PyAny>, Bound<'_, PyAny>) = self
                    .value(py, depth + 1, false)?
                    .cast::<PyList>()?
                    .to_tuple()
                    .extract()?;
                hooks(py)?.object.bind(py).call1((name, fields))?
            }
            extension::PICKLE => {
                if !self.reading.pickle {
                    return Err(invalid(
                        "it was pickled, and reading that runs code of whoever sent it; \
                         allow it with pickle=True at both ends if you trust them",
                    ));
                }
                let pickled = PyBytes::new(py, self.take(bytes)?);
                hooks(py)?.unpickle.bind(py).call1((pickled,))?
            }
            extension::STREAM => {
                self.stream
                    .ok_or_else(|| invalid("a stream within a value"))?()?
            }
            extension::MOMENT => {
                let (seconds, nanoseconds) = self.moment(bytes)?;
                hooks(py)?.moment.bind(py).call1((seconds, nanoseconds))?
            }
            other => {
                return Err(invalid(format!(
                    "it has an extension of unknown type {other}"
                )));
            }
        };
        match self.at == end {
            true => Ok(value),
            false => Err(invalid("an extension has another length than its content")),
        }
    }

    fn moment(&mut self, bytes: usize) -> PyResult<(i64, u32)> {
        Ok(match bytes {
            4 => (u32::from_be_bytes(self.number()?).into(), 0),
            8 => {
                let both = u64::from_be_bytes(self.number()?);
                ((both & 0x3_ffff_ffff) as i64, (both >> 34) as u32)
            }
            12 => {
                let nanoseconds = u32::from_be_bytes(self.number()?);
                (i64::from_be_bytes(self.number()?), nanoseconds)
            }
            _ => return Err(invalid("a moment has 4, 8 or 12 bytes")),
        })
    }

    fn buffer(
        &mut self,
        py: Python<'py>,
        (kind, dtype, shape): (&str, &str, Vec<usize>),
        offset: usize,
        length: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let begin = self.buffers_begin()?.checked_add(offset);
        let range = begin.and_then(|begin| Some(begin..begin.checked_add(length)?));
        let range = range.filter(|range| range.end <= self.item.len() || length == 0);
        let range = range.ok_or_else(|| invalid("a buffer lies outside of the item"))?;
        if kind == "bytes" && !self.reading.views {
            let bytes = self.item.get(range).unwrap_or_default();
            count_copy(length);
            return Ok(PyBytes::new(py, bytes).into_any());
        }
        let view = match self.memory {
            Some(memory) if length > 0 => {
                memory.get().count_copy_once();
                let whole = PyMemoryView::from(memory.as_any())?;
                let slice = PySlice::new(py, range.start as isize, range.end as isize, 1);
                whole.get_item(slice)?
            }
            _ => PyMemoryView::from(PyBytes::new(py, b"").as_any())?.into_any(),
        };
        hooks(py)?
            .restore
            .bind(py)
            .call1((kind, dtype, PyTuple::new(py, shape)?, view))
    }

    /// Where buffers begin: at the first multiple of the alignment at or after the document's end.
    fn buffers_begin(&mut self) -> PyResult<usize> {
        if let Some(begin) = self.buffers {
            return Ok(begin);
        }
        let end = document_end(self.item)?;
        let begin = end.next_multiple_of(ALIGNMENT);
        self.buffers = Some(begin);
        Ok(begin)
    }
}

/// Where the document at the start of an item ends.
fn document_end(item: &[u8]) -> PyResult<usize> {
    let number = |at: usize, bytes: usize| {
        let digits = item
            .get(at..at + bytes)
            .ok_or_else(|| invalid("it ends too early"))?;
        Ok::<_, PyErr>(
            digits
                .iter()
                .fold(0usize, |sum, digit| sum << 8 | usize::from(*digit)),
        )
    };
    let (mut at, mut values) = (0usize, 1usize);
    while values > 0 {
        values -= 1;
        let marker = Marker::from_u8(number(at, 1)? as u8);
        at += 1;
        // Bytes to skip, and values that follow within.
        let (skip, within) = match marker {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
                (0, 0)
            }
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixStr(bytes) => (bytes.into(), 0),
            Marker::Str8 | Marker::Bin8 => (1 + number(at, 1)?, 0),
            Marker::Str16 | Marker::Bin16 => (2 + number(at, 2)?, 0),
            Marker::Str32 | Marker::Bin32 => (4 + number(at, 4)?, 0),
            Marker::FixArray(count) => (0, count.into()),
            Marker::Array16 => (2, number(at, 2)?),
            Marker::Array32 => (4, number(at, 4)?),
            Marker::FixMap(count) => (0, 2 * usize::from(count)),
            Marker::Map16 => (2, 2 * number(at, 2)?),
            Marker::Map32 => (4, 2 * number(at, 4)?),
            Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::FixExt4 => (5, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::Ext8 => (2 + number(at, 1)?, 0),
            Marker::Ext16 => (3 + number(at, 2)?, 0),
            Marker::Ext32 => (5 + number(at, 4)?, 0),
            Marker::Reserved => return Err(invalid("MessagePack has no type 0xc1")),
        };
        at = at.saturating_add(skip);
        if at > item.len() {
            return Err(invalid("it ends too early"));
        }
        values += within;
    }
    Ok(at)
}
