//! One value, one encoding.

use proptest::prelude::*;
use r3mes_types::governance::Change;
use r3mes_types::nodes::MsgRegister;
use r3mes_types::tx::{Tx, TxBody, TxRaw};
use r3mes_types::wire::{Blob, DecodeError, List, Reason, Text, Wire};
use r3mes_types::{Amount, Coin, Hash, Message, PageRequest, Ppm, Role, RoleSet, schema};

use crate::samples::{messages, transaction};

schema! {
    /// A bit of everything.
    pub struct Mixed {
        /// A number.
        1 => number: u64,
        /// Text.
        2 => text: Text<8>,
        /// Numbers.
        3 => numbers: List<u32, 4>,
        /// A signed number.
        5 => signed: i64,
        /// Maybe a number.
        6 => maybe: Option<u64>,
        /// Roles.
        7 => roles: RoleSet,
        /// Maybe more of the kind.
        20 => page: Option<PageRequest>,
    }
}

fn mixed() -> impl Strategy<Value = Mixed> {
    let text = "[a-zäß ]{0,4}".prop_map(|text| Text::new(text).unwrap());
    let numbers = prop::collection::vec(any::<u32>(), 0..=4);
    let numbers = numbers.prop_map(|numbers| List::new(numbers).unwrap());
    let roles = prop::sample::subsequence(Role::ALL, 0..=4);
    let roles = roles.prop_map(|roles| RoleSet::of(&roles));
    let page =
        (prop::collection::vec(any::<u8>(), 0..9), any::<u32>()).prop_map(|(after, limit)| {
            PageRequest {
                after: Blob::new(after).unwrap(),
                limit,
            }
        });
    let fields = (
        any::<u64>(),
        text,
        numbers,
        any::<i64>(),
        any::<Option<u64>>(),
        roles,
        prop::option::of(page),
    );
    fields.prop_map(
        |(number, text, numbers, signed, maybe, roles, page)| Mixed {
            number,
            text,
            numbers,
            signed,
            maybe,
            roles,
            page,
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(value in mixed()) {
        prop_assert_eq!(Mixed::decode(&value.encode()), Ok(value));
    }

    #[test]
    fn whatever_decodes_is_the_only_encoding_of_its_value(
        bytes in prop::collection::vec(prop_oneof![0..64u8, any::<u8>()], 0..24),
    ) {
        if let Ok(value) = Mixed::decode(&bytes) {
            prop_assert_eq!(value.encode(), bytes);
        }
    }

    #[test]
    fn an_altered_transaction_is_refused_or_canonical(
        index in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = transaction();
        let at = index.index(bytes.len());
        bytes[at] = byte;
        if let Ok(raw) = TxRaw::decode(&bytes) {
            prop_assert_eq!(raw.encode(), bytes.clone());
        }
        let end = cut.index(bytes.len());
        prop_assert!(Tx::parse(&bytes[..end]).is_err());
    }

    #[test]
    fn parsing_messages_never_panics_and_is_canonical(
        which in 0..17usize,
        cut in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let message = &messages()[which];
        let mut bytes = message.encode();
        let at = cut.index(bytes.len());
        bytes[at] = byte;
        if let Ok(parsed) = Message::decode(message.type_url(), &bytes) {
            prop_assert_eq!(parsed.encode(), bytes);
        }
    }
}

fn refused(bytes: &[u8]) -> Reason {
    Mixed::decode(bytes).unwrap_err().reason().clone()
}

#[test]
fn other_encodings_of_the_same_value_are_refused() {
    assert_eq!(refused(&[0x08, 0x00]), Reason::ExplicitDefault);
    assert_eq!(refused(&[0x08, 0x81, 0x00]), Reason::Varint);
    assert_eq!(refused(&[0x12, 0x00]), Reason::ExplicitDefault);
    assert_eq!(refused(&[0x1a, 0x00]), Reason::ExplicitDefault);
    assert_eq!(
        refused(&[0x08, 0x01, 0x08, 0x02]),
        Reason::Unexpected(1),
        "twice"
    );
    assert_eq!(
        refused(&[0x12, 0x01, b'a', 0x08, 0x01]),
        Reason::Unexpected(1),
        "out of order"
    );
    assert_eq!(refused(&[0x20, 0x01]), Reason::Unexpected(4), "unknown");
    assert_eq!(
        refused(&[0x18, 0x01]),
        Reason::WireType {
            expected: 2,
            found: 0
        },
        "unpacked"
    );
}

#[test]
fn damaged_bytes_are_refused() {
    assert_eq!(refused(&[0x08]), Reason::Truncated);
    assert_eq!(refused(&[0x12, 0x05, b'a']), Reason::Truncated);
    assert_eq!(
        refused(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        Reason::Truncated
    );
    assert_eq!(
        refused(&[
            0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02
        ]),
        Reason::Varint
    );
    assert!(
        matches!(refused(&[0x12, 0x01, 0xff]), Reason::Invalid(_)),
        "not UTF-8"
    );
    assert!(
        matches!(refused(&[0x12, 0x01, 0x07]), Reason::Invalid(_)),
        "a control character"
    );
}

#[test]
fn bounds_hold() {
    let long = [&[0x12, 0x09][..], b"aaaaaaaaa"].concat();
    assert_eq!(
        refused(&long),
        Reason::TooLong {
            length: 9,
            limit: 8
        }
    );
    assert_eq!(
        refused(&[0x1a, 0x05, 1, 1, 1, 1, 1]),
        Reason::TooLong {
            length: 5,
            limit: 4
        }
    );
    assert!(Text::<8>::new("123456789").is_err());
    assert!(List::<u32, 2>::new(vec![1, 2, 3]).is_err());
}

#[test]
fn errors_name_the_field() {
    let mut message = messages()
        .into_iter()
        .find(|m| m.type_url().ends_with("MsgRegister"));
    let bytes = message.take().unwrap().encode();
    let mut register = MsgRegister::decode(&bytes).unwrap();
    register.spec.endpoints = List::default();
    let mut bytes = register.encode();
    let last = bytes.len() - 1;
    bytes[last] = 0; // within the consensus key: still fine
    assert!(MsgRegister::decode(&bytes).is_ok());
    bytes.truncate(last);
    assert!(
        MsgRegister::decode(&bytes)
            .unwrap_err()
            .to_string()
            .starts_with("field spec: ")
    );
    let missing = MsgRegister::decode(&[]).unwrap_err();
    assert_eq!(missing.to_string(), "field address: required, but absent");
}

#[test]
fn one_of_many_means_exactly_one() {
    assert!(Change::decode(&[]).is_err());
    let one = [0x0a, 0x02, 0x08, 0x05];
    assert!(Change::decode(&one).is_ok());
    assert!(Change::decode(&[one, one].concat()).is_err());
}

#[test]
fn only_whole_uremes_are_amounts() {
    assert_eq!("1000000uremes".parse::<Amount>(), Ok(Amount::remes(1)));
    for text in [
        "-5banana",
        "5",
        "uremes",
        "+5uremes",
        "05uremes",
        "1.5uremes",
        "5remes",
        "5 uremes",
    ] {
        assert!(text.parse::<Amount>().is_err(), "{text}");
    }
    assert!(
        "18446744073709551616uremes".parse::<Amount>().is_err(),
        "does not fit"
    );
    let coin = |denom: &str, amount: &str| {
        let mut bytes = vec![0x0a, denom.len() as u8];
        bytes.extend_from_slice(denom.as_bytes());
        bytes.extend_from_slice(&[0x12, amount.len() as u8]);
        bytes.extend_from_slice(amount.as_bytes());
        Coin::decode(&bytes)
    };
    assert_eq!(coin("uremes", "5"), Ok(Coin(Amount::new(5))));
    for (denom, amount) in [
        ("atom", "5"),
        ("uremes", "-5"),
        ("uremes", "05"),
        ("uremes", "1e3"),
    ] {
        assert!(coin(denom, amount).is_err(), "{amount}{denom}");
    }
}

#[test]
fn arithmetic_on_amounts_never_wraps() {
    let most = Amount::MAX;
    assert_eq!(most.checked_add(Amount::new(1)), None);
    assert_eq!(Amount::new(1).checked_sub(Amount::new(2)), None);
    assert_eq!(most.mul_div(3, 3), Some(most), "computed in 128 bits");
    assert_eq!(most.mul_div(2, 1), None);
    assert_eq!(most.mul_div(1, 0), None);
    assert_eq!(Amount::new(999).share(Ppm::percent(10)), Amount::new(99));
    assert_eq!(Ppm::new(1_000_001), None);
}

#[test]
fn unknown_messages_and_bodies_with_extensions_are_refused() {
    assert!(Message::decode("/cosmos.gov.v1.MsgVote", &[]).is_err());
    let mut body = TxBody {
        messages: List::default(),
        memo: Text::default(),
        timeout_height: 0,
    }
    .encode();
    assert!(TxBody::decode(&body).is_ok());
    body.extend_from_slice(&[0xfa, 0x3f, 0x00]); // field 1023, an extension option
    let error: DecodeError = TxBody::decode(&body).unwrap_err();
    assert_eq!(error.reason(), &Reason::Unexpected(1023));
}

#[test]
fn hashes_and_addresses_read_their_own_text_and_nothing_else() {
    let hash = Hash::of(b"x");
    assert_eq!(hash.to_string().parse::<Hash>(), Ok(hash));
    assert!(hash.to_string()[1..].parse::<Hash>().is_err());
    let address = crate::samples::key().address();
    assert_eq!(address.to_string().parse(), Ok(address));
    let mut typo = address.to_string();
    typo.replace_range(10..11, if &typo[10..11] == "q" { "p" } else { "q" });
    assert!(typo.parse::<r3mes_types::Address>().is_err());
    let prefix = bech32::Hrp::parse("cosmos").unwrap();
    let cosmos = bech32::encode::<bech32::Bech32>(prefix, &[0; 20]).unwrap();
    assert!(
        cosmos
            .parse::<r3mes_types::Address>()
            .unwrap_err()
            .why
            .contains("prefix")
    );
}
