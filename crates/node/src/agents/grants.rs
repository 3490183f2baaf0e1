//! What a node's account grants the keys of its roles: the messages that they send for it, and the fees
//! of those that are not owed and so do not travel free.

use std::{collections::BTreeMap, time::Duration};

use r3mes_gateway::rpc;
use r3mes_types::{
    Address, Amount, Message, RoleSet,
    auth::{GrantEntry, MsgGrant, MsgGrantFees, QueryGrants},
    nodes::NodesMessage,
    training::TrainingMessage,
    wire::{List, Text},
};

use crate::{clock, config::Config, home::Home, keyring::Keyring};

/// How long a role's key may act before `r3mes start` renews the grant.
const GRANT_TIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// A grant that ends sooner than this is renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// The fees that are paid for one role's key before `r3mes start` grants more: a thousand transactions
/// of the usual size. Whoever steals the key can waste no more.
const FEES: Amount = Amount::remes(1);
/// A grant of fees with less than this left is renewed.
const RENEW_BELOW: Amount = Amount::new(FEES.uremes() / 2);

/// Lets the keys of roles act for the node, for [`GRANT_TIME`], with fees up to [`FEES`] each.
pub(super) fn grants(
    home: &Home,
    granter: Address,
    roles: RoleSet,
) -> anyhow::Result<Vec<Message>> {
    let keyring = Keyring::new(home);
    let expires_at = clock::after(GRANT_TIME);
    let mut grants = Vec::new();
    for role in roles.iter() {
        let grantee = keyring.role(role)?.address();
        let act = MsgGrant {
            granter,
            grantee,
            type_urls: granted_types()?,
            expires_at,
        };
        let pay = MsgGrantFees {
            granter,
            grantee,
            limit: FEES,
            expires_at,
        };
        grants.extend([Message::from(act), pay.into()]);
    }
    Ok(grants)
}

/// Whether the keys of all roles that run here have what [`grants`] gives, and for a while yet.
pub(super) async fn granted(
    client: &rpc::Client,
    home: &Home,
    config: &Config,
    granter: Address,
) -> anyhow::Result<bool> {
    let page = None;
    let grants = client.list(QueryGrants { granter, page }).await?;
    let by_key: BTreeMap<Address, &GrantEntry> =
        grants.iter().map(|entry| (entry.grantee, entry)).collect();
    let keyring = Keyring::new(home);
    for (role, _) in config.enabled_roles() {
        let key = keyring.role(role)?.address();
        if !by_key.get(&key).is_some_and(|entry| lasts(entry)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lasts(entry: &GrantEntry) -> bool {
    let soon = clock::after(RENEW_BEFORE);
    let acts = entry.grant.as_ref();
    let acts = acts.is_some_and(|grant| grant.expires_at >= soon);
    let pays = entry.fees.as_ref();
    let pays = pays.is_some_and(|fees| fees.expires_at >= soon && fees.remaining >= RENEW_BELOW);
    acts && pays
}

/// What a role's key may send: everything that a training role owes, which travels free, and
/// `MsgUnjail`, which does not.
fn granted_types<const LENGTH: usize, const MAX: usize>() -> anyhow::Result<List<Text<LENGTH>, MAX>>
{
    let unjail = NodesMessage::TYPE_URLS
        .iter()
        .filter(|url| url.ends_with("MsgUnjail"));
    let authority = ["MsgCreateRun", "MsgPauseRun", "MsgResumeRun", "MsgEndRun"];
    let owed = TrainingMessage::TYPE_URLS
        .iter()
        .filter(|url| !authority.iter().any(|name| url.ends_with(name)));
    let mut urls: Vec<_> = owed.chain(unjail).copied().collect();
    urls.sort_unstable();
    let urls = urls.into_iter().map(Text::new).collect::<Result<_, _>>()?;
    Ok(List::new(urls)?)
}

#[cfg(test)]
mod tests {
    use r3mes_types::{
        Time,
        auth::{FeeGrant, Grant},
    };

    use super::*;

    #[test]
    fn a_grant_is_renewed_before_it_ends_and_before_its_fees_are_used_up() {
        let later = clock::after(GRANT_TIME);
        let entry = |expires_at: Time, fees: Option<(Amount, Time)>| GrantEntry {
            grantee: Address::from([1; 20]),
            grant: Some(Grant {
                type_urls: granted_types().unwrap(),
                expires_at,
            }),
            fees: fees.map(|(remaining, expires_at)| FeeGrant {
                remaining,
                expires_at,
            }),
        };
        let soon = clock::after(Duration::from_secs(24 * 3600));
        assert!(lasts(&entry(later, Some((FEES, later)))));
        assert!(!lasts(&entry(later, None)), "as earlier versions granted");
        assert!(!lasts(&entry(soon, Some((FEES, later)))));
        assert!(!lasts(&entry(later, Some((FEES, soon)))));
        assert!(!lasts(&entry(later, Some((Amount::new(1), later)))));
    }
}
