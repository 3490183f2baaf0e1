//! What commands print: text for people, or JSON for programs.

use r3mes_types::wire::Shown;
use serde::Serialize;
use serde_json::Value;

/// How this command prints.
pub(super) struct Output {
    /// JSON instead of text.
    pub(super) json: bool,
}

impl Output {
    /// Prints a result: `text` for people, or the value as JSON.
    pub(super) fn show(
        &self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        use std::io::Write;
        let printed = if self.json {
            serde_json::to_string_pretty(value)?
        } else {
            text()
        };
        match writeln!(std::io::stdout(), "{}", printed.trim_end()) {
            // The reader closed the pipe (`| head`): it has what it wanted.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    exact: u32,
    backends: Vec<String>,
}

/// `r3mes version`
pub(super) fn version(backends_only: bool, out: &Output) -> anyhow::Result<()> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        exact: r3mes_training::job::EXACT_VERSION,
        backends: r3mes_exact::Isa::available()
            .iter()
            .map(ToString::to_string)
            .collect(),
    };
    if backends_only {
        return out.show(&version.backends, || version.backends.join("\n"));
    }
    out.show(&version, || {
        format!(
            "r3mes {}\nexact arithmetic: version {}\nback ends of this machine: {}",
            version.version,
            version.exact,
            version.backends.join(", ")
        )
    })
}

impl Output {
    /// Prints a ledger value: indented names and values for people, or JSON.
    pub(super) fn show_ledger(&self, value: &Shown) -> anyhow::Result<()> {
        self.show(&json(value), || {
            let mut lines = String::new();
            indented(value, 0, &mut lines);
            lines
        })
    }
}

/// A ledger value as JSON. Whole numbers beyond JSON's safe range become text.
pub(crate) fn json(value: &Shown) -> Value {
    match value {
        Shown::Absent => Value::Null,
        Shown::Bool(truth) => Value::Bool(*truth),
        Shown::Number(number) => match i64::try_from(*number) {
            Ok(safe) if safe.unsigned_abs() < 1 << 53 => Value::from(safe),
            _ => Value::String(number.to_string()),
        },
        Shown::Text(text) => Value::String(text.clone()),
        Shown::List(values) => values.iter().map(json).collect(),
        Shown::Record(fields) => fields
            .iter()
            .map(|(name, field)| ((*name).to_owned(), json(field)))
            .collect(),
    }
}

fn indented(value: &Shown, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    match value {
        Shown::Record(fields) => {
            for (name, field) in fields {
                if let Some(text) = inline(field) {
                    out.push_str(&format!("{pad}{name}: {text}\n"));
                } else {
                    out.push_str(&format!("{pad}{name}:\n"));
                    indented(field, depth + 1, out);
                }
            }
        }
        Shown::List(values) => {
            for value in values {
                if let Some(text) = inline(value) {
                    out.push_str(&format!("{pad}- {text}\n"));
                } else {
                    // The first line of an entry carries the dash in place of its deeper indent.
                    let dash = out.len() + pad.len();
                    indented(value, depth + 1, out);
                    out.replace_range(dash..dash + 2, "- ");
                }
            }
        }
        simple => out.push_str(&format!("{pad}{}\n", inline(simple).unwrap_or_default())),
    }
}

/// A value that fits on its name's line.
fn inline(value: &Shown) -> Option<String> {
    match value {
        Shown::Absent => Some("-".to_owned()),
        Shown::Bool(truth) => Some(truth.to_string()),
        Shown::Number(number) => Some(number.to_string()),
        Shown::Text(text) => Some(text.clone()),
        Shown::List(values) if values.is_empty() => Some("none".to_owned()),
        Shown::Record(fields) if fields.is_empty() => Some("-".to_owned()),
        Shown::List(_) | Shown::Record(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_value_reads_as_indented_names() {
        let node = Shown::Record(vec![
            ("name", Shown::Text("a".into())),
            ("roles", Shown::List(vec![Shown::Text("miner".into())])),
            (
                "locks",
                Shown::List(vec![Shown::Record(vec![
                    ("amount", Shown::Number(5)),
                    ("open", Shown::Bool(true)),
                ])]),
            ),
            ("left", Shown::Absent),
        ]);
        let mut text = String::new();
        indented(&node, 0, &mut text);
        assert_eq!(
            text,
            "name: a\nroles:\n  - miner\nlocks:\n  - amount: 5\n    open: true\nleft: -\n"
        );
    }

    #[test]
    fn a_number_that_json_readers_would_round_becomes_text() {
        assert_eq!(
            json(&Shown::Number(i128::from(u64::MAX))),
            Value::String(u64::MAX.to_string())
        );
        assert_eq!(json(&Shown::Number(7)), Value::from(7));
    }
}
