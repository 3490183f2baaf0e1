//! Lists of the ledger, which it answers a page at a time.

use r3mes_types::auth::{GrantEntry, QueryGrants};
use r3mes_types::bank::{Balance, QueryBalances};
use r3mes_types::data::{Dataset, QueryDatasets};
use r3mes_types::escrow::{Escrow, QueryEscrows};
use r3mes_types::governance::{Proposal, QueryProposals};
use r3mes_types::models::{Model, QueryModels, QueryVersions, Version};
use r3mes_types::nodes::{Node, QueryNodes, QuerySlashes, Slash};
use r3mes_types::query::{PageRequest, Query};
use r3mes_types::training::{QueryRuns, Run};
use r3mes_types::wire::Wire;

use super::answers::not_understood;
use super::{Client, ClientError};

/// Most entries of a list that is read whole.
pub const MAX_LISTED: usize = 1 << 20;

/// A question whose answer lists something, a page at a time.
pub trait Paged: Query {
    /// What is listed.
    type Entry: Wire;
    /// What the answer calls the list.
    const LIST: &'static str;

    /// The question for what follows a page; `None` when the page is the last.
    fn after(&self, page: &Self::Answer) -> Option<Self>;

    /// What a page lists.
    fn entries(page: Self::Answer) -> Vec<Self::Entry>;
}

/// The beginning of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The entries, in the ledger's order.
    pub entries: Vec<T>,
    /// Whether there are more.
    pub more: bool,
}

/// Questions that go on where a page says that the next begins.
macro_rules! paged {
    ($( $query:ty => $list:ident : $entry:ty ),* $(,)?) => { $(
        impl Paged for $query {
            type Entry = $entry;
            const LIST: &'static str = stringify!($list);

            fn after(&self, page: &Self::Answer) -> Option<Self> {
                let limit = self.page.as_ref().map_or(0, |page| page.limit);
                let mut question = self.clone();
                question.page = Some(PageRequest { after: page.next.clone(), limit });
                (!page.next.is_empty()).then_some(question)
            }

            fn entries(page: Self::Answer) -> Vec<$entry> {
                page.$list.into_inner()
            }
        }
    )* };
}

paged! {
    QueryBalances => balances: Balance,
    QueryDatasets => datasets: Dataset,
    QueryEscrows => escrows: Escrow,
    QueryGrants => grants: GrantEntry,
    QueryModels => models: Model,
    QueryNodes => nodes: Node,
    QueryProposals => proposals: Proposal,
    QuerySlashes => slashes: Slash,
    QueryVersions => versions: Version,
}

/// Goes on after the last run of a page, until a page is empty.
impl Paged for QueryRuns {
    type Entry = Run;
    const LIST: &'static str = "runs";

    fn after(&self, page: &Self::Answer) -> Option<Self> {
        let last = page.runs.last()?;
        Some(Self {
            after: Some(last.id),
            limit: self.limit,
        })
    }

    fn entries(page: Self::Answer) -> Vec<Run> {
        page.runs.into_inner()
    }
}

impl Client {
    /// Everything that a question lists, over as many pages as there are.
    ///
    /// # Errors
    /// As [`Client::query`], and [`ClientError::Answer`] if there are more than [`MAX_LISTED`] entries.
    pub async fn list<Q: Paged>(&self, question: Q) -> Result<Vec<Q::Entry>, ClientError> {
        let listed = self.list_up_to(question, MAX_LISTED).await?;
        match listed.more {
            false => Ok(listed.entries),
            true => {
                let what = format!("it lists more than {MAX_LISTED} {}", Q::LIST);
                Err(not_understood(Q::PATH, what))
            }
        }
    }

    /// The first entries of what a question lists, at most `most`, and whether there are more.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn list_up_to<Q: Paged>(
        &self,
        question: Q,
        most: usize,
    ) -> Result<Listed<Q::Entry>, ClientError> {
        let (mut entries, mut next) = (Vec::new(), Some(question));
        while let Some(question) = next.filter(|_| entries.len() <= most) {
            let page = self.query(&question).await?;
            next = question.after(&page);
            entries.extend(Q::entries(page));
        }
        let more = entries.len() > most;
        entries.truncate(most);
        Ok(Listed { entries, more })
    }
}
