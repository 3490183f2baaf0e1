//! What the bank keeps.

use r3mes_types::bank::BankParams;
use r3mes_types::{Address, Amount};
use sha2::{Digest, Sha256};

use crate::error::LedgerError;
use crate::store::{Item, Map, View};

/// Balances above zero.
pub const BALANCES: Map<Address, Amount> = Map::new("bank/balance/");
/// All coins there are.
pub const SUPPLY: Item<Amount> = Item::new("bank/supply");
/// Parameters.
pub const PARAMS: Item<BankParams> = Item::new("bank/params");
/// What the faucet has given to an account.
pub(super) const FAUCET: Map<Address, Amount> = Map::new("bank/faucet/");

/// An account of the network itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// Fees, remainders and final slashes; governance spends it.
    Treasury,
    /// Stakes, bonded and unbonding.
    Stake,
    /// Slashed amounts until they are final.
    Slashed,
    /// A round's reward while it is divided.
    Rewards,
    /// Rewards that vest.
    Vesting,
    /// What is set aside for calls of remote functions.
    Escrow,
}

/// All module accounts.
pub const MODULES: [Module; 6] = [
    Module::Treasury,
    Module::Stake,
    Module::Slashed,
    Module::Rewards,
    Module::Vesting,
    Module::Escrow,
];

impl Module {
    /// Its name, from which its address is made.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Treasury => "treasury",
            Self::Stake => "stake",
            Self::Slashed => "slashed",
            Self::Rewards => "rewards",
            Self::Vesting => "vesting",
            Self::Escrow => "escrow",
        }
    }

    /// Its account: the first 20 bytes of sha256 of its name, as in the Cosmos SDK.
    pub fn address(self) -> Address {
        let digest: [u8; 32] = Sha256::digest(self.name()).into();
        let mut address = [0; Address::LEN];
        address.copy_from_slice(&digest[..Address::LEN]);
        Address::from(address)
    }
}

impl From<Module> for Address {
    fn from(module: Module) -> Self {
        module.address()
    }
}

/// An account's balance.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn balance(view: &dyn View, address: &Address) -> Result<Amount, LedgerError> {
    Ok(BALANCES.get(view, address)?.unwrap_or(Amount::ZERO))
}
