//! What a serving node does next, decided purely.
//!
//! A serving node picks its model once ([`choose`]). From then on it asks the ledger for the model's
//! newest version, looks at what it has ready on its own machine ([`Facts`]), and gets the next
//! [`Action`], until there is none. Killed at any point it plans again and goes on. It owes the ledger
//! no answers; what it promises is in its receipts.
//!
//! ```
//! use r3mes_inference::agent::{Facts, plan};
//! use r3mes_types::models::ModelAnswer;
//!
//! let unknown = ModelAnswer { model: None, newest: None };
//! assert_eq!(plan(&Facts::default(), &unknown), None, "nothing is known of the model");
//! ```

use r3mes_types::models::{Model, ModelAnswer, Version};

/// What a serving node has besides the ledger. Losing it costs a fetch, never an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The version whose adapter was fetched last.
    pub fetched: Option<Fetched>,
    /// Number of the version that requests can ask for; none: the base model alone.
    pub served: Option<u32>,
    /// Number of the newest version that cannot be served.
    pub given_up: Option<u32>,
    /// Whether this process has said that it answers.
    pub announced: bool,
}

/// An adapter that is on this machine, pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Number of its version.
    pub number: u32,
    /// Whether it is what the ledger says, and fits the model.
    pub fits: bool,
}

/// What a serving node does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fetch a version's adapter, pin it, hold it against the ledger and the model, and keep the outcome
    /// as [`Facts::fetched`].
    Fetch(Box<Version>),
    /// Answer with the fetched adapter from the next request on, and keep its number as
    /// [`Facts::served`]. Requests that run keep theirs.
    Serve(Box<Version>),
    /// Say that a version can never be served, and keep its number as [`Facts::given_up`]: what was
    /// served so far goes on.
    GiveUp(Box<Version>),
    /// Say that requests are answered, and keep that as [`Facts::announced`].
    Announce,
}

/// There is no model to serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NothingToServe {
    /// The ledger has no models.
    #[error("no model is registered on the ledger")]
    NoModel,
    /// It has none of the wanted name.
    #[error("no model is registered under the name {name:?}")]
    Unknown {
        /// The wanted name.
        name: String,
    },
}

/// The model to serve: that of the name, or the first one that was registered, whatever came later.
///
/// # Errors
/// [`NothingToServe`] when there is no such model.
pub fn choose<'m>(models: &'m [Model], name: Option<&str>) -> Result<&'m Model, NothingToServe> {
    let Some(name) = name else {
        let first = models
            .iter()
            .min_by_key(|model| (model.registered_at, model.spec.id));
        return first.ok_or(NothingToServe::NoModel);
    };
    let named = models.iter().find(|model| *model.spec.name == *name);
    named.ok_or_else(|| NothingToServe::Unknown {
        name: name.to_owned(),
    })
}

/// What to do next about the served model, of which the ledger says `seen`. None when there is nothing
/// to do before the next block.
///
/// A node that lags behind may tell of an older version than the one served: nothing goes back.
#[must_use]
pub fn plan(facts: &Facts, seen: &ModelAnswer) -> Option<Action> {
    seen.model.as_ref()?;
    let settled = facts.served.max(facts.given_up);
    let due = seen.newest.as_ref();
    let Some(version) = due.filter(|version| settled.is_none_or(|done| version.number > done))
    else {
        return (!facts.announced).then_some(Action::Announce);
    };
    let fetched = facts
        .fetched
        .filter(|fetched| fetched.number == version.number);
    let version = Box::new(version.clone());
    Some(match fetched {
        None => Action::Fetch(version),
        Some(Fetched { fits: true, .. }) => Action::Serve(version),
        Some(Fetched { fits: false, .. }) => Action::GiveUp(version),
    })
}

#[cfg(test)]
mod tests;
