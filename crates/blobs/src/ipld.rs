//! DAG-CBOR and DAG-JSON: the links in a block, and the way along names to one of them.
//!
//! Specifications: <https://ipld.io/specs/codecs/dag-cbor/spec/> and
//! <https://ipld.io/specs/codecs/dag-json/spec/>. Nothing of a block is kept but its links, so
//! reading one takes no more memory than they do. Its nesting is bounded by the decoders.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::{
    AnyCid, Block, NodeError,
    any_cid::{DAG_CBOR, DAG_JSON},
};

/// The key by which DAG-JSON writes links and bytes.
const RESERVED: &str = "/";

/// What names lead to from the root of a block's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A link, and how many names are left behind it.
    Link(AnyCid, usize),
    /// A value that is no link.
    Value,
    /// Nothing: so many names are left, and there is no entry for the first of them.
    Absent(usize),
}

/// The links of a block in order, repetitions included.
///
/// # Errors
/// When the block is not of its codec.
pub(crate) fn links(block: &Block) -> Result<Vec<AnyCid>, NodeError> {
    let mut links = Vec::new();
    walk(block, &[], &mut links)?;
    Ok(links)
}

/// Follows names through the maps and lists of a block, up to the first link.
///
/// # Errors
/// When the block is not of its codec.
pub(crate) fn follow(block: &Block, names: &[String]) -> Result<Target, NodeError> {
    walk(block, names, &mut Vec::new())
}

fn walk(block: &Block, names: &[String], links: &mut Vec<AnyCid>) -> Result<Target, NodeError> {
    fn invalid<E: fmt::Display>(codec: &'static str) -> impl Fn(E) -> NodeError {
        move |error| NodeError::Data {
            codec,
            reason: error.to_string(),
        }
    }
    let codec = block.cid().codec();
    let walk = Walk {
        names,
        json: codec == DAG_JSON,
        links,
    };
    match codec {
        DAG_CBOR => {
            let mut decoder = serde_ipld_dagcbor::de::Deserializer::from_slice(block.bytes());
            let target = walk.deserialize(&mut decoder);
            let target = target.map_err(invalid("DAG-CBOR"))?;
            decoder.end().map_err(invalid("DAG-CBOR"))?;
            Ok(target)
        }
        DAG_JSON => {
            let mut decoder = serde_json::Deserializer::from_slice(block.bytes());
            let target = walk.deserialize(&mut decoder);
            let target = target.map_err(invalid("DAG-JSON"))?;
            decoder.end().map_err(invalid("DAG-JSON"))?;
            Ok(target)
        }
        code => Err(NodeError::Codec { code }),
    }
}

/// Reads one value: collects its links, and follows names if there are any.
struct Walk<'w> {
    names: &'w [String],
    /// DAG-JSON writes a link as a map of one reserved key.
    json: bool,
    links: &'w mut Vec<AnyCid>,
}

impl Walk<'_> {
    /// A walk over a part of this value: on with the names behind the first, or just over it.
    fn part(&mut self, on_the_way: bool) -> Walk<'_> {
        Walk {
            names: match on_the_way {
                true => &self.names[1..],
                false => &[],
            },
            json: self.json,
            links: self.links,
        }
    }

    /// What names lead to that end at, or cannot go into, this value.
    fn end(&self) -> Target {
        match self.names.len() {
            0 => Target::Value,
            left => Target::Absent(left),
        }
    }

    fn link<E: de::Error>(self, cid: Result<AnyCid, crate::AnyCidError>) -> Result<Target, E> {
        let cid = cid.map_err(E::custom)?;
        self.links.push(cid.clone());
        Ok(Target::Link(cid, self.names.len()))
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Target;

    fn deserialize<D: Deserializer<'de>>(self, decoder: D) -> Result<Target, D::Error> {
        decoder.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Target;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data of the IPLD data model")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Target, E> {
        Ok(self.end())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Target, E> {
        Ok(self.end())
    }

    fn visit_i128<E>(self, _: i128) -> Result<Target, E> {
        Ok(self.end())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Target, E> {
        Ok(self.end())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Target, E> {
        Ok(self.end())
    }

    fn visit_str<E>(self, _: &str) -> Result<Target, E> {
        Ok(self.end())
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Target, E> {
        Ok(self.end())
    }

    fn visit_none<E>(self) -> Result<Target, E> {
        Ok(self.end())
    }

    fn visit_unit<E>(self) -> Result<Target, E> {
        Ok(self.end())
    }

    /// DAG-CBOR's decoder shows links, and nothing else, in this way.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, decoder: D) -> Result<Target, D::Error> {
        let cid = decoder.deserialize_bytes(Binary)?;
        self.link(cid)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Target, A::Error> {
        let wanted = self.names.first().and_then(|name| name.parse().ok());
        let mut found = None;
        for index in 0_usize.. {
            let on_the_way = wanted == Some(index);
            match list.next_element_seed(self.part(on_the_way))? {
                Some(target) if on_the_way => found = Some(target),
                Some(_) => {}
                None => break,
            }
        }
        Ok(found.unwrap_or_else(|| self.end()))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Target, A::Error> {
        let mut key: Option<String> = map.next_key()?;
        if self.json && key.as_deref() == Some(RESERVED) {
            let cid = map.next_value_seed(Reserved)?;
            if map.next_key::<String>()?.is_some() {
                return Err(de::Error::custom("a link with entries beside it"));
            }
            return match cid {
                Some(cid) => self.link(cid),
                None => Ok(self.end()),
            };
        }
        let mut found = None;
        while let Some(known) = key {
            let on_the_way = found.is_none() && self.names.first() == Some(&known);
            let target = map.next_value_seed(self.part(on_the_way))?;
            if on_the_way {
                found = Some(target);
            }
            key = map.next_key()?;
        }
        Ok(found.unwrap_or_else(|| self.end()))
    }
}

/// Reads a CID in its binary form.
struct Binary;

impl Visitor<'_> for Binary {
    type Value = Result<AnyCid, crate::AnyCidError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CID")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(AnyCid::from_bytes(bytes))
    }
}

/// Reads what stands behind DAG-JSON's reserved key: a link's text, or a map for bytes.
struct Reserved;

impl<'de> DeserializeSeed<'de> for Reserved {
    type Value = Option<Result<AnyCid, crate::AnyCidError>>;

    fn deserialize<D: Deserializer<'de>>(self, decoder: D) -> Result<Self::Value, D::Error> {
        decoder.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reserved {
    type Value = Option<Result<AnyCid, crate::AnyCidError>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a link or bytes")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.parse()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        match map.next_entry::<String, String>()? {
            Some((key, _)) if key == "bytes" => Ok(None),
            _ => Err(de::Error::custom("neither a link nor bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cid::multihash::Multihash;
    use r3mes_types::Cid;

    use super::*;

    const LINK: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

    fn block(codec: u64, bytes: &[u8]) -> Block {
        let digest = *Cid::raw(bytes).digest();
        let hash = Multihash::wrap(0x12, &digest).unwrap();
        let cid = AnyCid::from(cid::Cid::new_v1(codec, hash));
        Block::verify(cid, Bytes::copy_from_slice(bytes)).unwrap()
    }

    fn json(text: &str) -> Block {
        block(DAG_JSON, text.as_bytes())
    }

    /// `{"a": [1, link], "b": {"link": link}, "c": h'2f', "/": "x"}`
    fn cbor() -> Block {
        let link = [&[0xd8, 0x2a, 0x58, 37, 0][..], &Cid::raw(b"").to_bytes()].concat();
        let parts: [&[u8]; 8] = [
            b"\xa4\x61a\x82\x01",
            &link,
            b"\x61b\xa1\x64link",
            &link,
            b"\x61c\x41\x2f",
            b"\x61/",
            b"\x61x",
            b"",
        ];
        block(DAG_CBOR, &parts.concat())
    }

    fn documents() -> [Block; 2] {
        let link = format!("{{\"/\":\"{LINK}\"}}");
        let text = format!(
            "{{\"a\":[1,{link}],\"b\":{{\"link\":{link}}},\"c\":{{\"/\":{{\"bytes\":\"Lw\"}}}}}}"
        );
        [cbor(), json(&text)]
    }

    fn target(block: &Block, path: &str) -> Target {
        let names: Vec<String> = path.split('/').map(str::to_owned).collect();
        follow(block, &names).unwrap()
    }

    #[test]
    fn links_are_found_at_any_depth() {
        let link: AnyCid = LINK.parse().unwrap();
        for block in documents() {
            assert_eq!(links(&block).unwrap(), [link.clone(), link.clone()]);
        }
        assert!(
            links(&json("[1.5e3,-1,null,true,\"/\"]"))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn names_lead_through_maps_and_lists_to_a_link() {
        let link: AnyCid = LINK.parse().unwrap();
        for block in documents() {
            let found = |left| Target::Link(link.clone(), left);
            assert_eq!(target(&block, "a/1"), found(0));
            assert_eq!(target(&block, "b/link"), found(0));
            assert_eq!(target(&block, "b/link/on/and on"), found(2));
            for value in ["a", "a/0", "b", "c"] {
                assert_eq!(target(&block, value), Target::Value, "{value}");
            }
            for (path, left) in [
                ("d", 1),
                ("a/2", 1),
                ("a/x/y", 2),
                ("a/0/z", 1),
                ("c/bytes", 1),
            ] {
                assert_eq!(target(&block, path), Target::Absent(left), "{path}");
            }
        }
        // In DAG-CBOR the key is one like any other.
        assert_eq!(target(&cbor(), ""), Target::Absent(1));
    }

    #[test]
    fn what_is_not_of_its_codec_is_refused() {
        let deep = "[".repeat(1 << 20);
        for text in ["", "{", "{}x", "{\"/\":\"no link\"}", "{\"/\":7}", &deep] {
            assert!(links(&json(text)).is_err(), "{text:.20}");
        }
        let also = format!("{{\"/\":\"{LINK}\",\"a\":1}}");
        assert!(links(&json(&also)).is_err());
        let deep = vec![0x81; 2 << 20];
        // Nothing; an endless list; trailing bytes; a tag that is none of IPLD's; a link to nothing.
        let wrong: [&[u8]; 6] = [
            b"",
            b"\x9f\x01\xff",
            b"\x01\x01",
            b"\xc1\x01",
            b"\xd8\x2a\x41\x00",
            &deep,
        ];
        for bytes in wrong {
            assert!(links(&block(DAG_CBOR, bytes)).is_err(), "{}", bytes.len());
        }
    }
}
