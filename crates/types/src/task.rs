//! What one miner has to compute in one round: everything that determines the result, and nothing
//! else. A machine's memory, threads and kernels are not in here, because they change no bit.

use std::fmt;

use crate::commitment::Work;
use crate::wire::{DecodeError, Reader, Shown, VARINT, Value};
use crate::{Address, Cid, Hash, schema};

/// The most optimizer steps in a round.
pub const MAX_STEPS: u32 = 4096;
/// The most sequences in a batch.
pub const MAX_BATCH: u32 = 4096;
/// The longest training sequence, in tokens.
pub const MAX_SEQUENCE: u32 = 1 << 17;
/// The largest LoRA rank.
pub const MAX_RANK: u32 = 1024;
/// The longest chunk of a package.
pub const MAX_CHUNK: u32 = 1 << 15;

/// The bit pattern of an f32. Here and on the ledger it is carried, never calculated with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct F32Bits(pub u32);

impl F32Bits {
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(0x3f80_0000);

    /// Whether the value is finite and not negative; -0.0 counts as negative.
    pub fn is_finite_and_not_negative(self) -> bool {
        self.0 < 0x7f80_0000
    }
}

impl fmt::Display for F32Bits {
    #[expect(
        clippy::disallowed_types,
        reason = "written for people, never calculated with"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&f32::from_bits(self.0), f)
    }
}

impl Value for F32Bits {
    const WIRE_TYPE: u8 = VARINT;
    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::Uint32
    }
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        u32::take(reader).map(Self)
    }
    fn default_value() -> Option<Self> {
        Some(Self(0))
    }
    fn is_default(&self) -> bool {
        self.0 == 0
    }
}

/// The linear layers that carry LoRA factors, as a set of bits in the adapter's canonical order:
/// q, k, v, o, gate, up, down from the lowest bit on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Targets(u32);

impl Targets {
    /// All seven linears of a layer.
    pub const ALL: Self = Self(0x7f);
    /// Names in canonical order; the index is the bit.
    pub const NAMES: [&'static str; 7] = ["q", "k", "v", "o", "gate", "up", "down"];

    /// The set with these bits; none if it is empty or has other bits.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits == 0 || bits > Self::ALL.0 {
            None
        } else {
            Some(Self(bits))
        }
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether the linear at this index of [`Targets::NAMES`] carries factors.
    pub const fn contains(self, index: usize) -> bool {
        index < Self::NAMES.len() && self.0 >> index & 1 == 1
    }
}

impl Value for Targets {
    const WIRE_TYPE: u8 = VARINT;
    fn shown(&self) -> Shown {
        let carried = (0..Self::NAMES.len()).filter(|index| self.contains(*index));
        Shown::List(
            carried
                .map(|index| Shown::Text(Self::NAMES[index].into()))
                .collect(),
        )
    }
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::Uint32
    }
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bits = u32::take(reader)?;
        Self::from_bits(bits)
            .ok_or_else(|| DecodeError::invalid(format!("{bits:#x} is no set of linear layers")))
    }
}

schema! {
    /// How a round is trained and its result compressed. Every figure is the task's, never a
    /// node's own setting. Floating-point values are bit patterns of f32.
    pub struct HyperParameters {
        /// Sequences in a batch.
        1 => batch: u32,
        /// Tokens of a sequence that are predicted; windows hold one more.
        2 => sequence: u32,
        /// LoRA rank.
        3 => rank: u32,
        /// LoRA alpha; factors are scaled by alpha / rank.
        4 => alpha: F32Bits,
        /// The linear layers that carry LoRA factors.
        5 => targets: Targets,
        /// Learning rate of this round.
        6 => learning_rate: F32Bits,
        /// Decay of AdamW's first moment.
        7 => beta1: F32Bits,
        /// Decay of AdamW's second moment.
        8 => beta2: F32Bits,
        /// Weight of the gradient in the first moment: a literal, since 1 - 0.9 is not 0.1 in f32.
        9 => c1: F32Bits,
        /// Weight of the squared gradient in the second moment.
        10 => c2: F32Bits,
        /// Added to the root of the second moment.
        11 => epsilon: F32Bits,
        /// Weight decay.
        12 => weight_decay: F32Bits,
        /// Entries of the flat adapter that are compressed together.
        13 => chunk: u32,
        /// Entries of a chunk that are sent.
        14 => top_k: u32,
        /// What is kept of the error feedback from round to round.
        15 => decay: F32Bits,
    }

    /// An adapter by what it is and where it lies.
    pub struct AdapterRef {
        /// Where its bytes are; absent for the adapter that is drawn from the run's seed.
        1 => cid: Option<Cid>,
        /// BLAKE3 of its bytes.
        2 => adapter: Hash,
        /// Hash of the step state that starts from it, with moments of zero: leaf 0.
        3 => state: Hash,
    }

    /// A token-id shard by where it lies.
    pub struct ShardRef {
        /// Its index in the dataset.
        1 => index: u32,
        /// Where its bytes are.
        2 => cid: Cid,
        /// Tokens in it.
        3 => tokens: u64,
    }

    /// One miner's work in one round.
    pub struct Task {
        /// The run.
        1 => run: u64,
        /// The round of the run, from 0.
        2 => round: u32,
        /// Whose task it is.
        3 => miner: Address,
        /// BLAKE3 of the packed base model.
        4 => model: Hash,
        /// Version of the exact arithmetic.
        5 => exact_version: u32,
        /// Seed of the adapter that the run's first round starts from.
        6 => adapter_seed: Hash,
        /// The adapter to start from.
        7 => start: AdapterRef,
        /// The data to train on.
        8 => shard: ShardRef,
        /// Optimizer steps of the round, H.
        9 => steps: u32,
        /// How to train and compress.
        10 => hyper: HyperParameters,
        /// Randomness of the round, from which batches are drawn.
        11 => beacon: Hash,
        /// Hash of the error feedback that the miner's accepted package of the round just before
        /// left; absent when there is none, which means zero.
        12 => feedback: Option<Hash>,
    }
}

/// Why hyper-parameters are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hyper-parameter {name} is {value}: it must be {allowed}")]
pub struct HyperParameterError {
    /// The field at fault.
    pub name: &'static str,
    /// Its value; of an f32 the bit pattern.
    pub value: u32,
    /// What is allowed.
    pub allowed: &'static str,
}

impl HyperParameters {
    /// Checks every figure against its bounds.
    ///
    /// # Errors
    /// [`HyperParameterError`] names the first one at fault.
    pub fn check(&self) -> Result<(), HyperParameterError> {
        let counts = [
            ("batch", self.batch, MAX_BATCH, "1 to 4096"),
            ("sequence", self.sequence, MAX_SEQUENCE, "1 to 131072"),
            ("rank", self.rank, MAX_RANK, "1 to 1024"),
            ("chunk", self.chunk, MAX_CHUNK, "1 to 32768"),
            (
                "top_k",
                self.top_k,
                self.chunk,
                "1 to the length of a chunk",
            ),
        ];
        for (name, value, limit, allowed) in counts {
            if value == 0 || value > limit {
                return Err(HyperParameterError {
                    name,
                    value,
                    allowed,
                });
            }
        }
        let values = [
            ("alpha", self.alpha),
            ("learning_rate", self.learning_rate),
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("c1", self.c1),
            ("c2", self.c2),
            ("epsilon", self.epsilon),
            ("weight_decay", self.weight_decay),
            ("decay", self.decay),
        ];
        for (name, value) in values {
            if !value.is_finite_and_not_negative() {
                let allowed = "the bit pattern of a finite f32 that is not negative";
                return Err(HyperParameterError {
                    name,
                    value: value.0,
                    allowed,
                });
            }
        }
        let fractions = [
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("decay", self.decay),
        ];
        for (name, value) in fractions {
            // Bit patterns of non-negative floats are ordered like the floats.
            if value >= F32Bits::ONE {
                let allowed = "the bit pattern of an f32 below 1";
                return Err(HyperParameterError {
                    name,
                    value: value.0,
                    allowed,
                });
            }
        }
        Ok(())
    }
}

impl Task {
    /// Names the work in commitments.
    pub fn work(&self) -> Work {
        Work {
            run: self.run,
            round: u64::from(self.round),
            miner: self.miner,
        }
    }

    /// Number of leaves in the commitment of this task: one for each state, and the package.
    pub fn leaves(&self) -> u32 {
        self.steps + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wire;

    fn hyper() -> HyperParameters {
        HyperParameters {
            batch: 4,
            sequence: 128,
            rank: 8,
            alpha: F32Bits(0x4180_0000),
            targets: Targets::ALL,
            learning_rate: F32Bits(0x3bc4_9ba6),
            beta1: F32Bits(0x3f66_6666),
            beta2: F32Bits(0x3f7f_be77),
            c1: F32Bits(0x3dcc_cccd),
            c2: F32Bits(0x3a83_126f),
            epsilon: F32Bits(0x322b_cc77),
            weight_decay: F32Bits::ZERO,
            chunk: 4096,
            top_k: 512,
            decay: F32Bits(0x3f73_3333),
        }
    }

    #[test]
    fn figures_and_layers_are_shown_as_people_write_them() {
        let Shown::Record(fields) = Wire::shown(&hyper()) else {
            panic!("a message is shown as a record");
        };
        let shown = |name| fields.iter().find(|(field, _)| *field == name).cloned();
        let text = |text: &str| Shown::Text(text.into());
        assert_eq!(shown("alpha"), Some(("alpha", text("16"))));
        assert_eq!(shown("beta1"), Some(("beta1", text("0.9"))));
        let all = Targets::NAMES.map(text).into();
        assert_eq!(shown("targets"), Some(("targets", Shown::List(all))));
    }

    #[test]
    fn the_encoding_of_a_task_is_pinned() {
        let task = Task {
            run: 1,
            round: 2,
            miner: Address::from([3; 20]),
            model: Hash::of(b"model"),
            exact_version: 1,
            adapter_seed: Hash::of(b"seed"),
            start: AdapterRef {
                cid: Some(Cid::raw(b"adapter")),
                adapter: Hash::of(b"adapter"),
                state: Hash::of(b"state"),
            },
            shard: ShardRef {
                index: 4,
                cid: Cid::raw(b"shard"),
                tokens: 5,
            },
            steps: 8,
            hyper: hyper(),
            beacon: Hash::of(b"beacon"),
            feedback: Some(Hash::of(b"feedback")),
        };
        let bytes = task.encode();
        assert_eq!(Task::decode(&bytes), Ok(task));
        assert_eq!(
            Hash::of(&bytes).to_string(),
            "2d4bc5dd5189a1b12418b24ed99259c77fe4f05734ac9f2c7fca3aede16656b5"
        );
    }

    #[test]
    fn hyper_parameters_out_of_bounds_are_named() {
        assert_eq!(hyper().check(), Ok(()));
        let name = |change: fn(&mut HyperParameters)| {
            let mut changed = hyper();
            change(&mut changed);
            changed.check().expect_err("out of bounds").name
        };
        assert_eq!(name(|hyper| hyper.batch = 0), "batch");
        assert_eq!(name(|hyper| hyper.sequence = MAX_SEQUENCE + 1), "sequence");
        assert_eq!(name(|hyper| hyper.top_k = 4097), "top_k");
        assert_eq!(
            name(|hyper| hyper.learning_rate.0 |= 1 << 31),
            "learning_rate"
        );
        assert_eq!(name(|hyper| hyper.epsilon.0 = 0x7f80_0000), "epsilon");
        assert_eq!(name(|hyper| hyper.beta1 = F32Bits::ONE), "beta1");
        assert_eq!(Targets::from_bits(0), None);
        assert_eq!(Targets::from_bits(0x80), None);
    }
}
