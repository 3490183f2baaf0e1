//! What auth does: grants.

use r3mes_types::auth::{
    AuthMessage, FeeGrant, Grant, MsgGrant, MsgGrantFees, MsgRevoke, MsgRevokeFees,
};
use r3mes_types::{Address, Time};

use super::events;
use super::state::{FEE_GRANTS, GRANTS, ensure_account};
use crate::coded_errors;
use crate::error::LedgerError;
use crate::store::Context;

coded_errors! {
    /// Why auth refuses.
    pub enum AuthError in "auth" {
        /// A grant to the granter itself.
        #[error("an account needs no grant from itself")]
        1 => SelfGrant,
        /// A grant of nothing, or the same twice, or what does not exist.
        #[error("the granted message types must be known, ascending and without repeats: {why}")]
        2 => TypeUrls {
            /// What is wrong.
            why: String,
        },
        /// A grant that has expired already.
        #[error("the grant would expire at {expires_at:?}, which has passed")]
        3 => Expired {
            /// When it would expire.
            expires_at: Time,
        },
        /// There is nothing to take back.
        #[error("{granter} has granted {grantee} nothing of this kind")]
        4 => NoGrant {
            /// Who was to take back.
            granter: Address,
            /// From whom.
            grantee: Address,
        },
        /// A grant of the right to grant.
        #[error("the right to grant cannot itself be granted")]
        5 => GrantOfGrants,
        /// A fee grant of nothing.
        #[error("a fee grant needs a limit above zero")]
        6 => NoLimit,
    }
}

/// Does what a message says.
pub(crate) fn execute(ctx: &mut Context<'_>, message: &AuthMessage) -> Result<(), LedgerError> {
    match message {
        AuthMessage::Grant(message) => grant(ctx, message),
        AuthMessage::Revoke(message) => revoke(ctx, message),
        AuthMessage::GrantFees(message) => grant_fees(ctx, message),
        AuthMessage::RevokeFees(message) => revoke_fees(ctx, message),
    }
}

fn grant(ctx: &mut Context<'_>, message: &MsgGrant) -> Result<(), LedgerError> {
    let expires_at = message.expires_at;
    not_expired(ctx, expires_at)?;
    ensure_account(ctx, &message.grantee)?;
    let grant = Grant {
        type_urls: message.type_urls.clone(),
        expires_at,
    };
    GRANTS.put(ctx, &(message.granter, message.grantee), &grant)?;
    ctx.emit(events::granted(&message.granter, &message.grantee));
    Ok(())
}

fn revoke(ctx: &mut Context<'_>, message: &MsgRevoke) -> Result<(), LedgerError> {
    let (granter, grantee) = (message.granter, message.grantee);
    if !GRANTS.contains(ctx, &(granter, grantee))? {
        return Err(AuthError::NoGrant { granter, grantee }.into());
    }
    GRANTS.remove(ctx, &(granter, grantee))?;
    ctx.emit(events::revoked(&granter, &grantee));
    Ok(())
}

fn grant_fees(ctx: &mut Context<'_>, message: &MsgGrantFees) -> Result<(), LedgerError> {
    let expires_at = message.expires_at;
    not_expired(ctx, expires_at)?;
    ensure_account(ctx, &message.grantee)?;
    let grant = FeeGrant {
        remaining: message.limit,
        expires_at,
    };
    FEE_GRANTS.put(ctx, &(message.granter, message.grantee), &grant)?;
    ctx.emit(events::fees_granted(
        &message.granter,
        &message.grantee,
        message.limit,
    ));
    Ok(())
}

fn revoke_fees(ctx: &mut Context<'_>, message: &MsgRevokeFees) -> Result<(), LedgerError> {
    let (granter, grantee) = (message.granter, message.grantee);
    if !FEE_GRANTS.contains(ctx, &(granter, grantee))? {
        return Err(AuthError::NoGrant { granter, grantee }.into());
    }
    FEE_GRANTS.remove(ctx, &(granter, grantee))?;
    ctx.emit(events::fees_revoked(&granter, &grantee));
    Ok(())
}

fn not_expired(ctx: &Context<'_>, expires_at: Time) -> Result<(), LedgerError> {
    if expires_at <= ctx.now() {
        return Err(AuthError::Expired { expires_at }.into());
    }
    Ok(())
}
