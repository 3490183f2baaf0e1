//! What commands print: text for people, or JSON for programs.

use serde::Serialize;

/// How this command prints.
pub(super) struct Output {
    /// JSON instead of text.
    pub(super) json: bool,
}

impl Output {
    /// Prints a result: `text` for people, or the value as JSON.
    pub(super) fn show(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        use std::io::Write;
        let printed = if self.json { serde_json::to_string_pretty(value)? } else { text() };
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
pub(super) fn version(out: &Output) -> anyhow::Result<()> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        exact: r3mes_exact::VERSION,
        backends: r3mes_exact::Isa::available().iter().map(ToString::to_string).collect(),
    };
    out.show(&version, || {
        format!(
            "r3mes {}\nexact arithmetic: version {}\nback ends of this machine: {}",
            version.version,
            version.exact,
            version.backends.join(", ")
        )
    })
}
