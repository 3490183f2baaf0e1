//! The domains in one place: which of them a message or a question is for.

use r3mes_types::Message;

use crate::error::{LedgerError, QueryError};
use crate::query::Answer;
use crate::store::{Context, View};
use crate::{
    auth, bank, beacon, cosmos, data, escrow, governance, models, nodes, rewards, training,
};

/// Checks a message by itself, without looking anything up.
///
/// # Errors
/// What the message's domain gives.
pub(crate) fn check(message: &Message) -> Result<(), LedgerError> {
    match message {
        Message::Bank(message) => bank::check(message),
        Message::Auth(message) => auth::check(message),
        Message::Beacon(message) => beacon::check(message),
        Message::Nodes(message) => nodes::check(message),
        Message::Models(message) => models::check(message),
        Message::Data(message) => data::check(message),
        Message::Governance(message) => governance::check(message),
        Message::Training(message) => training::check(message),
        Message::Escrow(message) => escrow::check(message),
    }
}

/// Does what a message says, on behalf of the account it acts for.
pub(crate) fn execute(ctx: &mut Context<'_>, message: &Message) -> Result<(), LedgerError> {
    match message {
        Message::Bank(message) => bank::execute(ctx, message),
        Message::Auth(message) => auth::execute(ctx, message),
        Message::Beacon(message) => beacon::execute(ctx, message),
        Message::Nodes(message) => nodes::execute(ctx, message),
        Message::Models(message) => models::execute(ctx, message),
        Message::Data(message) => data::execute(ctx, message),
        Message::Governance(message) => governance::execute(ctx, message),
        Message::Training(message) => training::execute(ctx, message),
        Message::Escrow(message) => escrow::execute(ctx, message),
    }
}

/// Answers a question from one of the domains.
type Route = fn(&dyn View, &str, &[u8]) -> Option<Result<Answer, LedgerError>>;

const ROUTES: &[Route] = &[
    bank::route,
    auth::route,
    beacon::route,
    nodes::route,
    models::route,
    data::route,
    governance::route,
    training::route,
    rewards::route,
    escrow::route,
    cosmos::route,
];

/// Answers a question.
pub(crate) fn query(view: &dyn View, path: &str, data: &[u8]) -> Result<Answer, LedgerError> {
    ROUTES
        .iter()
        .find_map(|route| route(view, path, data))
        .unwrap_or_else(|| {
            Err(QueryError::UnknownPath {
                path: path.to_owned(),
            }
            .into())
        })
}
