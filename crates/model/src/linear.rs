//! The seven linear layers of a transformer block, in canonical order.

use serde::{Deserialize, Serialize};

/// One of the seven linear layers of a block; the order of the variants is the canonical one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Linear {
    /// Query projection.
    Query,
    /// Key projection.
    Key,
    /// Value projection.
    Value,
    /// Attention's output projection.
    Output,
    /// Gate of the feed-forward network.
    Gate,
    /// Up projection of the feed-forward network.
    Up,
    /// Down projection of the feed-forward network.
    Down,
}

impl Linear {
    /// All seven, in canonical order.
    pub const ALL: [Self; 7] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// Name inside a Hugging Face checkpoint's layer.
    pub(crate) fn hugging_face_name(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Short name, as in packed files and adapters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "q",
            Self::Key => "k",
            Self::Value => "v",
            Self::Output => "o",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A set of linear layers: those that carry a LoRA pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinearSet(u8);

impl LinearSet {
    /// All seven.
    pub const ALL: Self = Self(0x7f);
    /// None.
    pub const NONE: Self = Self(0);

    /// The set whose bit `i` stands for the `i`-th of [`Linear::ALL`]; `None` beyond seven bits.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits <= Self::ALL.0).then_some(Self(bits))
    }

    /// The bits, the first of [`Linear::ALL`] lowest.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether `linear` is in the set.
    pub fn contains(self, linear: Linear) -> bool {
        self.0 & (1 << linear as u8) != 0
    }

    /// The members in canonical order.
    pub fn iter(self) -> impl Iterator<Item = Linear> {
        Linear::ALL
            .into_iter()
            .filter(move |&linear| self.contains(linear))
    }
}

impl FromIterator<Linear> for LinearSet {
    fn from_iter<I: IntoIterator<Item = Linear>>(linears: I) -> Self {
        Self(
            linears
                .into_iter()
                .fold(0, |bits, linear| bits | 1 << linear as u8),
        )
    }
}

/// How the weights of linear layers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinearFormat {
    /// Weights in {-1, 0, 1} at two bits, one scale per tensor (BitNet b1.58).
    Ternary,
    /// Weights in -127..=127 at eight bits, one scale per output row (W8A8).
    Int8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_keep_canonical_order_and_their_bits() {
        let set: LinearSet = [Linear::Down, Linear::Query].into_iter().collect();
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [Linear::Query, Linear::Down]
        );
        assert_eq!(LinearSet::from_bits(set.bits()), Some(set));
        assert_eq!(LinearSet::from_bits(0x80), None);
        assert_eq!(LinearSet::ALL.iter().count(), 7);
    }
}
