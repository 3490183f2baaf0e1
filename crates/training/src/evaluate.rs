//! Held-out loss.

use r3mes_exact::Device;
use r3mes_model::{Batch, BatchError, LoadedAdapter, Loss, LossError, Model, TrainingWorkspace};

/// Why a held-out loss could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The windows do not fit the model.
    #[error("the held-out windows do not fit the model")]
    Batch(#[from] BatchError),
    /// The loss could not be computed.
    #[error("the held-out loss could not be computed")]
    Loss(#[from] LossError),
}

/// The loss over all targets of `windows`, `batch` windows at a time. The sum
/// is an integer, so neither the batch nor the machine changes it.
///
/// # Errors
/// [`EvaluateError`] when a window does not fit the model.
///
/// # Panics
/// If `batch` is zero.
pub fn held_out_loss<D: Device>(
    model: &Model<D>,
    adapter: Option<&LoadedAdapter<D>>,
    windows: &[&[u32]],
    batch: usize,
    workspace: &mut TrainingWorkspace<D>,
) -> Result<Loss, EvaluateError> {
    let mut total = Loss::default();
    for windows in windows.chunks(batch) {
        let batch = Batch::new(model.config(), windows.to_vec())?;
        let loss = model.loss(adapter, &batch, workspace)?;
        total.sum += loss.sum;
        total.targets += loss.targets;
    }
    Ok(total)
}
