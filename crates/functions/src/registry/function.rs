//! What a function is, as its node describes it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use rmpv::Value;
use serde::{Deserialize, Serialize};

use super::{Quota, Requirements, normalized};
use crate::billing::Price;

/// Most characters of a function's name.
pub const MAX_NAME: usize = 128;
/// Most characters of a node's id.
pub const MAX_NODE_ID: usize = 64;

/// A function on offer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionInfo {
    /// Its name: a letter or `_`, then letters, digits and `_`.
    pub name: String,
    /// What it does, for people.
    #[serde(default)]
    pub description: String,
    /// Its parameters as a JSON schema of an object.
    #[serde(default = "nothing")]
    pub parameters: Value,
    /// What it returns, or one item of what it yields, as a JSON schema.
    #[serde(default = "nothing")]
    pub returns: Value,
    /// Whether it yields items instead of returning one value.
    #[serde(default)]
    pub streams: bool,
    /// Who may call it.
    #[serde(default)]
    pub access: Access,
    /// How much one user may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// What a call costs; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Calls that run at a time on this node.
    #[serde(default = "one")]
    pub max_concurrent: u32,
    /// Milliseconds that a call may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What it needs.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub requirements: Requirements,
    /// Whether it may run twice for one call, so that another node can take over from one that is lost.
    #[serde(default)]
    pub idempotent: bool,
    /// Whether its result follows from the arguments alone, so that a kept one is as good as a new one.
    #[serde(default)]
    pub cacheable: bool,
    /// Free labels, such as `pipeline`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What a newer node says and this version does not know; passed on.
    #[serde(flatten)]
    pub further: BTreeMap<String, Value>,
}

fn nothing() -> Value {
    Value::Nil
}

const fn one() -> u32 {
    1
}

impl FunctionInfo {
    /// A public function with nothing but a name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            parameters: Value::Nil,
            returns: Value::Nil,
            streams: false,
            access: Access::Public,
            quota: None,
            price: None,
            max_concurrent: 1,
            timeout_ms: None,
            requirements: Requirements::default(),
            idempotent: false,
            cacheable: false,
            labels: BTreeMap::new(),
            further: BTreeMap::new(),
        }
    }

    /// Whether a label is so called or says so, after normalization.
    pub fn has_label(&self, term: &str) -> bool {
        let term = normalized(term);
        let mut labels = self.labels.iter();
        labels.any(|(name, value)| normalized(name) == term || normalized(value) == term)
    }

    /// Checks what a node sent.
    ///
    /// # Errors
    /// What is wrong, in words for the node's owner.
    pub fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if !is_function_name(name) {
            return Err(format!(
                "{name:?} cannot be a function's name: use letters, digits and _, at most {MAX_NAME}"
            ));
        }
        if self.max_concurrent == 0 {
            return Err(format!("{name}: max_concurrent must be at least 1"));
        }
        if self.price.as_ref().is_some_and(|price| price.uremes == 0) {
            return Err(format!(
                "{name}: a price must be above 0; leave it out instead"
            ));
        }
        if self.cacheable && (self.streams || self.price.is_some()) {
            return Err(format!(
                "{name} cannot be cacheable: no stream is kept, and a kept result would earn no price"
            ));
        }
        if self.timeout_ms == Some(0) {
            return Err(format!("{name}: the timeout must be longer than 0"));
        }
        Ok(())
    }
}

/// Whether a function may be called so.
pub fn is_function_name(name: &str) -> bool {
    let mut letters = name.chars();
    name.len() <= MAX_NAME
        && letters
            .next()
            .is_some_and(|first| first.is_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_alphanumeric() || letter == '_')
}

/// Whether a node may be called so: letters, digits, `-`, `_` and `.`.
pub fn is_node_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_NODE_ID
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Who may call a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Access {
    /// Everybody who reaches the broker.
    #[default]
    Public,
    /// Everybody with a token.
    Authenticated,
    /// Whoever's token carries this group.
    Group(String),
}

impl Access {
    /// Whether a caller may: with a token (`known`), and of these groups.
    pub fn admits(&self, known: bool, groups: &[String]) -> bool {
        match self {
            Self::Public => true,
            Self::Authenticated => known,
            Self::Group(group) => groups.contains(group),
        }
    }
}

impl FromStr for Access {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "public" => Ok(Self::Public),
            "authenticated" => Ok(Self::Authenticated),
            group if is_node_id(group) => Ok(Self::Group(group.to_owned())),
            other => Err(format!(
                "{other:?} is no access level: use public, authenticated or the name of a group"
            )),
        }
    }
}

impl TryFrom<String> for Access {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Access> for String {
    fn from(access: Access) -> Self {
        access.to_string()
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Authenticated => "authenticated",
            Self::Group(group) => group,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_node_says_of_a_function_is_kept() {
        let mut newer = FunctionInfo::new("render");
        newer.further.insert("shade".into(), "blue".into());
        let bytes = rmp_serde::to_vec_named(&newer).unwrap();
        let read: FunctionInfo = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(read, newer);
    }

    #[test]
    fn a_label_is_found_by_its_name_and_its_words() {
        let mut info = FunctionInfo::new("run_circuit");
        let label = ("quantum_backend".to_owned(), "IBM-Q".to_owned());
        info.labels.extend([label]);
        assert!(info.has_label("ibm q") && info.has_label("Quantum_Backend"));
        assert!(!info.has_label("ion_trap"));
    }

    #[test]
    fn access_is_a_word() {
        let alice = vec!["academic_verified".to_owned()];
        let level: Access = "academic_verified".parse().unwrap();
        assert!(level.admits(true, &alice) && !level.admits(true, &[]));
        assert!(Access::Public.admits(false, &[]) && !Access::Authenticated.admits(false, &[]));
        assert!("".parse::<Access>().is_err());
    }

    #[test]
    fn names_have_no_dots_and_ids_no_slashes() {
        assert!(is_function_name("träin_2") && !is_function_name("a.b") && !is_function_name("2a"));
        assert!(is_node_id("gpu-1.lab") && !is_node_id("a/b") && !is_node_id(""));
    }
}
