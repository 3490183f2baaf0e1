//! How often a liar is caught, by the formula of the protocol.

/// What detection depends on.
#[derive(Clone, Copy, Debug)]
pub struct Detection {
    /// Share of the packages that are audited (a).
    pub audited: f64,
    /// Validators, all of equal power.
    pub validators: u32,
    /// How many of them cover for liars.
    pub accomplices: u32,
    /// Members of a panel (m).
    pub panel: u32,
    /// Steps of a round (H).
    pub steps: u32,
    /// Steps drawn (s).
    pub drawn: u32,
}

impl Detection {
    /// The chance that a miner which falsified `falsified` steps is caught in a round:
    /// `a (1 - P) (1 - C(H - k, s) / C(H, s))`.
    ///
    /// `P` is the chance that a whole panel covers for it. Panels are drawn without replacement, so it
    /// is `C(L, m) / C(V, m)`; `rho^m` is its bound for many validators.
    #[must_use]
    pub fn probability(&self, falsified: u32) -> f64 {
        let honest_seat = 1.0 - share(self.accomplices, self.validators, self.panel);
        let missed = share(self.steps - falsified, self.steps, self.drawn);
        self.audited * honest_seat * (1.0 - missed)
    }
}

/// The chance that all of `drawn` items, drawn without replacement from `all`, are among `marked`:
/// `C(marked, drawn) / C(all, drawn)`.
fn share(marked: u32, all: u32, drawn: u32) -> f64 {
    (0..drawn)
        .map(|place| f64::from(marked.saturating_sub(place)) / f64::from(all - place))
        .product()
}

/// Whether `hits` of `trials` lie within `sigmas` standard deviations of `probability`.
#[must_use]
pub fn within(hits: u32, trials: u32, probability: f64, sigmas: f64) -> bool {
    let (hits, trials) = (f64::from(hits), f64::from(trials));
    let sigma = (trials * probability * (1.0 - probability)).sqrt();
    (hits - trials * probability).abs() <= sigmas * sigma
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_gives_known_values() {
        let detection = Detection {
            audited: 0.5,
            validators: 9,
            accomplices: 3,
            panel: 2,
            steps: 8,
            drawn: 2,
        };
        // P = 3/9 * 2/8 = 1/12; with one false step of 8 and two drawn: 1 - C(7,2)/C(8,2) = 1/4.
        assert!((detection.probability(1) - 0.5 * 11.0 / 12.0 * 0.25).abs() < 1e-12);
        // Whoever falsifies all steps is caught whenever an honest panel looks.
        assert!((detection.probability(8) - 0.5 * 11.0 / 12.0).abs() < 1e-12);
    }

    #[test]
    fn within_counts_sigmas() {
        // 100 trials of 1/2: one sigma is 5.
        assert!(within(50, 100, 0.5, 3.0) && within(65, 100, 0.5, 3.0));
        assert!(!within(66, 100, 0.5, 3.0) && !within(34, 100, 0.5, 3.0));
    }
}
