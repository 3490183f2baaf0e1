//! What a person sees while the demonstration runs: a bar on a terminal, plain lines elsewhere.

use std::{io::IsTerminal, time::Duration};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::figures::{Figures, RoundFigures};

/// How often the spinner of the bar turns.
const TICK: Duration = Duration::from_millis(120);

/// Shows progress; silent when JSON was asked for.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// Whether a terminal has no space for whole lines.
    narrow: bool,
    silent: bool,
}

impl Progress {
    /// Progress over a number of rounds.
    pub(super) fn new(rounds: u64, silent: bool) -> Self {
        let bar = (!silent && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template(
                "{spinner} {bar:24} {pos}/{len} rounds  {elapsed}  {wide_msg}",
            );
            let bar = ProgressBar::new(rounds)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(TICK);
            bar
        });
        let columns = rustix::termios::tcgetwinsize(std::io::stderr()).map(|size| size.ws_col);
        // No columns at all is a terminal that does not know.
        let narrow = columns.is_ok_and(|columns| (1..WHOLE_LINE).contains(&columns));
        Self {
            narrow: bar.is_some() && narrow,
            bar,
            silent,
        }
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            _ if self.silent => {}
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// What is going on now; shown beside the bar only.
    pub(super) fn now(&self, doing: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(doing.to_owned());
        }
    }

    /// The heading over the rounds' lines.
    pub(super) fn heading(&self) {
        self.say(if self.narrow { SHORT_HEADING } else { HEADING });
    }

    /// A round has closed.
    pub(super) fn round(&self, figures: &Figures, round: &RoundFigures) {
        self.say(&match self.narrow {
            true => short_line(figures, round),
            false => line(figures, round),
        });
        if let Some(bar) = &self.bar {
            bar.set_position(figures.rounds.len() as u64);
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The heading over the rounds' lines, and the columns that those take.
const HEADING: &str = "round  held-out loss       packages     audited  uploaded (dense)         to verify  tokens/s       paid";
const WHOLE_LINE: u16 = 118;
/// The same where a terminal has no space for that.
const SHORT_HEADING: &str = "round  held-out loss    packages   REMES";

fn short_line(figures: &Figures, round: &RoundFigures) -> String {
    let paid = round.paid_uremes as f64 / 1e6;
    format!(
        "{:5}  {:.3} ({:+5.1}%)   {:2} of {:2}  {paid:6.1}",
        round.round,
        round.held_out_sample,
        change(figures, round),
        round.accepted,
        round.assigned,
    )
}

/// How far the loss has moved from the base model's, in percent.
fn change(figures: &Figures, round: &RoundFigures) -> f64 {
    100.0 * (round.held_out_sample / figures.base_sample - 1.0)
}

fn line(figures: &Figures, round: &RoundFigures) -> String {
    let change = change(figures, round);
    let ratio = round.dense_bytes as f64 / round.uploaded_bytes.max(1) as f64;
    let court = if round.disputed > 0 {
        format!(", {} in court", round.disputed)
    } else {
        String::new()
    };
    let slashed = match round.slashed_uremes {
        0 => String::new(),
        amount => format!(", {} REMES slashed", amount as f64 / 1e6),
    };
    format!(
        "{:5}  {:.3} ({change:+5.1}%)     {:2} of {:2}     {:2}{court:12}  {:>9} ({ratio:3.0}x less)  {:>12}  {:8.0}  {:5.1} REMES{slashed}",
        round.round,
        round.held_out_sample,
        round.accepted,
        round.assigned,
        round.audited,
        HumanBytes(round.uploaded_bytes).to_string(),
        HumanBytes(round.verification_bytes).to_string(),
        round.tokens_per_second(),
        round.paid_uremes as f64 / 1e6,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        Figures {
            base_sample: 6.0,
            ..Figures::default()
        }
    }

    fn round() -> RoundFigures {
        RoundFigures {
            round: 3,
            held_out_sample: 5.1,
            assigned: 4,
            accepted: 3,
            audited: 2,
            uploaded_bytes: 25_000,
            dense_bytes: 1_000_000,
            verification_bytes: 2_000_000,
            tokens: 8_192,
            seconds: 2.0,
            paid_uremes: 9_500_000,
            ..RoundFigures::default()
        }
    }

    #[test]
    fn a_quiet_round_is_told_in_one_line_under_the_heading() {
        let line = line(&figures(), &round());
        for told in [
            "    3  5.100 (-15.0%)",
            "3 of  4",
            "( 40x less)",
            "4096",
            "9.5 REMES",
        ] {
            assert!(line.contains(told), "no {told:?} in {line:?}");
        }
        assert!(
            !line.contains("court") && !line.contains("slashed"),
            "{line:?}"
        );
        assert!(line.len() <= usize::from(WHOLE_LINE), "{line:?}");
    }

    #[test]
    fn a_round_with_a_liar_tells_of_the_court_and_the_slash() {
        let round = RoundFigures {
            disputed: 1,
            slashed_uremes: 2_500_000,
            ..round()
        };
        let line = line(&figures(), &round);
        assert!(line.contains(", 1 in court"), "{line:?}");
        assert!(line.ends_with(", 2.5 REMES slashed"), "{line:?}");
    }

    #[test]
    fn a_narrow_terminal_gets_what_fits_it() {
        let line = short_line(&figures(), &round());
        assert_eq!(line, "    3  5.100 (-15.0%)    3 of  4     9.5");
        assert!(line.len() <= SHORT_HEADING.len());
    }
}
