//! Checkpoints made from a seed, in memory.

use r3mes_exact::{Bytes, Cpu, CpuOptions, Isa, Philox};
use r3mes_model::{
    Adapter, AdapterLayout, Checkpoint, Linear, LoadedAdapter, LoraConfig, Model, PackedModel,
    pack_in_memory,
};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// A shape to make a checkpoint of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) hidden: usize,
    pub(crate) ffn: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) vocab: usize,
    pub(crate) context: usize,
    pub relu2: bool,
    pub(crate) sub_norm: bool,
    pub(crate) interleaved: bool,
    pub(crate) tied: bool,
}

/// A small model of the plain Llama form.
pub(crate) const PLAIN: Shape = Shape {
    hidden: 48,
    ffn: 80,
    layers: 2,
    heads: 4,
    kv_heads: 2,
    vocab: 100,
    context: 160,
    relu2: false,
    sub_norm: false,
    interleaved: true,
    tied: true,
};

/// A small model of the published BitNet form.
pub(crate) const BITNET: Shape = Shape {
    relu2: true,
    sub_norm: true,
    interleaved: false,
    tied: false,
    ..PLAIN
};

/// How linear weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    TernaryInt8,
    PackedCodes { scale_divides: bool },
    Bf16,
}

pub(crate) struct Tensors {
    pub(crate) list: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    words: Box<dyn Iterator<Item = u32>>,
}

impl Shape {
    pub(crate) fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    pub(crate) fn dimensions(&self, linear: Linear) -> (usize, usize) {
        let key = self.kv_heads * self.head_dim();
        match linear {
            Linear::Query | Linear::Output => (self.hidden, self.hidden),
            Linear::Key | Linear::Value => (key, self.hidden),
            Linear::Gate | Linear::Up => (self.ffn, self.hidden),
            Linear::Down => (self.hidden, self.ffn),
        }
    }

    pub(crate) fn config_json(&self, extra: &str) -> String {
        let Self {
            hidden,
            ffn,
            layers,
            heads,
            kv_heads,
            vocab,
            context,
            ..
        } = self;
        let act = if self.relu2 { "relu2" } else { "silu" };
        format!(
            r#"{{"model_type": "bitnet", "hidden_size": {hidden}, "intermediate_size": {ffn},
            "num_hidden_layers": {layers}, "num_attention_heads": {heads},
            "num_key_value_heads": {kv_heads}, "vocab_size": {vocab},
            "max_position_embeddings": {context}, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
            "rope_interleaved": {}, "hidden_act": "{act}", "tie_word_embeddings": {},
            "bos_token_id": 1, "eos_token_id": [2]{extra}}}"#,
            self.interleaved, self.tied,
        )
    }

    pub(crate) fn tensors(&self, seed: u64, storage: Storage) -> Tensors {
        let words = Box::new(Philox::from_seed(seed).words());
        let mut tensors = Tensors {
            list: Vec::new(),
            words,
        };
        tensors.token_matrix("model.embed_tokens", self.vocab, self.hidden);
        if !self.tied {
            tensors.token_matrix("lm_head", self.vocab, self.hidden);
        }
        tensors.gain("model.norm", self.hidden);
        for layer in 0..self.layers {
            let base = format!("model.layers.{layer}");
            tensors.gain(&format!("{base}.input_layernorm"), self.hidden);
            tensors.gain(&format!("{base}.post_attention_layernorm"), self.hidden);
            if self.sub_norm {
                tensors.gain(&format!("{base}.self_attn.attn_sub_norm"), self.hidden);
                tensors.gain(&format!("{base}.mlp.ffn_sub_norm"), self.ffn);
            }
            for linear in Linear::ALL {
                let (rows, columns) = self.dimensions(linear);
                let part = match linear {
                    Linear::Query | Linear::Key | Linear::Value | Linear::Output => "self_attn",
                    Linear::Gate | Linear::Up | Linear::Down => "mlp",
                };
                let name = format!("{base}.{part}.{}_proj", linear.name());
                tensors.linear(&name, rows, columns, storage);
            }
        }
        tensors
    }

    pub(crate) fn checkpoint(&self, seed: u64, storage: Storage) -> Checkpoint {
        self.checkpoint_of(&self.tensors(seed, storage), storage)
    }

    pub(crate) fn checkpoint_of(&self, tensors: &Tensors, storage: Storage) -> Checkpoint {
        let extra = match storage {
            Storage::PackedCodes {
                scale_divides: true,
            } => {
                r#", "quantization_config": {"quant_method": "bitnet", "linear_class": "bitlinear"}"#
            }
            Storage::PackedCodes {
                scale_divides: false,
            } => {
                r#", "quantization_config": {"quant_method": "bitnet",
                    "linear_class": "autobitlinear", "quantization_mode": "offline"}"#
            }
            _ => "",
        };
        let shard = tensors.serialize();
        let shards = vec![("model.safetensors".into(), Bytes::from_slice(&shard))];
        Checkpoint::from_parts(self.config_json(extra).as_bytes(), shards, None).unwrap()
    }

    pub(crate) fn packed(&self, seed: u64) -> PackedModel {
        pack_in_memory(&self.checkpoint(seed, Storage::TernaryInt8)).unwrap()
    }

    pub(crate) fn model(&self, seed: u64, threads: usize) -> Model<Cpu> {
        Model::load(cpu(threads), &self.packed(seed))
    }
}

impl Tensors {
    fn numbers(&mut self, count: usize) -> Vec<u32> {
        self.words.by_ref().take(count).collect()
    }

    fn push(&mut self, name: String, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
        self.list.push((name, dtype, shape.to_vec(), bytes));
    }

    fn floats(&mut self, name: String, values: &[f32]) {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.push(name, Dtype::F32, &[values.len()], bytes);
    }

    fn token_matrix(&mut self, base: &str, rows: usize, columns: usize) {
        // Every value from -127 to 127.
        let codes = self.numbers(rows * columns).into_iter();
        let codes = codes.map(|w| ((w % 255) as i16 - 127) as u8).collect();
        self.push(format!("{base}.weight"), Dtype::I8, &[rows, columns], codes);
        let scales: Vec<f32> = self
            .numbers(rows)
            .iter()
            .map(|w| 0.001 + (w % 97) as f32 * 2e-5)
            .collect();
        self.floats(format!("{base}.weight_scale"), &scales);
    }

    fn gain(&mut self, base: &str, width: usize) {
        let gains: Vec<f32> = self
            .numbers(width)
            .iter()
            .map(|w| 0.7 + (w % 61) as f32 * 0.01)
            .collect();
        self.floats(format!("{base}.weight"), &gains);
    }

    fn linear(&mut self, base: &str, rows: usize, columns: usize, storage: Storage) {
        let weights: Vec<i8> = self
            .numbers(rows * columns)
            .iter()
            .map(|w| (w % 3) as i8 - 1)
            .collect();
        let scale = 0.05 + (self.numbers(1)[0] % 64) as f32 * 0.001;
        let name = format!("{base}.weight");
        let scale_name = format!("{base}.weight_scale");
        match storage {
            Storage::TernaryInt8 => {
                let bytes = weights.iter().map(|w| w.cast_unsigned()).collect();
                self.push(name, Dtype::I8, &[rows, columns], bytes);
                self.floats(scale_name, &[scale]);
            }
            Storage::PackedCodes { scale_divides } => {
                let quarter = rows / 4;
                let code = |r: usize, c: usize| (weights[r * columns + c] + 1) as u8;
                let byte = |r, c| (0..4).fold(0, |b, g| b | code(g * quarter + r, c) << (2 * g));
                let bytes = (0..quarter * columns)
                    .map(|i| byte(i / columns, i % columns))
                    .collect();
                self.push(name, Dtype::U8, &[quarter, columns], bytes);
                self.floats(
                    scale_name,
                    &[if scale_divides { 1.0 / scale } else { scale }],
                );
            }
            Storage::Bf16 => {
                // Multiples of 1/64 are exact in bf16.
                let value = |w: &i8| (f32::from(*w) / 64.0).to_bits() >> 16;
                let bytes = weights
                    .iter()
                    .flat_map(|w| (value(w) as u16).to_le_bytes())
                    .collect();
                self.push(name, Dtype::BF16, &[rows, columns], bytes);
            }
        }
    }

    pub(crate) fn serialize(&self) -> Vec<u8> {
        let views = self.list.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    pub(crate) fn replace(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let tensor = self
            .list
            .iter_mut()
            .find(|tensor| tensor.0 == name)
            .unwrap();
        change(&mut tensor.3);
    }
}

pub(crate) fn cpu(threads: usize) -> Cpu {
    Cpu::new(CpuOptions { isa: None, threads }).unwrap()
}

pub(crate) fn scalar() -> Cpu {
    Cpu::new(CpuOptions {
        isa: Some(Isa::Scalar),
        threads: 1,
    })
    .unwrap()
}

/// An adapter none of whose numbers is zero.
pub(crate) fn busy_adapter(layout: &AdapterLayout, seed: u64) -> Adapter {
    let numbers = Philox::from_seed(seed)
        .words()
        .take(layout.len())
        .map(|word| r3mes_exact::signed_unit(word) * 0.1)
        .collect();
    Adapter::from_numbers(layout, numbers).unwrap()
}

/// A loaded adapter of `lora` on `model`, none of whose numbers is zero.
pub(crate) fn loaded(model: &Model<Cpu>, lora: LoraConfig, seed: u64) -> LoadedAdapter<Cpu> {
    let layout = AdapterLayout::new(model.config(), lora).unwrap();
    LoadedAdapter::new(model.device(), &layout, &busy_adapter(&layout, seed)).unwrap()
}

/// `count` tokens of a vocabulary.
pub(crate) fn tokens(seed: u64, count: usize, vocab: usize) -> Vec<u32> {
    Philox::from_seed(seed)
        .words()
        .take(count)
        .map(|word| word % vocab as u32)
        .collect()
}
