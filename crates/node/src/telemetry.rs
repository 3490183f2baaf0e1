//! Logging: text or JSON lines on standard error, never secrets, prompts or results.

use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::ParseError,
    fmt::{
        self, FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter,
        format::{JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::Log;

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is no filter.
    #[error("log.level {level:?} is no filter; try info or info,r3mes_node=debug")]
    Level {
        /// What the configuration says.
        level: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Logging was started before.
    #[error("logging was started twice")]
    Twice {
        /// What is there already.
        #[from]
        source: TryInitError,
    },
}

/// Starts logging for this process.
///
/// # Errors
/// When the level is no valid filter, or logging was started before.
pub fn start(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|source| TelemetryError::Level {
        level: log.level.clone(),
        source,
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    if log.json {
        registry.with(json(std::io::stderr)).try_init()?;
    } else {
        let colours = std::io::stderr().is_terminal();
        registry.with(lines(colours, std::io::stderr)).try_init()?;
    }
    Ok(())
}

/// One JSON object a line: what happened, and all the spans that it happened in, the outermost first.
fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    let format = fmt::format().json().with_current_span(false);
    fmt::layer()
        .event_format(format)
        .fmt_fields(JsonFields::new())
        .with_writer(writer)
}

/// Lines for people, with the innermost span alone.
fn lines<S, W>(colours: bool, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fmt::layer()
        .event_format(Line)
        .with_ansi(colours)
        .with_writer(writer)
}

/// A line: when, how grave, where from, what happened, and last the innermost span with its fields. Outer
/// spans are left to JSON: a chain of them would hide what happened.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let about = event.metadata();
        let dim = Style::new(&writer, "\x1b[2m");
        write!(writer, "{}", dim.before)?;
        SystemTime.format_time(&mut writer)?;
        let level = Style::new(&writer, colour(*about.level()));
        write!(
            writer,
            "{} {}{:>5}{} {}{}:{} ",
            dim.after,
            level.before,
            about.level(),
            level.after,
            dim.before,
            about.target(),
            dim.after,
        )?;
        context.format_fields(writer.by_ref(), event)?;
        if let Some(span) = context.event_scope().and_then(|mut inwards| inwards.next()) {
            write!(writer, " {}{}", dim.before, span.name())?;
            let extensions = span.extensions();
            match extensions.get::<FormattedFields<N>>() {
                Some(fields) if !fields.is_empty() => write!(writer, "{{{fields}}}")?,
                _ => {}
            }
            write!(writer, "{}", dim.after)?;
        }
        writeln!(writer)
    }
}

/// What is written around a part of a line; nothing where there are no colours.
struct Style {
    before: &'static str,
    after: &'static str,
}

impl Style {
    fn new(writer: &Writer<'_>, before: &'static str) -> Self {
        match writer.has_ansi_escapes() {
            true => Self {
                before,
                after: "\x1b[0m",
            },
            false => Self {
                before: "",
                after: "",
            },
        }
    }
}

/// The terminal's colour of a level.
fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Something that happens in a span within a span.
    fn happen() {
        let outer = tracing::info_span!("node.role.act", role = "miner", round = 3);
        let _outer = outer.entered();
        let inner = tracing::info_span!("gateway.blob.fetch", cid = "bafy");
        inner.in_scope(|| tracing::warn!(blocks = 2, "something is missing"));
        tracing::info!("done");
    }

    #[test]
    fn lines_have_the_innermost_span_alone() {
        let written = Written::default();
        let writer = written.clone();
        let registry = tracing_subscriber::registry().with(lines(false, move || writer.clone()));
        tracing::subscriber::with_default(registry, happen);
        let text = written.text();
        let ends: Vec<&str> = text
            .lines()
            .map(|line| line.split_once("Z ").unwrap().1)
            .collect();
        let module = module_path!();
        assert_eq!(
            ends,
            [
                format!(
                    " WARN {module}: something is missing blocks=2 gateway.blob.fetch{{cid=\"bafy\"}}"
                ),
                format!(" INFO {module}: done node.role.act{{role=\"miner\" round=3}}"),
            ]
        );
    }

    #[test]
    fn json_has_every_span_with_its_fields() {
        let written = Written::default();
        let writer = written.clone();
        let registry = tracing_subscriber::registry().with(json(move || writer.clone()));
        tracing::subscriber::with_default(registry, happen);
        let text = written.text();
        let first = text.lines().next().unwrap();
        let (about, spans) = first.split_once(r#","spans":[{"#).unwrap();
        for part in [
            r#""level":"WARN""#,
            r#""fields":{"message":"something is missing","blocks":2}"#,
        ] {
            assert!(about.contains(part), "{part} is not in {first}");
        }
        let (outer, inner) = spans.split_once("},{").unwrap();
        for (span, part) in [
            (outer, r#""name":"node.role.act""#),
            (outer, r#""role":"miner""#),
            (outer, r#""round":3"#),
            (inner, r#""name":"gateway.blob.fetch""#),
            (inner, r#""cid":"bafy""#),
        ] {
            assert!(span.contains(part), "{part} is not in {first}");
        }
    }
}
