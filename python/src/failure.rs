//! Failures of calls as Python exceptions.

use pyo3::prelude::*;
use r3mes_functions::{Failure, Reason};
use serde::{Serialize, de::DeserializeOwned};

use crate::hooks::hooks;

/// The exception for a failure.
pub(crate) fn exception(py: Python<'_>, failure: &Failure) -> PyErr {
    let Failure {
        message,
        exception,
        traceback,
        retry_after_ms,
        ..
    } = failure;
    let words = (
        word(failure.reason),
        message,
        exception.as_deref(),
        traceback.as_deref(),
        *retry_after_ms,
    );
    let made = hooks(py).and_then(|hooks| hooks.failure.bind(py).call1(words));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// A reason as the protocol writes it.
fn word(reason: Reason) -> String {
    let word = write(&reason).and_then(|word| read(&word));
    word.unwrap_or_else(|_| "other".to_owned())
}

/// The reason that the protocol writes so.
pub(crate) fn reason(word: &str) -> Reason {
    read(&rmp_serde::to_vec(word).unwrap_or_default()).unwrap_or(Reason::Internal)
}

/// Reads a description that the Python half wrote as MessagePack.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> PyResult<T> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
}

/// Writes a description for the Python half.
pub(crate) fn write<T: Serialize>(value: &T) -> PyResult<Vec<u8>> {
    rmp_serde::to_vec_named(value)
        .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
}
