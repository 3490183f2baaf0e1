//! The model in a device's memory.

use r3mes_exact::{AttentionShape, Device, RopePairs, RopeShape};
use r3mes_types::Hash;

use crate::config::{Activation, ModelConfig, RopeLayout};
use crate::linear::{Linear, LinearFormat};
use crate::packed::{PackedModel, Part};

/// A transformer on a device: weights, rotary tables and nothing that changes.
///
/// All its arithmetic is that of docs/spec/exact.md: the same tokens and adapter give the same
/// bits on every device, in every batch and chunking.
pub struct Model<D: Device> {
    pub(crate) device: D,
    pub(crate) config: ModelConfig,
    id: Hash,
    pub(crate) embedding: D::Int8,
    untied_head: Option<D::Int8>,
    pub(crate) final_gain: D::Buffer<f32>,
    pub(crate) rope: D::Rope,
    pub(crate) blocks: Vec<Block<D>>,
}

/// The weights of one transformer block.
pub(crate) struct Block<D: Device> {
    pub(crate) attention_gain: D::Buffer<f32>,
    pub(crate) attention_sub_gain: Option<D::Buffer<f32>>,
    pub(crate) feed_forward_gain: D::Buffer<f32>,
    pub(crate) feed_forward_sub_gain: Option<D::Buffer<f32>>,
    /// By [`Linear`], in canonical order.
    pub(crate) linears: Vec<Matrix<D>>,
}

/// The weights of one linear.
pub(crate) enum Matrix<D: Device> {
    Ternary(D::Ternary),
    Int8(D::Int8),
}

impl<D: Device> Model<D> {
    /// Brings `packed` into the memory of `device`; on the CPU the weights stay where the file is
    /// mapped.
    pub fn load(device: D, packed: &PackedModel) -> Self {
        let config = packed.config().clone();
        let tokens = |panels, scales| {
            let scales = packed.numbers(scales, config.vocab);
            device.int8(packed.bytes(panels), config.vocab, config.hidden, &scales)
        };
        let embedding = tokens(Part::Embedding, Part::EmbeddingScales);
        let untied_head = (!config.tied_head).then(|| tokens(Part::Head, Part::HeadScales));
        let final_gain = device.upload(&packed.numbers(Part::FinalGain, config.hidden));
        let rope = device.rope(&RopeShape {
            head_dim: config.head_dim,
            positions: config.context,
            theta: config.rope_theta,
            pairs: match config.rope {
                RopeLayout::HalfSplit => RopePairs::HalfSplit,
                RopeLayout::Interleaved => RopePairs::Interleaved,
            },
        });
        let blocks = (0..config.layers)
            .map(|layer| Block::load(&device, packed, layer))
            .collect();
        let id = packed.id();
        Self {
            device,
            config,
            id,
            embedding,
            untied_head,
            final_gain,
            rope,
            blocks,
        }
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model id: BLAKE3 of its packed file.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// The device that holds it.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The output head.
    pub(crate) fn head(&self) -> &D::Int8 {
        self.untied_head.as_ref().unwrap_or(&self.embedding)
    }

    pub(crate) fn attention_shape(&self) -> AttentionShape {
        let (heads, kv_heads) = (self.config.heads, self.config.kv_heads);
        AttentionShape {
            heads,
            kv_heads,
            head_dim: self.config.head_dim,
        }
    }

    pub(crate) fn activation(&self) -> r3mes_exact::Activation {
        match self.config.activation {
            Activation::Silu => r3mes_exact::Activation::Silu,
            Activation::Relu2 => r3mes_exact::Activation::Relu2,
        }
    }
}

impl<D: Device> std::fmt::Debug for Model<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("id", &self.id)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<D: Device> Block<D> {
    fn load(device: &D, packed: &PackedModel, layer: usize) -> Self {
        let config = packed.config();
        let gain = |part, width| device.upload(&packed.numbers(part, width));
        let query = config.heads * config.head_dim;
        let sub = config.sub_norm;
        let scales = match config.linears {
            LinearFormat::Ternary => {
                packed.numbers(Part::LinearScales, config.layers * Linear::ALL.len())
            }
            LinearFormat::Int8 => Vec::new(),
        };
        let matrix = |linear| {
            let (rows, columns) = config.dimensions(linear);
            let panels = packed.bytes(Part::Weights(layer, linear));
            match config.linears {
                LinearFormat::Ternary => {
                    let scale = scales[layer * Linear::ALL.len() + linear as usize];
                    Matrix::Ternary(device.ternary(panels, rows, columns, scale))
                }
                LinearFormat::Int8 => {
                    let scales = packed.numbers(Part::RowScales(layer, linear), rows);
                    Matrix::Int8(device.int8(panels, rows, columns, &scales))
                }
            }
        };
        Self {
            attention_gain: gain(Part::AttentionGain(layer), config.hidden),
            attention_sub_gain: sub.then(|| gain(Part::AttentionSubGain(layer), query)),
            feed_forward_gain: gain(Part::FeedForwardGain(layer), config.hidden),
            feed_forward_sub_gain: sub.then(|| gain(Part::FeedForwardSubGain(layer), config.ffn)),
            linears: Linear::ALL.into_iter().map(matrix).collect(),
        }
    }
}
