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

/// The loss on held-out text, one text beside the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldOutLoss {
    /// For each text, the loss over the targets of its windows.
    pub texts: Vec<Loss>,
}

impl HeldOutLoss {
    /// The mean over the texts of each text's mean, in nats per token: a long
    /// text counts as much as a short one. Texts without a window do not count.
    /// For people, not for hashing.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let texts = self.texts.iter().filter(|text| text.targets > 0);
        let (sum, count) = texts.fold((0.0, 0u32), |(sum, count), text| {
            (sum + text.mean(), count + 1)
        });
        sum / f64::from(count)
    }

    /// Takes in the loss on other windows of the same texts.
    ///
    /// # Panics
    /// If `other` is about another number of texts.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.texts.len(), other.texts.len(), "the same texts");
        for (text, other) in self.texts.iter_mut().zip(&other.texts) {
            text.sum += other.sum;
            text.targets += other.targets;
        }
    }
}

/// The loss over all targets of the windows of each text, `batch` windows at
/// a time. The sums are integers, so neither the batch nor the machine changes
/// them.
///
/// # Errors
/// [`EvaluateError`] when a window does not fit the model.
///
/// # Panics
/// If `batch` is zero.
pub fn held_out_loss<D: Device>(
    model: &Model<D>,
    adapter: Option<&LoadedAdapter<D>>,
    texts: &[Vec<&[u32]>],
    batch: usize,
    workspace: &mut TrainingWorkspace<D>,
) -> Result<HeldOutLoss, EvaluateError> {
    let mut losses = Vec::with_capacity(texts.len());
    for windows in texts {
        let mut total = Loss::default();
        for windows in windows.chunks(batch) {
            let batch = Batch::new(model.config(), windows.to_vec())?;
            let loss = model.loss(adapter, &batch, workspace)?;
            total.sum += loss.sum;
            total.targets += loss.targets;
        }
        losses.push(total);
    }
    Ok(HeldOutLoss { texts: losses })
}
