//! Python values as items of calls, by "Values" in docs/spec/functions.md.

mod reader;
mod writer;

use bytes::Bytes;
use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyTuple},
};

use crate::memory;
pub(crate) use writer::Encoded;

/// Most levels of lists and maps in a value.
pub(crate) const MAX_DEPTH: usize = 200;
/// What buffers are aligned to within an item.
pub(crate) const ALIGNMENT: usize = 64;
/// Bytes up to which `bytes` stand in the document itself.
pub(crate) const INLINE_BYTES: usize = 4096;

/// Types of MessagePack extensions.
pub(crate) mod extension {
    /// A raw buffer that follows the document: `[kind, dtype, shape, offset, length]`.
    pub(crate) const BUFFER: i8 = 1;
    /// An object with named fields: `[type name, map]`.
    pub(crate) const OBJECT: i8 = 2;
    /// Something pickled.
    pub(crate) const PICKLE: i8 = 3;
    /// The items of the call that follow this one.
    pub(crate) const STREAM: i8 = 4;
    /// A moment, as MessagePack itself defines it.
    pub(crate) const MOMENT: i8 = -1;
}

/// A buffer to be sent as it lies in memory.
#[pyclass(frozen)]
pub(crate) struct Raw {
    kind: String,
    dtype: String,
    shape: Vec<u64>,
    memory: Bytes,
}

#[pymethods]
impl Raw {
    #[new]
    fn new(
        kind: String,
        dtype: String,
        shape: Vec<u64>,
        buffer: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        Ok(Self {
            kind,
            dtype,
            shape,
            memory: memory::lend(buffer)?,
        })
    }
}

/// An object with named fields.
#[pyclass(frozen)]
pub(crate) struct Named {
    name: String,
    fields: Py<PyDict>,
}

#[pymethods]
impl Named {
    #[new]
    fn new(name: String, fields: Py<PyDict>) -> Self {
        Self { name, fields }
    }
}

/// A moment, in microseconds since 1970.
#[pyclass(frozen)]
pub(crate) struct Moment(i64);

#[pymethods]
impl Moment {
    #[new]
    fn new(microseconds: i64) -> Self {
        Self(microseconds)
    }
}

/// A pickled object.
#[pyclass(frozen)]
pub(crate) struct Pickled(Py<PyBytes>);

#[pymethods]
impl Pickled {
    #[new]
    fn new(bytes: Py<PyBytes>) -> Self {
        Self(bytes)
    }
}

/// An iterator whose items follow the one that names it.
#[pyclass(frozen)]
pub(crate) struct Streamed(Py<PyAny>);

#[pymethods]
impl Streamed {
    #[new]
    fn new(items: Py<PyAny>) -> Self {
        Self(items)
    }
}

/// How an item is read.
#[derive(Default)]
pub(crate) struct Reading {
    /// Whether bytes come as views of the item's memory.
    pub(crate) views: bool,
    /// Whether pickled objects are read.
    pub(crate) pickle: bool,
    /// What makes the value that is wanted of the plain one.
    pub(crate) convert: Option<Py<PyAny>>,
}

impl Reading {
    /// The same once more.
    pub(crate) fn again(&self, py: Python<'_>) -> Self {
        Self {
            views: self.views,
            pickle: self.pickle,
            convert: self.convert.as_ref().map(|convert| convert.clone_ref(py)),
        }
    }

    /// The same without conversion.
    pub(crate) fn plain(&self) -> Self {
        Self {
            views: self.views,
            pickle: self.pickle,
            convert: None,
        }
    }

    /// Reads a value.
    pub(crate) fn value<'py>(&self, py: Python<'py>, item: Bytes) -> PyResult<Bound<'py, PyAny>> {
        let value = reader::value(py, item, self, None)?;
        match &self.convert {
            Some(convert) => convert.bind(py).call1((value,)),
            None => Ok(value),
        }
    }

    /// Reads the arguments of a call; `stream` gives what stands for the items that follow.
    pub(crate) fn arguments<'py>(
        &self,
        py: Python<'py>,
        item: Bytes,
        stream: &dyn Fn() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let document = reader::value(py, item, self, Some(stream))?;
        let pair = document
            .cast::<PyList>()
            .ok()
            .filter(|pair| pair.len() == 2);
        let arguments = pair.and_then(|pair| {
            let args = pair.get_item(0).ok()?.cast_into::<PyList>().ok()?;
            Some((args.to_tuple(), pair.get_item(1).ok()?.cast_into().ok()?))
        });
        arguments.ok_or_else(|| PyValueError::new_err("the arguments are not [list, map]"))
    }
}

/// A value as one item.
#[pyfunction]
#[pyo3(signature = (value, *, pickle = false))]
pub(crate) fn encode<'py>(
    value: &Bound<'py, PyAny>,
    pickle: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let encoded = Encoded::value(value, pickle)?;
    Ok(PyBytes::new(value.py(), &encoded.parts.concat()))
}

/// The value of an item.
#[pyfunction]
#[pyo3(signature = (item, *, pickle = false, views = false))]
pub(crate) fn decode<'py>(
    item: &Bound<'py, PyAny>,
    pickle: bool,
    views: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let reading = Reading {
        views,
        pickle,
        convert: None,
    };
    reading.value(item.py(), memory::lend(item)?)
}

/// The arguments of a call that came to another process, where `stream` makes what stands for the items
/// that follow.
#[pyfunction]
#[pyo3(signature = (item, stream, *, pickle = false, views = false))]
pub(crate) fn decode_arguments<'py>(
    item: &Bound<'py, PyAny>,
    stream: &Bound<'py, PyAny>,
    pickle: bool,
    views: bool,
) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
    let reading = Reading {
        views,
        pickle,
        convert: None,
    };
    reading.arguments(item.py(), memory::lend(item)?, &|| stream.call0())
}

/// Copies of buffers so far in this process: how many, and their bytes.
#[pyfunction]
pub(crate) fn copies() -> (u64, u64) {
    memory::copied()
}
