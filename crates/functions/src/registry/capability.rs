//! What nodes can do, and what calls ask of them.

use std::collections::{BTreeMap, BTreeSet};

use rmpv::Value;
use serde::{Deserialize, Serialize};

/// A node's capabilities: a tree of maps, lists and plain values, as its owner wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(pub Value);

impl Default for Capabilities {
    fn default() -> Self {
        Self(Value::Map(Vec::new()))
    }
}

/// What a term may stand for: any one of the lists, all of whose terms a node must have.
/// docs/spec/functions.md publishes the table.
const SYNONYMS: &[(&str, &[&[&str]])] = &[
    ("gpu_training", &[&["gpu", "ai_training"]]),
    (
        "gpu_inference",
        &[&["gpu", "inference"], &["gpu", "local_inference"]],
    ),
    ("model_training", &[&["ai_training"]]),
    ("inference", &[&["local_inference"]]),
    ("cuda", &[&["gpu"]]),
    ("iot", &[&["iot_data"]]),
];

/// The same word however it is written: lower case, everything but letters and digits as `_`.
pub fn normalized(term: &str) -> String {
    let words = term
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_").to_lowercase()
}

/// Capabilities as the router looks things up in them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    /// Every key and every word, normalized.
    terms: BTreeSet<String>,
    /// Quantities by the path to them: `gpu_memory` for `{"gpu": {"memory": "24GB"}}`.
    quantities: BTreeMap<String, f64>,
    /// Words by the path to them.
    labels: BTreeSet<(String, String)>,
}

impl Index {
    /// Most levels of the tree that are looked at.
    const DEPTH: usize = 8;

    /// Indexes a tree, with `resources` counted among its quantities.
    pub fn new(capabilities: &Capabilities, resources: &BTreeMap<String, f64>) -> Self {
        let mut index = Self::default();
        index.add("", &capabilities.0, Self::DEPTH);
        for (name, amount) in resources {
            index.quantities.insert(normalized(name), *amount);
        }
        index
    }

    fn add(&mut self, path: &str, value: &Value, depth: usize) {
        if depth == 0 {
            return;
        }
        match value {
            Value::Map(entries) => {
                for (key, value) in entries {
                    let key = normalized(key.as_str().unwrap_or_default());
                    let below = match path {
                        "" => key.clone(),
                        path => format!("{path}_{key}"),
                    };
                    self.terms.insert(key);
                    self.add(&below, value, depth - 1);
                }
            }
            Value::Array(items) => items
                .iter()
                .for_each(|item| self.add(path, item, depth - 1)),
            Value::String(text) => {
                let text = text.as_str().unwrap_or_default();
                if let Some(amount) = quantity(text) {
                    self.quantities.insert(path.to_owned(), amount);
                }
                self.terms.insert(normalized(text));
                self.labels.insert((path.to_owned(), normalized(text)));
            }
            other => {
                if let Some(amount) = other.as_f64() {
                    self.quantities.insert(path.to_owned(), amount);
                }
            }
        }
    }

    /// How well a node can do `capability`: 1 when it says so in these words, 0.5 when it says so in
    /// words that mean it, `None` when it does not.
    pub fn matches(&self, capability: &str) -> Option<f64> {
        let asked = normalized(capability);
        if self.terms.contains(&asked) {
            return Some(1.0);
        }
        let (_, meanings) = SYNONYMS.iter().find(|(term, _)| *term == asked)?;
        let has_all = |terms: &&[&str]| terms.iter().all(|term| self.terms.contains(*term));
        meanings.iter().any(has_all).then_some(0.5)
    }

    /// Whether a node has what is required, and which part of it would be left, 0 to 1, as a mean
    /// over the quantities; `free` says what is free now where that is known. 1 without quantities.
    ///
    /// # Errors
    /// The name of the first requirement that it does not meet.
    pub fn meets(
        &self,
        required: &Requirements,
        free: &BTreeMap<String, f64>,
    ) -> Result<f64, String> {
        let (mut left, mut quantities) = (0.0, 0.0);
        for (name, required) in &required.0 {
            match required {
                Requirement::Amount(required) => {
                    let all = self.quantities.get(name).copied().unwrap_or(0.0);
                    let free = free.get(name).map_or(all, |free| free.min(all));
                    if free < *required {
                        return Err(name.clone());
                    }
                    quantities += 1.0;
                    left += if free > 0.0 {
                        1.0 - required / free
                    } else {
                        0.0
                    };
                }
                Requirement::Label(label) => {
                    if !self.labels.contains(&(name.clone(), normalized(label))) {
                        return Err(name.clone());
                    }
                }
            }
        }
        Ok(if quantities > 0.0 {
            left / quantities
        } else {
            1.0
        })
    }
}

/// What a call needs of a node, by normalized name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Requirements(pub BTreeMap<String, Requirement>);

impl Requirements {
    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These and `others`; where both name the same, `others` counts.
    pub fn and(&self, others: &Self) -> Self {
        let both = self.0.iter().chain(&others.0);
        Self(
            both.map(|(name, value)| (normalized(name), value.clone()))
                .collect(),
        )
    }
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Value", into = "Value")]
pub enum Requirement {
    /// At least this much, in base units: bytes for sizes.
    Amount(f64),
    /// Exactly this word.
    Label(String),
}

impl From<Value> for Requirement {
    fn from(value: Value) -> Self {
        match value.as_f64() {
            Some(amount) => Self::Amount(amount),
            None => {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                quantity(&text).map_or(Self::Label(text), Self::Amount)
            }
        }
    }
}

impl From<Requirement> for Value {
    fn from(requirement: Requirement) -> Self {
        match requirement {
            Requirement::Amount(amount) => amount.into(),
            Requirement::Label(label) => label.into(),
        }
    }
}

/// A number with a unit in base units: `24GB` is 24e9, `16 GiB` 16 * 2^30, `64` 64; `None` for
/// anything else.
pub fn quantity(text: &str) -> Option<f64> {
    const UNITS: &[(&str, f64)] = &[
        ("", 1.0),
        ("b", 1.0),
        ("kb", 1e3),
        ("mb", 1e6),
        ("gb", 1e9),
        ("tb", 1e12),
        ("kib", 1024.0),
        ("mib", 1_048_576.0),
        ("gib", 1_073_741_824.0),
        ("tib", 1_099_511_627_776.0),
        ("hz", 1.0),
        ("mhz", 1e6),
        ("ghz", 1e9),
    ];
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim().to_lowercase();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workstation() -> Index {
        let words = |words: &[&str]| Value::Array(words.iter().map(|w| (*w).into()).collect());
        let gpu = vec![
            ("model".into(), "RTX 4090".into()),
            ("memory".into(), "24GB".into()),
        ];
        let tree = vec![
            ("gpu".into(), Value::Map(gpu)),
            (
                "specialization".into(),
                words(&["ai_training", "rendering"]),
            ),
        ];
        Index::new(&Capabilities(Value::Map(tree)), &BTreeMap::new())
    }

    fn required(name: &str, value: &str) -> Requirements {
        Requirements(BTreeMap::from([(name.into(), Value::from(value).into())]))
    }

    #[test]
    fn a_capability_is_any_key_or_word_or_what_it_means() {
        let node = workstation();
        assert_eq!(node.matches("Rendering"), Some(1.0));
        assert_eq!(node.matches("GPU"), Some(1.0));
        assert_eq!(node.matches("rtx-4090"), Some(1.0));
        assert_eq!(node.matches("gpu_training"), Some(0.5));
        assert_eq!(node.matches("quantum"), None);
    }

    #[test]
    fn requirements_are_met_by_what_is_free() {
        let node = workstation();
        let nothing_known = BTreeMap::new();
        let sixteen = required("gpu_memory", "16GB");
        let left = node.meets(&sixteen, &nothing_known).unwrap();
        assert!((left - 1.0 / 3.0).abs() < 1e-9, "{left}");
        let busy = BTreeMap::from([("gpu_memory".to_owned(), 8e9)]);
        assert_eq!(node.meets(&sixteen, &busy), Err("gpu_memory".to_owned()));
        assert!(
            node.meets(&required("gpu_memory", "40 GB"), &nothing_known)
                .is_err()
        );
        assert!(
            node.meets(&required("gpu_model", "rtx 4090"), &nothing_known)
                .is_ok()
        );
        assert!(
            node.meets(&required("gpu_model", "H100"), &nothing_known)
                .is_err()
        );
        assert_eq!(node.meets(&Requirements::default(), &busy), Ok(1.0));
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(quantity("16GB"), Some(16e9));
        assert_eq!(quantity("1.5 GiB"), Some(1.5 * 1_073_741_824.0));
        assert_eq!(quantity("64"), Some(64.0));
        for nonsense in ["", "GB", "RTX 4090", "12 parsecs", "1.2.3"] {
            assert_eq!(quantity(nonsense), None, "{nonsense}");
        }
    }
}
