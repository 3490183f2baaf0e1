//! Functions as tools: which there are, what they are called, and which function a name means.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
    sync::Arc,
};

use r3mes_functions::{broker::FunctionView, registry::FunctionInfo};
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use crate::values;

/// Tools of one page of a list.
const PAGE: usize = 500;
/// Most characters of a tool's name that the protocol has.
const MAX_NAME: usize = 128;
/// What is said of a function that yields items.
const YIELDS: &str = "Yields items; they come together, as a list.";

/// What a tool's name means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// On which node; on any that has it if absent.
    pub(super) node: Option<&'a str>,
    /// Which function.
    pub(super) function: &'a str,
}

impl<'a> Target<'a> {
    /// Names of functions have no dots, so the last one of a tool's name ends the node's id.
    pub(super) fn of(name: &'a str) -> Self {
        match name.rsplit_once('.') {
            Some((node, function)) => Self {
                node: Some(node),
                function,
            },
            None => Self {
                node: None,
                function: name,
            },
        }
    }

    fn matches(&self, view: &FunctionView) -> bool {
        view.info.name == self.function && self.node.is_none_or(|node| view.node == node)
    }

    /// Whether it yields items, as far as these functions show.
    pub(super) fn streams(&self, functions: &[FunctionView]) -> bool {
        functions
            .iter()
            .any(|view| view.info.streams && self.matches(view))
    }
}

/// The tools that follow the one of the name `after`, and the name after which the next page begins.
///
/// A function that every node describes alike is one tool of its name, which any of them serves.
/// Otherwise there is one for each node, `node.function`. Names that the protocol does not allow are
/// left out.
pub(super) fn page(functions: &[FunctionView], after: Option<&str>) -> (Vec<Tool>, Option<String>) {
    let names = names(functions);
    let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = names.range::<str, _>((begin, Bound::Unbounded));
    let page: Vec<Tool> = rest
        .by_ref()
        .take(PAGE)
        .map(|(name, info)| tool(name, info))
        .collect();
    let next = rest.next().and(page.last());
    let next = next.map(|last| last.name.to_string());
    (page, next)
}

fn names(functions: &[FunctionView]) -> BTreeMap<Cow<'_, str>, &FunctionInfo> {
    // A function's description, or nothing when nodes differ in it.
    let mut by_function: BTreeMap<&str, Option<&FunctionInfo>> = BTreeMap::new();
    for FunctionView { info, .. } in functions {
        match by_function.entry(&info.name) {
            Entry::Vacant(free) => {
                free.insert(Some(info));
            }
            Entry::Occupied(mut known) => {
                if known.get().is_some_and(|known| !look_alike(known, info)) {
                    known.insert(None);
                }
            }
        }
    }
    let one_each = functions.iter().map(|FunctionView { node, info, .. }| {
        match by_function.get(&*info.name) {
            Some(Some(alike)) => (Cow::Borrowed(&*info.name), *alike),
            _ => (Cow::Owned(format!("{node}.{}", info.name)), info),
        }
    });
    one_each.filter(|(name, _)| is_tool_name(name)).collect()
}

fn look_alike(one: &FunctionInfo, other: &FunctionInfo) -> bool {
    let seen = |info: &FunctionInfo| (info.streams, info.idempotent, price(info));
    one.description == other.description
        && one.parameters == other.parameters
        && seen(one) == seen(other)
}

/// What a call costs, in uremes.
fn price(info: &FunctionInfo) -> Option<u64> {
    info.price.as_ref().map(|price| price.uremes)
}

fn is_tool_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn tool(name: &str, info: &FunctionInfo) -> Tool {
    let costs = price(info).map(|uremes| format!("A call costs {uremes} uremes."));
    let said = [
        Some(info.description.clone()),
        info.streams.then(|| YIELDS.to_owned()),
        costs,
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    let description = said.join("\n").trim_start().to_owned();
    let hints = info
        .idempotent
        .then(|| ToolAnnotations::new().idempotent(true));
    let tool = Tool::new_with_raw(
        name.to_owned(),
        Some(description.into()).filter(|text: &Cow<'_, str>| !text.is_empty()),
        Arc::new(parameters(info)),
    );
    match hints {
        Some(hints) => tool.with_annotations(hints),
        None => tool,
    }
}

/// The schema of a function's parameters; of any object when its node said nothing that is one.
fn parameters(info: &FunctionInfo) -> JsonObject {
    match values::show(info.parameters.clone()) {
        Ok(Value::Object(schema)) if schema.get("type") == Some(&json!("object")) => schema,
        _ => JsonObject::from_iter([("type".to_owned(), json!("object"))]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(node: &str, info: FunctionInfo) -> FunctionView {
        FunctionView {
            node: node.into(),
            info,
            running: 0,
            succeeded: 0,
            failed: 0,
            busy_s: 0.0,
            healthy: true,
            expected_wait_s: None,
        }
    }

    fn described(name: &str, description: &str) -> FunctionInfo {
        FunctionInfo {
            description: description.into(),
            ..FunctionInfo::new(name)
        }
    }

    fn listed(functions: &[FunctionView]) -> Vec<String> {
        let (tools, next) = page(functions, None);
        assert_eq!(next, None);
        tools.iter().map(|tool| tool.name.to_string()).collect()
    }

    #[test]
    fn a_function_that_nodes_describe_alike_is_one_tool_and_one_for_each_otherwise() {
        let alike = [
            view("gpu-1", described("train", "Trains.")),
            view("gpu-2", described("train", "Trains.")),
        ];
        assert_eq!(listed(&alike), ["train"]);
        let unlike = [
            view("gpu-1", described("train", "Trains a model.")),
            view("lab.gpu-2", described("train", "Trains a dog.")),
            view("gpu-2", described("bark", "")),
        ];
        assert_eq!(listed(&unlike), ["bark", "gpu-1.train", "lab.gpu-2.train"]);
    }

    #[test]
    fn a_name_means_a_function_of_a_node_or_of_any() {
        let (any, one) = (Target::of("train"), Target::of("lab.gpu-2.train"));
        assert_eq!((any.node, any.function), (None, "train"));
        assert_eq!((one.node, one.function), (Some("lab.gpu-2"), "train"));
        let streaming = FunctionInfo {
            streams: true,
            ..FunctionInfo::new("train")
        };
        let functions = [
            view("gpu-1", FunctionInfo::new("train")),
            view("lab.gpu-2", streaming),
        ];
        assert!(one.streams(&functions) && !Target::of("gpu-1.train").streams(&functions));
    }

    #[test]
    fn names_that_the_protocol_does_not_have_are_left_out() {
        let functions = [
            view("n", FunctionInfo::new("träin")),
            view("n", FunctionInfo::new("f".repeat(128))),
        ];
        assert_eq!(listed(&functions), ["f".repeat(128)]);
    }

    #[test]
    fn a_long_list_comes_in_pages_without_gaps() {
        let functions: Vec<_> = (0..PAGE * 2 + 1)
            .map(|number| view("n", FunctionInfo::new(format!("f{number}"))))
            .collect();
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let (tools, next) = page(&functions, after.as_deref());
            seen.extend(tools.into_iter().map(|tool| tool.name.to_string()));
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let mut all: Vec<_> = functions
            .iter()
            .map(|view| view.info.name.clone())
            .collect();
        all.sort();
        assert_eq!(seen, all);
    }

    #[test]
    fn parameters_are_the_functions_own_if_they_are_of_an_object() {
        let schema = |parameters: rmpv::Value| {
            let info = FunctionInfo {
                parameters,
                ..FunctionInfo::new("f")
            };
            Value::Object((*tool("f", &info).input_schema).clone())
        };
        let map = |pairs: &[(&str, rmpv::Value)]| {
            let pairs = pairs
                .iter()
                .map(|(key, value)| ((*key).into(), value.clone()));
            rmpv::Value::Map(pairs.collect())
        };
        let own = map(&[
            ("type", "object".into()),
            (
                "properties",
                map(&[("a", map(&[("type", "integer".into())]))]),
            ),
        ]);
        let expected = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        assert_eq!(schema(own), expected);
        for other in [
            rmpv::Value::Nil,
            "object".into(),
            map(&[("type", "array".into())]),
        ] {
            assert_eq!(schema(other), json!({"type": "object"}));
        }
    }
}
