//! Python values to items.

use bytes::Bytes;
use pyo3::{
    exceptions::{PyOverflowError, PyValueError},
    prelude::*,
    types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple},
};
use rmp::encode as write;

use super::{ALIGNMENT, INLINE_BYTES, MAX_DEPTH, Moment, Named, Pickled, Raw, Streamed, extension};
use crate::{hooks::hooks, memory};

static ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// An item, and what follows it.
pub(crate) struct Encoded {
    /// The document, then each buffer, with what aligns it.
    pub(crate) parts: Vec<Bytes>,
    /// The iterator whose items follow.
    pub(crate) stream: Option<Py<PyAny>>,
}

impl Encoded {
    /// A value.
    pub(crate) fn value(value: &Bound<'_, PyAny>, pickle: bool) -> PyResult<Self> {
        let mut encoder = Encoder::new(pickle);
        encoder.add(value, 0)?;
        match encoder.stream {
            None => Ok(encoder.finish()),
            Some(_) => Err(PyValueError::new_err(
                "an iterator cannot be returned as a value: register the function with stream=True",
            )),
        }
    }

    /// The arguments of a call, one of which may be an iterator.
    pub(crate) fn arguments(
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
        pickle: bool,
    ) -> PyResult<Self> {
        let mut encoder = Encoder::new(pickle);
        encoder.head(2, write::write_array_len)?;
        encoder.tuple(args, 1)?;
        match kwargs {
            Some(kwargs) => encoder.dict(kwargs, 1)?,
            None => encoder.head(0, write::write_map_len)?,
        }
        Ok(encoder.finish())
    }
}

struct Encoder {
    document: Vec<u8>,
    buffers: Vec<Bytes>,
    /// Where the next buffer begins, after the document.
    end: usize,
    stream: Option<Py<PyAny>>,
    pickle: bool,
}

/// Writing to memory cannot fail but for a length that MessagePack cannot say.
fn written<T, E: std::fmt::Debug>(result: Result<T, E>) -> PyResult<()> {
    result
        .map(|_| ())
        .map_err(|error| PyValueError::new_err(format!("cannot be written: {error:?}")))
}

fn length(count: usize) -> PyResult<u32> {
    u32::try_from(count).map_err(|_| {
        PyValueError::new_err("lists, maps and strings may have at most 2^32 - 1 entries")
    })
}

impl Encoder {
    fn new(pickle: bool) -> Self {
        Self {
            document: Vec::with_capacity(128),
            buffers: Vec::new(),
            end: 0,
            stream: None,
            pickle,
        }
    }

    fn finish(mut self) -> Encoded {
        let mut parts = Vec::with_capacity(1 + 2 * self.buffers.len());
        if !self.buffers.is_empty() {
            self.document
                .resize(self.document.len().next_multiple_of(ALIGNMENT), 0);
        }
        parts.push(self.document.into());
        let last = self.buffers.len();
        for (number, buffer) in self.buffers.into_iter().enumerate() {
            let short = buffer.len().next_multiple_of(ALIGNMENT) - buffer.len();
            parts.push(buffer);
            if number + 1 < last {
                parts.push(Bytes::from_static(&ZEROS[..short]));
            }
        }
        Encoded {
            parts,
            stream: self.stream,
        }
    }

    fn head<T, E: std::fmt::Debug>(
        &mut self,
        count: usize,
        head: impl FnOnce(&mut Vec<u8>, u32) -> Result<T, E>,
    ) -> PyResult<()> {
        written(head(&mut self.document, length(count)?))
    }

    fn add(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
        if depth > MAX_DEPTH {
            let words =
                format!("a value may have at most {MAX_DEPTH} levels; is it part of itself?");
            return Err(PyValueError::new_err(words));
        }
        if let Ok(text) = value.cast_exact::<PyString>() {
            return self.text(text);
        }
        if value.is_none() {
            return written(write::write_nil(&mut self.document));
        }
        if let Ok(number) = value.cast_exact::<PyInt>() {
            return self.integer(number);
        }
        if let Ok(number) = value.cast_exact::<PyFloat>() {
            return written(write::write_f64(&mut self.document, number.value()));
        }
        if let Ok(list) = value.cast_exact::<PyList>() {
            self.head(list.len(), write::write_array_len)?;
            return list
                .iter()
                .try_for_each(|entry| self.add(&entry, depth + 1));
        }
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            return self.dict(dict, depth);
        }
        if let Ok(truth) = value.cast_exact::<pyo3::types::PyBool>() {
            return written(write::write_bool(&mut self.document, truth.is_true()));
        }
        if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            return self.tuple(tuple, depth);
        }
        if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            return self.bytes(bytes);
        }
        self.other(value, depth)
    }

    fn other(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
        if let Ok(raw) = value.cast_exact::<Raw>() {
            let Raw {
                kind,
                dtype,
                shape,
                memory,
            } = raw.get();
            return self.buffer(kind, dtype, shape, memory.clone());
        }
        if let Ok(named) = value.cast_exact::<Named>() {
            let (name, fields) = (&named.get().name, named.get().fields.bind(value.py()));
            return self.extension(extension::OBJECT, |encoder| {
                encoder.head(2, write::write_array_len)?;
                written(write::write_str(&mut encoder.document, name))?;
                encoder.dict(fields, depth + 1)
            });
        }
        if let Ok(moment) = value.cast_exact::<Moment>() {
            let (seconds, rest) = (
                moment.get().0.div_euclid(1_000_000),
                moment.get().0.rem_euclid(1_000_000) as u32,
            );
            return self.extension(extension::MOMENT, |encoder| {
                encoder
                    .document
                    .extend_from_slice(&(rest * 1000).to_be_bytes());
                encoder.document.extend_from_slice(&seconds.to_be_bytes());
                Ok(())
            });
        }
        if let Ok(pickled) = value.cast_exact::<Pickled>() {
            let bytes = pickled.get().0.bind(value.py()).as_bytes();
            return self.extension(extension::PICKLE, |encoder| {
                encoder.document.extend_from_slice(bytes);
                Ok(())
            });
        }
        if let Ok(streamed) = value.cast_exact::<Streamed>() {
            if self.stream.is_some() {
                let words = "only one argument of a call may be an iterator";
                return Err(PyValueError::new_err(words));
            }
            self.stream = Some(streamed.get().0.clone_ref(value.py()));
            return self.extension(extension::STREAM, |_| Ok(()));
        }
        let replaced = hooks(value.py())?
            .replace
            .bind(value.py())
            .call1((value, self.pickle))?;
        self.add(&replaced, depth + 1)
    }

    fn text(&mut self, text: &Bound<'_, PyString>) -> PyResult<()> {
        let text = text.to_str()?;
        length(text.len())?;
        written(write::write_str(&mut self.document, text))
    }

    fn integer(&mut self, number: &Bound<'_, PyInt>) -> PyResult<()> {
        if let Ok(number) = number.extract::<i64>() {
            return written(write::write_sint(&mut self.document, number));
        }
        match number.extract::<u64>() {
            Ok(number) => written(write::write_uint(&mut self.document, number)),
            Err(_) => Err(PyOverflowError::new_err(
                "whole numbers of more than 64 bits cannot be sent: send them as text",
            )),
        }
    }

    fn tuple(&mut self, tuple: &Bound<'_, PyTuple>, depth: usize) -> PyResult<()> {
        self.head(tuple.len(), write::write_array_len)?;
        tuple
            .iter()
            .try_for_each(|entry| self.add(&entry, depth + 1))
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>, depth: usize) -> PyResult<()> {
        self.head(dict.len(), write::write_map_len)?;
        for (key, entry) in dict.iter() {
            self.add(&key, depth + 1)?;
            self.add(&entry, depth + 1)?;
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &Bound<'_, PyBytes>) -> PyResult<()> {
        let length = bytes.as_bytes().len();
        if length > INLINE_BYTES {
            return self.buffer("bytes", "|u1", &[length as u64], memory::lend(bytes)?);
        }
        written(write::write_bin(&mut self.document, bytes.as_bytes()))
    }

    fn buffer(&mut self, kind: &str, dtype: &str, shape: &[u64], memory: Bytes) -> PyResult<()> {
        let (offset, bytes) = (self.end, memory.len());
        self.end = (offset + bytes).next_multiple_of(ALIGNMENT);
        self.buffers.push(memory);
        self.extension(extension::BUFFER, |encoder| {
            let document = &mut encoder.document;
            written(write::write_array_len(document, 5))?;
            written(write::write_str(document, kind))?;
            written(write::write_str(document, dtype))?;
            written(write::write_array_len(document, length(shape.len())?))?;
            for extent in shape {
                written(write::write_uint(document, *extent))?;
            }
            written(write::write_uint(document, offset as u64))?;
            written(write::write_uint(document, bytes as u64))
        })
    }

    fn extension(
        &mut self,
        kind: i8,
        content: impl FnOnce(&mut Self) -> PyResult<()>,
    ) -> PyResult<()> {
        let outer = std::mem::take(&mut self.document);
        let result = content(self);
        let inner = std::mem::replace(&mut self.document, outer);
        result?;
        written(write::write_ext_meta(
            &mut self.document,
            length(inner.len())?,
            kind,
        ))?;
        self.document.extend_from_slice(&inner);
        Ok(())
    }
}
