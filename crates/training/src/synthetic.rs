//! Models and data of any shape from a seed, in memory: for golden hashes, benchmarks and tests,
//! where the arithmetic matters and the meaning does not.

use std::fmt::Write;

use r3mes_exact::{Bytes, Philox, undisturbed};
use r3mes_model::{Checkpoint, LinearFormat, Model, PackedModel, pack_in_memory};
use r3mes_types::task::{AdapterRef, HyperParameters, ShardRef, Task};
use r3mes_types::{Address, Cid, Hash};

use crate::dataset::Shard;
use crate::job::{EXACT_VERSION, adapter_layout, initial_adapter};
use crate::presets::demonstration;
use crate::state::StepState;

/// The shape of a synthetic model: Llama form, ternary linears, tied int8 head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntheticShape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward network.
    pub ffn: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Most positions of one sequence.
    pub context: usize,
}

impl SyntheticShape {
    /// The small model of the golden hashes.
    pub const GOLDEN: Self = Self {
        hidden: 64,
        ffn: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        vocab: 300,
        context: 96,
    };

    /// A model of this shape; the same seed gives the same model everywhere.
    ///
    /// # Panics
    /// If the shape is none that a model can have.
    #[must_use]
    pub fn model(&self, seed: u64) -> PackedModel {
        let shards = vec![(
            "model.safetensors".to_owned(),
            Bytes::from_slice(&self.tensors(seed)),
        )];
        let checkpoint = Checkpoint::from_parts(
            self.config().as_bytes(),
            shards,
            Some(LinearFormat::Ternary),
        );
        checkpoint
            .map_err(|error| error.to_string())
            .and_then(|checkpoint| pack_in_memory(&checkpoint).map_err(|error| error.to_string()))
            .expect("a synthetic checkpoint is complete")
    }

    /// A shard of `tokens` token ids, most of them among the first of the vocabulary, so that
    /// there is something to learn.
    ///
    /// # Panics
    /// If the vocabulary passes 32 bits.
    #[must_use]
    pub fn shard(&self, seed: u64, tokens: usize) -> Shard {
        let vocabulary = u32::try_from(self.vocab).expect("a vocabulary fits 32 bits");
        let draw = |word: u32| (word >> 16) % vocabulary * ((word & 0xffff) % 64) / 64;
        let tokens = Philox::from_seed(seed)
            .words()
            .take(tokens)
            .map(draw)
            .collect();
        Shard::new(Hash::of(b"synthetic"), vocabulary, tokens)
            .expect("every token is of the vocabulary")
    }

    fn config(&self) -> String {
        let Self {
            hidden,
            ffn,
            layers,
            heads,
            kv_heads,
            vocab,
            context,
        } = self;
        format!(
            r#"{{"model_type":"bitnet","hidden_size":{hidden},"intermediate_size":{ffn},
            "num_hidden_layers":{layers},"num_attention_heads":{heads},
            "num_key_value_heads":{kv_heads},"vocab_size":{vocab},
            "max_position_embeddings":{context},"rms_norm_eps":1e-05,"rope_theta":10000.0,
            "rope_interleaved":true,"hidden_act":"silu","tie_word_embeddings":true,
            "bos_token_id":1,"eos_token_id":2}}"#
        )
    }

    /// The tensors in the form of a safetensors file.
    fn tensors(&self, seed: u64) -> Vec<u8> {
        let key = self.hidden / self.heads * self.kv_heads;
        let linears = [
            ("self_attn.q_proj", self.hidden, self.hidden),
            ("self_attn.k_proj", key, self.hidden),
            ("self_attn.v_proj", key, self.hidden),
            ("self_attn.o_proj", self.hidden, self.hidden),
            ("mlp.gate_proj", self.ffn, self.hidden),
            ("mlp.up_proj", self.ffn, self.hidden),
            ("mlp.down_proj", self.hidden, self.ffn),
        ];
        let mut file = TensorFile::new(seed);
        // Logits of a few units, as trained models have them.
        let scale = undisturbed(|| 1.0 / (16.0 * (self.hidden as f32).sqrt()));
        file.floats("model.embed_tokens.weight_scale", &vec![scale; self.vocab]);
        file.floats("model.norm.weight", &vec![1.0; self.hidden]);
        for layer in 0..self.layers {
            let base = format!("model.layers.{layer}");
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                file.floats(&format!("{base}.{norm}.weight"), &vec![1.0; self.hidden]);
            }
            for (name, _, inputs) in linears {
                // Two thirds of the weights are not zero: outputs as large as inputs.
                let scale = undisturbed(|| (1.5 / inputs as f32).sqrt());
                file.floats(&format!("{base}.{name}.weight_scale"), &[scale]);
            }
        }
        file.bytes(
            "model.embed_tokens.weight",
            [self.vocab, self.hidden],
            |byte| byte.max(1) ^ 0x80,
        );
        for layer in 0..self.layers {
            for (name, outputs, inputs) in linears {
                let name = format!("model.layers.{layer}.{name}.weight");
                file.bytes(&name, [outputs, inputs], |byte| (byte % 3).wrapping_sub(1));
            }
        }
        file.finish()
    }
}

/// A safetensors file under construction.
struct TensorFile {
    header: String,
    data: Vec<u8>,
    random: Box<dyn Iterator<Item = u8>>,
}

impl TensorFile {
    fn new(seed: u64) -> Self {
        let words = Philox::from_seed(seed).words();
        let random = Box::new(words.flat_map(u32::to_le_bytes));
        Self {
            header: String::new(),
            data: Vec::new(),
            random,
        }
    }

    fn floats(&mut self, name: &str, values: &[f32]) {
        let from = self.data.len();
        self.data
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.entry(name, "F32", &format!("{}", values.len()), from);
    }

    fn bytes(&mut self, name: &str, shape: [usize; 2], value: impl Fn(u8) -> u8) {
        let from = self.data.len();
        self.data
            .extend(self.random.by_ref().take(shape[0] * shape[1]).map(value));
        self.entry(name, "I8", &format!("{},{}", shape[0], shape[1]), from);
    }

    fn entry(&mut self, name: &str, kind: &str, shape: &str, from: usize) {
        let comma = if self.header.is_empty() { "" } else { "," };
        let to = self.data.len();
        write!(
            self.header,
            r#"{comma}"{name}":{{"dtype":"{kind}","shape":[{shape}],"data_offsets":[{from},{to}]}}"#
        )
        .expect("a string takes all that is written");
    }

    fn finish(self) -> Vec<u8> {
        let mut header = format!("{{{}}}", self.header);
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(&self.data);
        file
    }
}

/// The demonstration's hyper-parameters with another batch.
#[must_use]
pub fn hyper_parameters(batch: u32, sequence: u32) -> HyperParameters {
    HyperParameters {
        batch,
        sequence,
        ..demonstration(1).0
    }
}

/// The first round's task of miner number `miner` on a model and a shard, with the adapter that
/// it starts from.
///
/// # Panics
/// If the model cannot carry the adapter.
#[must_use]
pub fn first_task<D: r3mes_exact::Device>(
    model: &Model<D>,
    shard: &Shard,
    hyper: HyperParameters,
    miner: u8,
) -> (Task, StepState) {
    let seed = Hash::of(b"synthetic run");
    let layout = adapter_layout(model.config(), &hyper).expect("the model carries the adapter");
    let adapter = initial_adapter(&layout, &seed);
    let (hash, state) = (adapter.hash(), StepState::start(adapter.into_numbers()));
    let task = Task {
        run: 1,
        round: 0,
        miner: Address::from([miner; 20]),
        model: model.id(),
        exact_version: EXACT_VERSION,
        adapter_seed: seed,
        start: AdapterRef {
            cid: None,
            adapter: hash,
            state: state.hash(),
        },
        shard: ShardRef {
            index: 0,
            cid: Cid::raw(&shard.encode()),
            tokens: shard.tokens().len() as u64,
        },
        steps: 4,
        hyper,
        beacon: Hash::of(b"synthetic beacon"),
        feedback: None,
    };
    (task, state)
}
