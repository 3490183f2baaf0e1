//! What accounts do, as the test generates it and as the ledger is sent it.

use proptest::prelude::*;
use r3mes_types::auth::{MsgGrant, MsgGrantFees, MsgRevoke, MsgRevokeFees};
use r3mes_types::bank::MsgSend;
use r3mes_types::nodes::{MsgLeave, MsgUnjail, MsgUpdate};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Amount, Message, Millis, Role};

use super::{ACCOUNTS, SECOND};
use crate::chain::{Chain, FEE, address, register, spec};

#[derive(Clone, Copy, Debug)]
pub(in crate::naive) enum Step {
    Send {
        from: u8,
        to: u8,
        amount: u64,
    },
    Register {
        who: u8,
        role: Role,
        stake: u64,
    },
    Update {
        who: u8,
        role: Role,
        stake: u64,
    },
    Leave {
        who: u8,
    },
    Slash {
        who: u8,
        amount: u64,
    },
    Jail {
        who: u8,
    },
    Unjail {
        who: u8,
    },
    Grant {
        from: u8,
        to: u8,
        types: u8,
        millis: u64,
    },
    Revoke {
        from: u8,
        to: u8,
    },
    GrantFees {
        from: u8,
        to: u8,
        limit: u64,
        millis: u64,
    },
    RevokeFees {
        from: u8,
        to: u8,
    },
    Wait {
        millis: u64,
    },
}

/// Around a message: who signs it, for whom or for itself, and who pays how much.
#[derive(Clone, Copy, Debug)]
pub(in crate::naive) struct Envelope {
    /// Whoever acts, if nobody else.
    pub(in crate::naive) signer: Option<u8>,
    pub(in crate::naive) fee: u64,
    pub(in crate::naive) payer: Option<u8>,
    pub(in crate::naive) granter: Option<u8>,
}

/// Message types that are granted; a set of them is the sum of their numbers.
pub(in crate::naive) const GRANTED: [(u8, &str); 2] = [
    (1, "/cosmos.bank.v1beta1.MsgSend"),
    (2, "/r3mes.nodes.v1.MsgLeave"),
];

/// Most steps lie in a plain envelope, or nothing would ever happen.
pub(in crate::naive) fn envelope() -> impl Strategy<Value = Envelope> {
    let other = || prop_oneof![3 => Just(None), 2 => (1..=ACCOUNTS).prop_map(Some)];
    let fee = FEE.uremes();
    let fee = prop_oneof![6 => Just(fee), 1 => Just(0), 1 => Just(fee - 1), 2 => fee..3 * fee];
    let payer = prop_oneof![8 => Just(None), 1 => (1..=ACCOUNTS).prop_map(Some)];
    let odd = (other(), fee, payer, other());
    let odd = odd.prop_map(|(signer, fee, payer, granter)| Envelope {
        signer,
        fee,
        payer,
        granter,
    });
    let plain = Envelope {
        signer: None,
        fee: FEE.uremes(),
        payer: None,
        granter: None,
    };
    prop_oneof![1 => Just(plain), 1 => odd]
}

pub(in crate::naive) fn step() -> impl Strategy<Value = Step> {
    let who = 1..=ACCOUNTS;
    let role = prop::sample::select(Role::ALL);
    let stake = prop_oneof![Just(0), Just(1_000_000), 0..150_000_000u64];
    let amount = prop_oneof![Just(0), 0..2_000_000_000u64];
    prop_oneof![
        (who.clone(), who.clone(), amount.clone()).prop_map(|(from, to, amount)| Step::Send {
            from,
            to,
            amount
        }),
        (who.clone(), role.clone(), stake.clone()).prop_map(|(who, role, stake)| Step::Register {
            who,
            role,
            stake
        }),
        (who.clone(), role, stake).prop_map(|(who, role, stake)| Step::Update { who, role, stake }),
        who.clone().prop_map(|who| Step::Leave { who }),
        (who.clone(), 0..100_000_000u64).prop_map(|(who, amount)| Step::Slash { who, amount }),
        who.clone().prop_map(|who| Step::Jail { who }),
        who.clone().prop_map(|who| Step::Unjail { who }),
        grant_step(who),
        (0..80 * SECOND).prop_map(|millis| Step::Wait { millis }),
    ]
}

pub(in crate::naive) fn grant_step(
    who: std::ops::RangeInclusive<u8>,
) -> impl Strategy<Value = Step> {
    let pair = (who.clone(), who);
    let millis = prop_oneof![0..3u64, 0..200 * SECOND];
    // A few fees' worth.
    let limit = 0..5 * FEE.uremes();
    prop_oneof![
        2 => (pair.clone(), 1..=3u8, millis.clone()).prop_map(|((from, to), types, millis)| {
            Step::Grant { from, to, types, millis }
        }),
        1 => pair.clone().prop_map(|(from, to)| Step::Revoke { from, to }),
        2 => (pair.clone(), limit, millis).prop_map(|((from, to), limit, millis)| {
            Step::GrantFees { from, to, limit, millis }
        }),
        1 => pair.prop_map(|(from, to)| Step::RevokeFees { from, to }),
    ]
}

impl Step {
    /// Whose step it is; the ledger's own are nobody's.
    pub(in crate::naive) fn actor(self) -> u8 {
        match self {
            Self::Send { from, .. }
            | Self::Grant { from, .. }
            | Self::Revoke { from, .. }
            | Self::GrantFees { from, .. }
            | Self::RevokeFees { from, .. } => from,
            Self::Register { who, .. }
            | Self::Update { who, .. }
            | Self::Leave { who }
            | Self::Unjail { who } => who,
            Self::Slash { .. } | Self::Jail { .. } | Self::Wait { .. } => 0,
        }
    }

    /// Its number in [`GRANTED`]; 0 if it is never granted.
    pub(in crate::naive) fn granted_type(self) -> u8 {
        match self {
            Self::Send { .. } => 1,
            Self::Leave { .. } => 2,
            _ => 0,
        }
    }
}

/// What a step looks like in a transaction, if it is sent in one.
pub(in crate::naive) fn message(chain: &Chain, step: Step) -> Option<Message> {
    let uremes = Amount::new;
    let until = |millis| chain.time.after(Millis::new(millis));
    Some(match step {
        Step::Send { from, to, amount } => {
            MsgSend::new(address(from), address(to), uremes(amount)).into()
        }
        Step::Register { who, role, stake } => register(who, &[role], uremes(stake)),
        Step::Update { who, role, stake } => MsgUpdate {
            address: address(who),
            spec: spec(&[role], uremes(stake)),
        }
        .into(),
        Step::Leave { who } => MsgLeave {
            address: address(who),
        }
        .into(),
        Step::Unjail { who } => MsgUnjail {
            address: address(who),
        }
        .into(),
        Step::Grant {
            from,
            to,
            types,
            millis,
        } => {
            let urls = GRANTED.iter().filter(|(number, _)| types & number > 0);
            let urls = urls.map(|(_, url)| Text::new(*url).unwrap()).collect();
            MsgGrant {
                granter: address(from),
                grantee: address(to),
                type_urls: List::new(urls).unwrap(),
                expires_at: until(millis),
            }
            .into()
        }
        Step::Revoke { from, to } => MsgRevoke {
            granter: address(from),
            grantee: address(to),
        }
        .into(),
        Step::GrantFees {
            from,
            to,
            limit,
            millis,
        } => MsgGrantFees {
            granter: address(from),
            grantee: address(to),
            limit: uremes(limit),
            expires_at: until(millis),
        }
        .into(),
        Step::RevokeFees { from, to } => MsgRevokeFees {
            granter: address(from),
            grantee: address(to),
        }
        .into(),
        Step::Slash { .. } | Step::Jail { .. } | Step::Wait { .. } => return None,
    })
}
