//! Coins and fixed-point rates.

use std::{fmt, str::FromStr};

use crate::wire::{
    DELIMITED, DecodeError, FieldType, Kind, Label, MessageType, Reader, Shown, Text, VARINT,
    Value, put_delimited, put_varint,
};

/// The coin's name on the ledger; 1 REMES is 1,000,000 of them.
pub const DENOM: &str = "uremes";

/// `uremes` in one REMES.
pub const UREMES_PER_REMES: u64 = 1_000_000;

/// An amount of `uremes`. Arithmetic is checked: nothing wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(u64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount there can be.
    pub const MAX: Self = Self(u64::MAX);

    /// So many `uremes`.
    pub const fn new(uremes: u64) -> Self {
        Self(uremes)
    }

    /// So many whole REMES.
    ///
    /// # Panics
    /// When the amount does not fit, which is a mistake in a constant.
    pub const fn remes(remes: u64) -> Self {
        match remes.checked_mul(UREMES_PER_REMES) {
            Some(uremes) => Self(uremes),
            None => panic!("this many REMES do not fit an Amount"),
        }
    }

    /// The number of `uremes`.
    pub const fn uremes(self) -> u64 {
        self.0
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, unless it does not fit.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, unless it is negative.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }

    /// The difference, or nothing if it is negative.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum, or the largest amount.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// `self * numerator / denominator`, rounded down, computed in 128 bits.
    ///
    /// `None` when the result does not fit or `denominator` is zero.
    pub fn mul_div(self, numerator: u64, denominator: u64) -> Option<Self> {
        let product = u128::from(self.0) * u128::from(numerator);
        let quotient = product.checked_div(u128::from(denominator))?;
        u64::try_from(quotient).ok().map(Self)
    }

    /// This share of the amount, rounded down.
    pub fn share(self, rate: Ppm) -> Self {
        self.mul_div(u64::from(rate.0), u64::from(Ppm::ONE.0))
            .unwrap_or(Self::MAX)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{DENOM}", self.0)
    }
}

/// Text that is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an amount: write whole uremes, for example 1000000uremes")]
pub struct AmountError {
    /// The text, cut after 64 characters.
    pub text: String,
}

/// Reads `1000000uremes`; nothing else is accepted, above all no sign, fraction or other coin.
impl FromStr for Amount {
    type Err = AmountError;
    fn from_str(text: &str) -> Result<Self, AmountError> {
        text.strip_suffix(DENOM)
            .and_then(parse_digits)
            .map(Self)
            .ok_or_else(|| AmountError {
                text: text.chars().take(64).collect(),
            })
    }
}

/// Decimal digits without sign or leading zeros.
fn parse_digits(text: &str) -> Option<u64> {
    let canonical = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

impl Value for Amount {
    const WIRE_TYPE: u8 = VARINT;
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::Uint64
    }
    fn shown(&self) -> Shown {
        Shown::Number(i128::from(self.0))
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(self.0, out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.varint().map(Self)
    }
    fn default_value() -> Option<Self> {
        Some(Self::ZERO)
    }
    fn is_default(&self) -> bool {
        self.is_zero()
    }
}

/// A `cosmos.base.v1beta1.Coin` of `uremes`: `{denom, amount}`, the amount in decimal digits.
///
/// There is one coin on the ledger, so a coin of another name is refused when it is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coin(pub Amount);

/// Longest decimal form of an [`Amount`].
const MAX_DIGITS: usize = 20;
/// Longest coin name read before it is refused.
const MAX_DENOM: usize = 128;

impl crate::wire::Wire for Coin {
    fn shown(&self) -> Shown {
        Value::shown(&self.0)
    }

    fn described() -> MessageType {
        let field = |number, name| FieldType {
            number,
            name,
            docs: &[],
            label: Label::Single,
            kind: Kind::String,
        };
        MessageType {
            module: module_path!(),
            name: "Coin",
            docs: &[],
            fields: vec![field(1, "denom"), field(2, "amount")],
            oneof: false,
        }
    }

    fn write_fields(&self, out: &mut Vec<u8>) {
        crate::wire::put_key(1, DELIMITED, out);
        put_delimited(DENOM.as_bytes(), out);
        crate::wire::put_key(2, DELIMITED, out);
        put_delimited(self.0.uremes().to_string().as_bytes(), out);
    }

    fn read_fields(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        use crate::wire::Field;
        let denom = Text::<MAX_DENOM>::read(1, reader).map_err(|error| error.within("denom"))?;
        if &*denom != DENOM {
            return Err(
                DecodeError::invalid(format!("the coin here is {DENOM}, not {denom:?}"))
                    .within("denom"),
            );
        }
        let digits = Text::<MAX_DIGITS>::read(2, reader).map_err(|error| error.within("amount"))?;
        parse_digits(&digits)
            .map(|uremes| Self(Amount(uremes)))
            .ok_or_else(|| {
                DecodeError::invalid(format!("{digits:?} is not a whole number that fits"))
                    .within("amount")
            })
    }
}

crate::message_value!(Coin);

/// Parts per million: a rate or share in fixed point, at most one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ppm(u32);

impl Ppm {
    /// The whole.
    pub const ONE: Self = Self(1_000_000);
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many millionths, if they are not more than the whole.
    pub const fn new(millionths: u32) -> Option<Self> {
        if millionths <= Self::ONE.0 {
            Some(Self(millionths))
        } else {
            None
        }
    }

    /// So many hundredths.
    ///
    /// # Panics
    /// Above one hundred, which is a mistake in a constant.
    pub const fn percent(percent: u32) -> Self {
        assert!(percent <= 100, "a share is at most 100 percent");
        Self(percent * 10_000)
    }

    /// The number of millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Ppm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04}%", self.0 / 10_000, self.0 % 10_000)
    }
}

impl Value for Ppm {
    const WIRE_TYPE: u8 = VARINT;
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::Uint32
    }
    fn shown(&self) -> Shown {
        Shown::Number(i128::from(self.0))
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(u64::from(self.0), out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let millionths = u32::take(reader)?;
        Self::new(millionths)
            .ok_or_else(|| DecodeError::invalid(format!("{millionths} parts per million exceed 1")))
    }
    fn default_value() -> Option<Self> {
        Some(Self::ZERO)
    }
    fn is_default(&self) -> bool {
        self.0 == 0
    }
}
