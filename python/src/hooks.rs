//! What the native half asks of the Python half.

use pyo3::{exceptions::PyRuntimeError, prelude::*, sync::PyOnceLock};

/// Functions of the Python half.
pub(crate) struct Hooks {
    /// `(value, pickle) -> value`: another value that stands for one that is not plain.
    pub(crate) replace: Py<PyAny>,
    /// `(kind, dtype, shape, memoryview) -> value`: an array over received memory.
    pub(crate) restore: Py<PyAny>,
    /// `(type name, fields) -> value`: an object that had named fields.
    pub(crate) object: Py<PyAny>,
    /// `bytes -> value`: what was pickled.
    pub(crate) unpickle: Py<PyAny>,
    /// `seconds, nanoseconds -> datetime`.
    pub(crate) moment: Py<PyAny>,
    /// `(reason, message, exception, traceback, retry after) -> exception`.
    pub(crate) failure: Py<PyAny>,
}

static HOOKS: PyOnceLock<Hooks> = PyOnceLock::new();

/// Names the functions of the Python half; `r3mes._values` does it when it is imported.
#[pyfunction]
pub(crate) fn set_hooks(
    py: Python<'_>,
    replace: Py<PyAny>,
    restore: Py<PyAny>,
    object: Py<PyAny>,
    unpickle: Py<PyAny>,
    moment: Py<PyAny>,
    failure: Py<PyAny>,
) {
    let hooks = Hooks {
        replace,
        restore,
        object,
        unpickle,
        moment,
        failure,
    };
    // A second import changes nothing.
    let _ = HOOKS.set(py, hooks);
}

/// The functions of the Python half, which is imported if nothing has done it yet.
pub(crate) fn hooks(py: Python<'_>) -> PyResult<&Hooks> {
    if let Some(hooks) = HOOKS.get(py) {
        return Ok(hooks);
    }
    py.import("r3mes._values")?;
    HOOKS.get(py).ok_or_else(|| {
        PyRuntimeError::new_err("r3mes._values named no functions: install r3mes anew")
    })
}
