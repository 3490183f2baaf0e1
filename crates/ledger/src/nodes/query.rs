//! What is answered about nodes.

use r3mes_types::nodes::{
    Node, NodeAnswer, Nodes, QueryNode, QueryNodes, QuerySlashes, Slash, Slashes,
};
use r3mes_types::query::{MAX_PAGE_KEY, Query};
use r3mes_types::wire::Blob;

use super::state::{BY_ROLE, NODES, SLASHES, SLASHES_OF, require};
use crate::error::LedgerError;
use crate::query::{Answer, listed, page, page_of, reply};
use crate::store::View;

/// Answers a question of this domain; `None` when the path is of another.
pub(crate) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    Some(match path {
        QueryNode::PATH => reply(data, |query: QueryNode| {
            let node = NODES.get(view, &query.address)?;
            Ok((NodeAnswer { node }, Some(NODES.key(&query.address))))
        }),
        QueryNodes::PATH => reply(data, |query: QueryNodes| {
            let (nodes, next) = nodes(view, &query)?;
            Ok((
                Nodes {
                    nodes: listed(nodes)?,
                    next,
                },
                None,
            ))
        }),
        QuerySlashes::PATH => reply(data, |query: QuerySlashes| {
            let (slashes, next) = slashes(view, &query)?;
            Ok((
                Slashes {
                    slashes: listed(slashes)?,
                    next,
                },
                None,
            ))
        }),
        _ => return None,
    })
}

fn nodes(
    view: &dyn View,
    query: &QueryNodes,
) -> Result<(Vec<Node>, Blob<MAX_PAGE_KEY>), LedgerError> {
    let request = query.page.clone().unwrap_or_default();
    let Some(role) = query.role else {
        let (entries, next) = page(view, &NODES, &request)?;
        return Ok((entries.into_iter().map(|(_, node)| node).collect(), next));
    };
    let (entries, next) = page_of(view, &BY_ROLE, &role, &request)?;
    let nodes = entries
        .iter()
        .map(|((_, address), _)| require(view, address));
    Ok((nodes.collect::<Result<_, _>>()?, next))
}

fn slashes(
    view: &dyn View,
    query: &QuerySlashes,
) -> Result<(Vec<Slash>, Blob<MAX_PAGE_KEY>), LedgerError> {
    let request = query.page.clone().unwrap_or_default();
    let Some(node) = query.node else {
        let (entries, next) = page(view, &SLASHES, &request)?;
        return Ok((entries.into_iter().map(|(_, slash)| slash).collect(), next));
    };
    let (entries, next) = page_of(view, &SLASHES_OF, &node, &request)?;
    let mut slashes = Vec::with_capacity(entries.len());
    for ((_, id), _) in entries {
        slashes.extend(SLASHES.get(view, &id)?);
    }
    Ok((slashes, next))
}
