//! Parameters of the ledger as people type them: `DOMAIN.NAME=VALUE`, by the names that `r3mes query
//! params` prints.

use anyhow::Context;
use r3mes_types::{
    Address, Amount, Millis, Ppm,
    governance::{Change, Params},
    wire::{List, Shown, Wire},
};

/// What replaces a domain's parameters, so that these settings hold.
///
/// # Errors
/// When a name is unknown, a value is none of its kind, parameters of two domains are set, nothing would
/// change, or the ledger would refuse the whole.
pub(super) fn change(now: &Params, settings: &[String]) -> anyhow::Result<Change> {
    let mut new = now.clone();
    let mut changed: Option<&str> = None;
    for setting in settings {
        let (name, value) = setting.split_once('=').with_context(|| {
            format!("{setting:?} is no setting: write DOMAIN.NAME=VALUE, such as nodes.jail=1h")
        })?;
        let domain = name.split('.').next().unwrap_or_default();
        let other = changed.replace(domain).filter(|other| *other != domain);
        if let Some(other) = other {
            anyhow::bail!(
                "a proposal changes the parameters of one domain, and these are of {other} and {domain}: make two"
            );
        }
        set(&mut new, name, value).with_context(|| format!("cannot set {name} to {value:?}"))?;
    }
    anyhow::ensure!(
        new != *now,
        "nothing would change: the parameters are so already"
    );
    r3mes_ledger::governance::check_all(&new)
        .map_err(|why| anyhow::anyhow!("the network would not work so: {why}"))?;
    Ok(match changed.unwrap_or_default() {
        "bank" => Change::Bank(new.bank),
        "auth" => Change::Auth(new.auth),
        "nodes" => Change::Nodes(new.nodes),
        "data" => Change::Data(new.data),
        "governance" => Change::Governance(new.governance),
        _ => Change::Rewards(new.rewards),
    })
}

fn set(params: &mut Params, name: &str, value: &str) -> anyhow::Result<()> {
    let known = names(&params.shown());
    let Params {
        bank,
        auth,
        nodes,
        data,
        governance,
        rewards,
    } = params;
    match name {
        "bank.faucet_limit" => put(&mut bank.faucet_limit, value),
        "auth.fee_per_million_gas" => put(&mut auth.fee_per_million_gas, value),
        "auth.max_tx_gas" => put(&mut auth.max_tx_gas, value),
        "auth.max_obligation_gas" => put(&mut auth.max_obligation_gas, value),
        "auth.max_block_gas" => put(&mut auth.max_block_gas, value),
        "auth.max_block_bytes" => put(&mut auth.max_block_bytes, value),
        "nodes.unbonding" => put(&mut nodes.unbonding, value),
        "nodes.appeal_window" => put(&mut nodes.appeal_window, value),
        "nodes.jail" => put(&mut nodes.jail, value),
        "nodes.max_block_validators" => put(&mut nodes.max_block_validators, value),
        "nodes.double_sign_slash" => put(&mut nodes.double_sign_slash, value),
        "data.voting" => put(&mut data.voting, value),
        "governance.authority" => put(&mut governance.authority, value),
        "governance.voting" => put(&mut governance.voting, value),
        "governance.threshold" => put(&mut governance.threshold, value),
        "rewards.max_supply" => put(&mut rewards.max_supply, value),
        "rewards.vesting" => put(&mut rewards.vesting, value),
        _ => {
            let stakes = nodes.minimum_stakes.iter();
            let mut stakes: Vec<_> = stakes.copied().collect();
            let role = name.strip_prefix(MINIMUM_STAKES);
            let role = role.and_then(|role| role.parse().ok());
            let stake = stakes.iter_mut().find(|stake| Some(stake.role) == role);
            let stake = stake.with_context(|| {
                format!("there is no such parameter; there is: {}", known.join(", "))
            })?;
            put(&mut stake.minimum, value)?;
            nodes.minimum_stakes = List::new(stakes)?;
            Ok(())
        }
    }
}

/// What the least stake of a role is called, before the role.
const MINIMUM_STAKES: &str = "nodes.minimum_stakes.";

/// The names that can be set, as the parameters are shown.
fn names(shown: &Shown) -> Vec<String> {
    let mut found = Vec::new();
    let Shown::Record(domains) = shown else {
        return found;
    };
    for (domain, parameters) in domains {
        let Shown::Record(parameters) = parameters else {
            continue;
        };
        for (name, value) in parameters {
            match value {
                Shown::List(_) => found.push(format!("{MINIMUM_STAKES}ROLE")),
                _ => found.push(format!("{domain}.{name}")),
            }
        }
    }
    found
}

/// A parameter as it is typed.
trait Typed: Sized {
    /// What it has to look like.
    const FORM: &'static str;
    /// Reads it; `None` where it is not so.
    fn typed(text: &str) -> Option<Self>;
}

fn put<T: Typed>(parameter: &mut T, text: &str) -> anyhow::Result<()> {
    *parameter = T::typed(text).with_context(|| format!("it must be {}", T::FORM))?;
    Ok(())
}

impl Typed for Amount {
    const FORM: &'static str = "an amount such as 1000000uremes";
    fn typed(text: &str) -> Option<Self> {
        let number = || text.parse().ok().map(Self::new);
        text.parse().ok().or_else(number)
    }
}

impl Typed for Millis {
    const FORM: &'static str = "a time such as 500ms, 30s, 10m, 48h or 7d; a bare number is in ms";
    fn typed(text: &str) -> Option<Self> {
        // The longer suffix first.
        let units = [
            ("ms", 1),
            ("s", 1_000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
        ];
        let mut units = units.into_iter();
        let unit = units.find_map(|(unit, millis)| Some((text.strip_suffix(unit)?, millis)));
        let (number, millis) = unit.unwrap_or((text, 1));
        number
            .parse::<u64>()
            .ok()?
            .checked_mul(millis)
            .map(Self::new)
    }
}

impl Typed for Ppm {
    const FORM: &'static str = "a whole share such as 67%, or millionths such as 666667";
    fn typed(text: &str) -> Option<Self> {
        let percent = text.strip_suffix('%');
        let percent = percent.map(|percent| percent.parse::<u32>().ok()?.checked_mul(10_000));
        Self::new(percent.unwrap_or_else(|| text.parse().ok())?)
    }
}

impl Typed for Option<Address> {
    const FORM: &'static str = "an account, remes1..., or none";
    fn typed(text: &str) -> Option<Self> {
        match text {
            "none" | "-" => Some(None),
            address => address.parse().ok().map(Some),
        }
    }
}

impl Typed for u32 {
    const FORM: &'static str = "a whole number";
    fn typed(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Typed for u64 {
    const FORM: &'static str = "a whole number";
    fn typed(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Params {
        let authority = Address::from([1; 20]);
        r3mes_ledger::genesis::params(Some(authority), Amount::remes(5))
    }

    fn change(settings: &[&str]) -> anyhow::Result<Change> {
        let settings: Vec<String> = settings.iter().map(|typed| (*typed).to_owned()).collect();
        super::change(&params(), &settings)
    }

    /// What is wrong, with its causes.
    fn refusal(settings: &[&str]) -> String {
        format!("{:#}", change(settings).unwrap_err())
    }

    #[test]
    fn every_parameter_that_is_shown_can_be_set_to_what_is_shown() {
        let now = params();
        let Shown::Record(domains) = now.shown() else {
            panic!("parameters have names");
        };
        let mut tried = Vec::new();
        for (domain, parameters) in domains {
            let Shown::Record(parameters) = parameters else {
                panic!("parameters have names");
            };
            for (name, value) in parameters {
                let text = match value {
                    Shown::Number(number) => number.to_string(),
                    Shown::Text(text) => text,
                    Shown::Absent => "none".to_owned(),
                    Shown::List(_) => {
                        tried.push(format!("{MINIMUM_STAKES}ROLE"));
                        continue;
                    }
                    other => panic!("{domain}.{name} is {other:?}"),
                };
                let mut new = now.clone();
                let name = format!("{domain}.{name}");
                set(&mut new, &name, &text).unwrap();
                assert_eq!(new, now, "{name}");
                tried.push(name);
            }
        }
        assert_eq!(tried, names(&now.shown()));
    }

    #[test]
    fn settings_are_read_with_their_units() {
        let found = change(&["nodes.jail=1h", "nodes.minimum_stakes.validator=7uremes"]).unwrap();
        let Change::Nodes(nodes) = found else {
            panic!("{found:?}");
        };
        assert_eq!(nodes.jail, Millis::seconds(3_600));
        assert_eq!(nodes.minimum_stakes[2].minimum, Amount::new(7));
        assert_eq!(nodes.unbonding, params().nodes.unbonding);
        let found = change(&["governance.threshold=75%"]).unwrap();
        assert!(matches!(found, Change::Governance(new) if new.threshold == Ppm::percent(75)));
    }

    #[test]
    fn what_cannot_be_set_is_refused_with_what_can() {
        assert!(refusal(&["nodes.jial=1h"]).contains("nodes.jail"));
        assert!(refusal(&["nodes.jail=1y"]).contains("48h"));
        assert!(refusal(&["nodes.jail"]).contains("DOMAIN.NAME=VALUE"));
        assert!(refusal(&["governance.threshold=200%"]).contains("67%"));
        assert!(refusal(&["bank.faucet_limit=1uremes", "nodes.jail=1h"]).contains("make two"));
        assert!(refusal(&["bank.faucet_limit=5000000uremes"]).contains("nothing would change"));
        assert!(refusal(&["governance.threshold=10%"]).contains("one half"));
        // The times of a development network are too short for one without an authority.
        assert!(refusal(&["governance.authority=none"]).contains("unbonding"));
    }
}
