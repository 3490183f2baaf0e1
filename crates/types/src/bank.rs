//! Bank: who has what.

use crate::query::{MAX_PAGE, MAX_PAGE_KEY, PageRequest};
use crate::wire::{Blob, List};
use crate::{Address, Amount, Coin, messages, queries, schema};

messages! {
    /// Messages of the bank.
    pub enum BankMessage {
        "/cosmos.bank.v1beta1.MsgSend" => Send(MsgSend) by from_address,
        "/r3mes.bank.v1.MsgFaucet" => Faucet(MsgFaucet) by to,
    }
}

schema! {
    /// `cosmos.bank.v1beta1.MsgSend`: moves coins from the signer to another account.
    pub struct MsgSend {
        /// Who pays.
        1 => from_address: Address,
        /// Who is paid.
        2 => to_address: Address,
        /// How much: exactly one coin.
        3 => amount: List<Coin, 1>,
    }

    /// Asks a development network for coins; refused where no faucet is open.
    pub struct MsgFaucet {
        /// Who is paid.
        1 => to: Address,
        /// How much.
        2 => amount: Amount,
    }

    /// Parameters of the bank.
    #[derive(Copy, Default)]
    pub struct BankParams {
        /// Most that the faucet gives to one account in all; nothing where there is no faucet.
        1 => faucet_limit: Amount,
    }

    /// Asks for an account's balance.
    pub struct QueryBalance {
        /// Whose.
        1 => address: Address,
    }

    /// An account with its balance.
    #[derive(Copy)]
    pub struct Balance {
        /// Whose.
        1 => address: Address,
        /// How much.
        2 => amount: Amount,
    }

    /// Asks for all balances, ascending by address bytes.
    #[derive(Default)]
    pub struct QueryBalances {
        /// Which part.
        1 => page: Option<PageRequest>,
    }

    /// A page of balances.
    pub struct Balances {
        /// The balances.
        1 => balances: List<Balance, MAX_PAGE>,
        /// Where the next page begins; empty at the end.
        2 => next: Blob<MAX_PAGE_KEY>,
    }

    /// Asks for the total supply.
    #[derive(Copy, Default)]
    pub struct QuerySupply {}

    /// All coins there are.
    #[derive(Copy)]
    pub struct Supply {
        /// How much.
        1 => amount: Amount,
    }
}

impl MsgSend {
    /// Moves `amount` from one account to another.
    pub fn new(from_address: Address, to_address: Address, amount: Amount) -> Self {
        let amount = List::new(vec![Coin(amount)]).expect("a list of one has room for one coin");
        Self {
            from_address,
            to_address,
            amount,
        }
    }
}

queries! {
    "/r3mes.bank.v1.Query/Balance" => QueryBalance: Balance,
    "/r3mes.bank.v1.Query/Balances" => QueryBalances: Balances,
    "/r3mes.bank.v1.Query/Supply" => QuerySupply: Supply,
}
