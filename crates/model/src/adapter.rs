//! LoRA adapters: one flat run of numbers in canonical order.

use std::ops::Range;

use r3mes_exact::{Device, LoraSite, Philox, signed_unit, undisturbed};
use r3mes_types::Hash;

use crate::config::ModelConfig;
use crate::linear::{Linear, LinearSet};

/// Highest rank of a LoRA pair.
pub const MAX_RANK: usize = 1024;
/// Most numbers in an adapter (4 GiB of them).
pub const MAX_ADAPTER_NUMBERS: usize = 1 << 30;

/// What an adapter of a model looks like: rank, scaling and which linears carry a pair.
///
/// A pair adds `alpha / rank * B(A x)` to a linear's output; A is `[rank][in]`, B `[out][rank]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank of every pair, between 1 and [`MAX_RANK`].
    pub rank: usize,
    /// Numerator of the scale `alpha / rank`; finite.
    pub alpha: f32,
    /// The linears of each block that carry a pair.
    pub targets: LinearSet,
}

impl LoraConfig {
    /// The network's default: rank 8, alpha 16, on all seven linears.
    pub const DEFAULT: Self = Self {
        rank: 8,
        alpha: 16.0,
        targets: LinearSet::ALL,
    };

    /// The factor `alpha / rank`, one f32 division.
    pub fn scale(&self) -> f32 {
        undisturbed(|| self.alpha / self.rank as f32)
    }
}

/// One LoRA pair: which linear it adds to, and where its numbers lie in the flat adapter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraPair {
    /// Block, from 0.
    pub layer: usize,
    /// The linear that the pair adds to.
    pub linear: Linear,
    /// Place and shape of the factors, and their scale.
    pub site: LoraSite,
}

impl LoraPair {
    /// Where factor A lies, `[rank][inputs]` row-major.
    pub fn a(&self) -> Range<usize> {
        self.site.a..self.site.a + self.site.rank * self.site.inputs
    }

    /// Where factor B lies, `[outputs][rank]` row-major.
    pub fn b(&self) -> Range<usize> {
        self.site.b..self.site.b + self.site.outputs * self.site.rank
    }
}

/// The canonical order of an adapter's numbers: layers ascending; q, k, v, o, gate, up, down;
/// A, then B.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterLayout {
    config: LoraConfig,
    pairs: Vec<LoraPair>,
    slots: Vec<[Option<usize>; 7]>,
    len: usize,
}

/// Why an adapter is refused.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The rank lies outside what is accepted.
    #[error("the LoRA rank is {rank}, but must be between 1 and {MAX_RANK}")]
    Rank {
        /// What was asked for.
        rank: usize,
    },
    /// Alpha is not a finite number.
    #[error("the LoRA alpha is {alpha}, but must be finite")]
    Alpha {
        /// What was asked for.
        alpha: f32,
    },
    /// The adapter would hold too many numbers.
    #[error("the adapter would hold more than {MAX_ADAPTER_NUMBERS} numbers: lower the rank")]
    TooLarge,
    /// The bytes or numbers are not as many as the layout says.
    #[error("an adapter of this model has {expected} numbers, but {found} were given")]
    Length {
        /// Numbers of the layout.
        expected: usize,
        /// Numbers found.
        found: usize,
    },
    /// The bytes do not divide into numbers.
    #[error("an adapter is whole numbers of 4 bytes, but {bytes} bytes were given")]
    Bytes {
        /// Bytes found.
        bytes: usize,
    },
    /// A number is infinite or not a number.
    #[error("number {index} of the adapter is not finite")]
    NotFinite {
        /// Its place in the flat order.
        index: usize,
    },
}

impl AdapterLayout {
    /// The layout of `lora` on a model of shape `model`.
    ///
    /// # Errors
    /// When the rank or alpha is out of range, or the adapter would be too large.
    pub fn new(model: &ModelConfig, lora: LoraConfig) -> Result<Self, AdapterError> {
        if !(1..=MAX_RANK).contains(&lora.rank) {
            return Err(AdapterError::Rank { rank: lora.rank });
        }
        if !lora.alpha.is_finite() {
            return Err(AdapterError::Alpha { alpha: lora.alpha });
        }
        let mut pairs = Vec::new();
        let mut slots = vec![[None; 7]; model.layers];
        let mut next = 0_usize;
        for (layer, slot) in slots.iter_mut().enumerate() {
            for linear in lora.targets.iter() {
                let (outputs, inputs) = model.dimensions(linear);
                let (a, b) = (next, next + lora.rank * inputs);
                next = b + outputs * lora.rank;
                if next > MAX_ADAPTER_NUMBERS {
                    return Err(AdapterError::TooLarge);
                }
                slot[linear as usize] = Some(pairs.len());
                let (rank, scale) = (lora.rank, lora.scale());
                let site = LoraSite {
                    a,
                    b,
                    rank,
                    inputs,
                    outputs,
                    scale,
                };
                pairs.push(LoraPair {
                    layer,
                    linear,
                    site,
                });
            }
        }
        Ok(Self {
            config: lora,
            pairs,
            slots,
            len: next,
        })
    }

    /// Rank, scaling and targets.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// Numbers in the adapter.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a count of numbers, not a collection"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The pairs in canonical order.
    pub fn pairs(&self) -> &[LoraPair] {
        &self.pairs
    }

    /// The pair on `linear` of block `layer`, if there is one.
    pub fn pair(&self, layer: usize, linear: Linear) -> Option<&LoraPair> {
        let index = self.slots.get(layer)?[linear as usize]?;
        Some(&self.pairs[index])
    }
}

/// The numbers of an adapter, all finite, in the order of an [`AdapterLayout`].
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    numbers: Vec<f32>,
}

impl Adapter {
    /// A fresh adapter: A uniform in `[-1, 1) / sqrt(in)` from the stream `random`, B zero, so
    /// that it changes nothing until it is trained.
    ///
    /// The elements of the As take the words 0, 1, 2 and so on, in canonical order.
    pub fn initial(layout: &AdapterLayout, random: &Philox) -> Self {
        let mut numbers = vec![0.0; layout.len()];
        let mut words = random.words();
        undisturbed(|| {
            for pair in layout.pairs() {
                let bound = 1.0 / (pair.site.inputs as f32).sqrt();
                for (number, word) in numbers[pair.a()].iter_mut().zip(&mut words) {
                    *number = signed_unit(word) * bound;
                }
            }
        });
        Self { numbers }
    }

    /// Takes `numbers` as an adapter of `layout`.
    ///
    /// # Errors
    /// When there are too few or too many, or one is not finite.
    pub fn from_numbers(layout: &AdapterLayout, numbers: Vec<f32>) -> Result<Self, AdapterError> {
        if numbers.len() != layout.len() {
            let (expected, found) = (layout.len(), numbers.len());
            return Err(AdapterError::Length { expected, found });
        }
        match numbers.iter().position(|number| !number.is_finite()) {
            Some(index) => Err(AdapterError::NotFinite { index }),
            None => Ok(Self { numbers }),
        }
    }

    /// Reads the bytes of [`Self::to_bytes`].
    ///
    /// # Errors
    /// As [`Self::from_numbers`], and when the bytes do not divide into numbers.
    pub fn from_bytes(layout: &AdapterLayout, bytes: &[u8]) -> Result<Self, AdapterError> {
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(AdapterError::Bytes { bytes: bytes.len() });
        }
        if words.len() != layout.len() {
            let (expected, found) = (layout.len(), words.len());
            return Err(AdapterError::Length { expected, found });
        }
        Self::from_numbers(
            layout,
            words.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        )
    }

    /// The numbers as little-endian f32, nothing before, between or after them.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    }

    /// BLAKE3 of [`Self::to_bytes`]: the adapter's id.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_bytes())
    }

    /// The numbers in canonical order.
    pub fn numbers(&self) -> &[f32] {
        &self.numbers
    }

    /// The numbers, taken out.
    pub fn into_numbers(self) -> Vec<f32> {
        self.numbers
    }
}

/// An adapter in a device's memory, with its layout.
pub struct LoadedAdapter<D: Device> {
    layout: AdapterLayout,
    numbers: D::Buffer<f32>,
}

impl<D: Device> LoadedAdapter<D> {
    /// Copies `adapter`, which is of `layout`, to the memory of `device`.
    ///
    /// # Errors
    /// [`AdapterError::Length`] when the adapter is not of this layout.
    pub fn new(
        device: &D,
        layout: &AdapterLayout,
        adapter: &Adapter,
    ) -> Result<Self, AdapterError> {
        if adapter.numbers.len() != layout.len() {
            let (expected, found) = (layout.len(), adapter.numbers.len());
            return Err(AdapterError::Length { expected, found });
        }
        Ok(Self {
            layout: layout.clone(),
            numbers: device.upload(&adapter.numbers),
        })
    }

    /// Where the numbers lie.
    pub fn layout(&self) -> &AdapterLayout {
        &self.layout
    }

    /// The numbers in canonical order.
    pub fn numbers(&self) -> &D::Buffer<f32> {
        &self.numbers
    }

    /// The numbers, to be updated by an optimizer.
    pub fn numbers_mut(&mut self) -> &mut D::Buffer<f32> {
        &mut self.numbers
    }

    /// Copies the adapter back from the memory of `device`.
    ///
    /// # Errors
    /// [`AdapterError::NotFinite`] when an update made a number infinite.
    pub fn download(&self, device: &D) -> Result<Adapter, AdapterError> {
        let mut numbers = vec![0.0; self.layout.len()];
        device.read(&self.numbers, 0, &mut numbers);
        Adapter::from_numbers(&self.layout, numbers)
    }

    /// The pair on `linear` of block `layer`, if there is one.
    pub(crate) fn site(&self, layer: usize, linear: Linear) -> Option<&LoraSite> {
        self.layout.pair(layer, linear).map(|pair| &pair.site)
    }
}

impl<D: Device> std::fmt::Debug for LoadedAdapter<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedAdapter")
            .field("layout", &self.layout.config())
            .finish_non_exhaustive()
    }
}
