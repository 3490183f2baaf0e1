//! What the beacon answers.

use r3mes_types::beacon::{ChainAnswer, Mix, Mixes, QueryBeacon, QueryChain};
use r3mes_types::query::{MAX_PAGE, Query};

use super::state::{CHAINS, MIXES};
use crate::LAST_HEIGHT;
use crate::error::LedgerError;
use crate::query::{Answer, listed, reply};
use crate::store::View;

/// Answers a question of this domain; `None` when the path is of another.
pub(crate) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    Some(match path {
        QueryBeacon::PATH => reply(data, |query: QueryBeacon| {
            let mixes = listed(newest(view, &query)?)?;
            Ok((Mixes { mixes }, None))
        }),
        QueryChain::PATH => reply(data, |query: QueryChain| {
            let chain = CHAINS.get(view, &query.validator)?;
            Ok((ChainAnswer { chain }, Some(CHAINS.key(&query.validator))))
        }),
        _ => return None,
    })
}

fn newest(view: &dyn View, query: &QueryBeacon) -> Result<Vec<Mix>, LedgerError> {
    let last = LAST_HEIGHT.get(view)?.unwrap_or(0);
    let top = if query.height == 0 {
        last
    } else {
        query.height.min(last)
    };
    let count = (query.limit.max(1) as usize).min(MAX_PAGE);
    let mut mixes = Vec::new();
    for height in (0..=top).rev().take(count) {
        let Some(mix) = MIXES.get(view, &height)? else {
            break;
        };
        mixes.push(Mix { height, mix });
    }
    Ok(mixes)
}
