//! The page of all settings, held against what the configuration itself reads.

use std::collections::BTreeSet;

use r3mes_types::Role;

use super::Config;

/// The page.
const PAGE: &str = include_str!("../../../../docs/operations.md");
/// A key that no section has.
const NOBODY: &str = "no_such_setting";

/// A file with sections within each other, and `rest` in the innermost.
fn nested(path: &[String], rest: &str) -> String {
    let open: String = path.iter().map(|key| format!("{{{key}: ")).collect();
    format!("{open}{rest}{}", "}".repeat(path.len()))
}

/// The keys that a section has; `None` where the path is of a setting.
fn keys(path: &[String]) -> Option<Vec<String>> {
    let text = nested(path, &format!("{{{NOBODY}: 1}}"));
    let error = serde_saphyr::from_str::<Config>(&text).unwrap_err();
    let said = error.without_snippet().to_string();
    let expected = said.split_once(&format!("unknown field `{NOBODY}`, expected one of "))?;
    let keys = expected.1.split(" at line").next().unwrap_or_default();
    Some(keys.trim().split(", ").map(str::to_owned).collect())
}

/// Every setting below a section.
fn settings(path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match keys(path) {
        None => found.push(path.clone()),
        Some(keys) => {
            for key in keys {
                path.push(key);
                settings(path, found);
                path.pop();
            }
        }
    }
}

/// What a setting is where its section stands in the file and says nothing.
fn default(path: &[String]) -> String {
    let Some((_, sections)) = path.split_last() else {
        return "-".to_owned();
    };
    let Ok(config) = serde_saphyr::from_str::<Config>(&nested(sections, "{}")) else {
        return "needed".to_owned();
    };
    let written = serde_json::to_value(&config).unwrap();
    match written.pointer(&format!("/{}", path.join("/"))) {
        None | Some(serde_json::Value::Null) => "-".to_owned(),
        Some(serde_json::Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(serde_json::Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`"),
    }
}

/// Name and default of each setting, as the page has them: roles have the same ones.
fn rows() -> Vec<String> {
    let mut paths = Vec::new();
    settings(&mut Vec::new(), &mut paths);
    assert!(paths.len() > 50, "{paths:?}");
    let mut told = BTreeSet::new();
    let mut rows = Vec::new();
    for path in paths {
        let default = default(&path);
        let mut name = path.join(".");
        for role in Role::ALL {
            name = name.replace(&format!("roles.{role}."), "roles.ROLE.");
        }
        let row = format!("| `{name}` | {default} |");
        if told.insert(row.clone()) {
            rows.push(row);
        }
    }
    rows
}

#[test]
fn every_setting_stands_on_the_page_with_its_default() {
    let on_page = PAGE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let (name, default, meaning) = (cells.next()?, cells.next()?, cells.next()?);
        assert!(meaning.len() > 10, "{line}");
        Some(format!("| `{name} | {default} |"))
    });
    let on_page: Vec<String> = on_page.collect();
    let rows = rows();
    assert_eq!(
        on_page,
        rows,
        "docs/operations.md should have:\n{}",
        rows.join("\n")
    );
}
