//! Stop strings: what of a growing text is certain to belong to the answer.

/// Watches a growing text for the first occurrence of any of several stop strings.
#[derive(Clone, Debug)]
pub(crate) struct StopWatch {
    stops: Vec<String>,
    /// Text seen that may yet turn out to begin a stop string.
    held: String,
    released: usize,
    stopped: bool,
}

impl StopWatch {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            held: String::new(),
            released: 0,
            stopped: false,
        }
    }

    /// Takes more text; returns what has become certain.
    pub(crate) fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min();
        if let Some(at) = found {
            self.stopped = true;
            self.held.truncate(at);
        }
        let keep = if self.stopped {
            0
        } else {
            self.possible_beginning()
        };
        let certain = self.held.len() - keep;
        self.released += certain;
        let rest = self.held.split_off(certain);
        std::mem::replace(&mut self.held, rest)
    }

    /// The text still held back, certain now that no more follows.
    pub(crate) fn finish(&mut self) -> String {
        self.released += self.held.len();
        std::mem::take(&mut self.held)
    }

    /// Whether a stop string has appeared.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    /// Bytes of text that became certain so far.
    pub(crate) fn released(&self) -> usize {
        self.released
    }

    /// Length of the longest end of the held text that begins a stop string.
    fn possible_beginning(&self) -> usize {
        let starts = self.held.char_indices().map(|(at, _)| at);
        let begins = |at: &usize| {
            let end = &self.held[*at..];
            self.stops.iter().any(|stop| stop.starts_with(end))
        };
        starts
            .into_iter()
            .find(begins)
            .map_or(0, |at| self.held.len() - at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(stops: &[&str]) -> StopWatch {
        StopWatch::new(stops.iter().map(|stop| (*stop).to_owned()).collect())
    }

    #[test]
    fn text_that_may_begin_a_stop_string_is_held_back_until_it_is_certain() {
        let mut watch = watch(&["END", "\n\n"]);
        assert_eq!(watch.push("one E"), "one ");
        assert_eq!(watch.push("N"), "");
        assert_eq!(watch.push("T\n"), "ENT");
        assert_eq!(watch.push("x"), "\nx");
        assert!(!watch.stopped());
        assert_eq!(watch.push("yEN"), "y");
        assert_eq!(watch.push("D tail"), "");
        assert!(watch.stopped());
        assert_eq!(watch.released(), "one ENT\nxy".len());
    }

    #[test]
    fn the_earliest_stop_string_wins_and_the_end_releases_what_was_held() {
        let mut early = watch(&["bb", "a"]);
        assert_eq!(early.push("xxabb"), "xx");
        assert!(early.stopped());
        let mut held = watch(&["é!"]);
        assert_eq!(held.push("caf\u{e9}"), "caf");
        assert_eq!(held.finish(), "\u{e9}");
    }

    #[test]
    fn without_stop_strings_everything_is_certain_at_once() {
        assert_eq!(watch(&[]).push("anything"), "anything");
    }
}
