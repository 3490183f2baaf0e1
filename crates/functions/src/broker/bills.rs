//! What calls cost: set aside when a node gets one, owed or given back when it ends.

use super::{Broker, calls::Call};
use crate::{
    Moment,
    billing::{Bill, Price, Purse, Unpaid},
    registry::FunctionInfo,
};

/// Why a price is refused where nothing pays.
const BILLING_IS_OFF: &str = "this gateway settles with no ledger, so that billing is off: its owner \
                              turns it on with services.functions.billing";

/// Sets the price of a call aside that ends by `end`. A call from another gateway is paid there.
pub(super) fn set_aside(
    purse: &mut Option<Box<dyn Purse>>,
    call: &Call,
    price: Option<&Price>,
    end: Moment,
) -> Result<Option<Bill>, String> {
    let Some(price) = price.filter(|_| !call.target.here) else {
        return Ok(None);
    };
    let function = &call.target.function;
    let Some(purse) = purse else {
        return Err(format!("{function} has a price, and {BILLING_IS_OFF}"));
    };
    if call.user.is_empty() {
        return Err(format!(
            "{function} has a price: call it with the token of a user that an escrow pays for"
        ));
    }
    purse.reserve(&call.user, price, end).map(Some)
}

impl Broker {
    /// What calls have cost that nobody has been paid for; nothing is known where nothing pays.
    pub fn unpaid(&self) -> Option<Unpaid> {
        self.purse.as_ref().map(|purse| purse.unpaid())
    }

    /// What was set aside for a call that a node had is owed, or goes back.
    pub(super) fn pay(&mut self, node: &str, bill: Option<&Bill>, owed: bool) {
        let (Some(bill), Some(purse)) = (bill, &mut self.purse) else {
            return;
        };
        purse.settle(bill, owed);
        if let Some((_, node)) = self.nodes.get_mut(node).filter(|_| owed) {
            node.earned_uremes += bill.price.uremes;
        }
    }

    /// Whether a node may ask these prices here.
    pub(super) fn check_prices(&self, functions: &[FunctionInfo]) -> Result<(), String> {
        for function in functions {
            let Some(price) = &function.price else {
                continue;
            };
            let name = &function.name;
            match &self.purse {
                None => return Err(format!("{name} has a price, and {BILLING_IS_OFF}")),
                Some(purse) => purse
                    .check(price)
                    .map_err(|error| format!("{name}: {error}"))?,
            }
        }
        Ok(())
    }
}
