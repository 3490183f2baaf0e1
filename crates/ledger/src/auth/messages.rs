//! What can be said of an auth message without looking anything up.

use r3mes_types::auth::{AuthMessage, MsgGrant};
use r3mes_types::{Address, Message};

use super::handle::AuthError;
use crate::error::LedgerError;

/// Checks a message by itself.
pub(crate) fn check(message: &AuthMessage) -> Result<(), LedgerError> {
    match message {
        AuthMessage::Grant(message) => check_grant(message),
        AuthMessage::GrantFees(message) => {
            if message.limit.is_zero() {
                return Err(AuthError::NoLimit.into());
            }
            differ(&message.granter, &message.grantee)
        }
        AuthMessage::Revoke(_) | AuthMessage::RevokeFees(_) => Ok(()),
    }
}

fn check_grant(message: &MsgGrant) -> Result<(), LedgerError> {
    differ(&message.granter, &message.grantee)?;
    let urls = &message.type_urls;
    let refuse = |why: String| Err(AuthError::TypeUrls { why }.into());
    if urls.is_empty() || !urls.is_sorted_by(|a, b| a < b) {
        return refuse("there are none, or they are out of order".into());
    }
    for url in urls {
        if AuthMessage::TYPE_URLS.contains(&&**url) {
            return Err(AuthError::GrantOfGrants.into());
        }
        if !Message::type_urls().any(|known| known == &**url) {
            return refuse(format!("{url:?} is unknown", url = &**url));
        }
    }
    Ok(())
}

fn differ(granter: &Address, grantee: &Address) -> Result<(), LedgerError> {
    if granter == grantee {
        Err(AuthError::SelfGrant.into())
    } else {
        Ok(())
    }
}
