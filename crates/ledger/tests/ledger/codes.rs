use std::collections::BTreeSet;

use r3mes_ledger::LedgerError;

/// Codes are part of the results' hash, and clients know them: what is listed here never changes.
const PINNED: &[(&str, &str)] = &[
    (
        "sdk",
        "2 Decode, 4 Unauthorized, 5 Funds, 9 UnknownAccount, 11 OutOfGas, 13 Fee, 15 Signature, \
         19 AlreadyPending, 30 TimedOut, 32 Sequence, 41 GasLimit, 42 BlockGas",
    ),
    ("query", "1 UnknownPath, 2 Malformed, 3 NotFound"),
    (
        "bank",
        "1 Insufficient, 2 Nothing, 3 Overflow, 4 ModuleAccount, 5 Faucet",
    ),
    (
        "auth",
        "1 SelfGrant, 2 TypeUrls, 3 Expired, 4 NoGrant, 5 GrantOfGrants, 6 NoLimit",
    ),
    ("beacon", "1 NoValidator, 2 Length, 3 NextIsSet"),
    (
        "nodes",
        "1 Unknown, 2 AlreadyRegistered, 3 Spec, 4 Stake, 5 Jailed, 6 Appeal, 7 ConsensusKey, 8 Full",
    ),
    ("models", "1 NotAuthority, 2 Taken, 3 Unknown, 4 Spec"),
    ("data", "1 NotValidator, 2 NoVote, 3 Voted, 4 Spec"),
    ("governance", "1 NotValidator, 2 NoVote, 3 Voted, 4 Params"),
    (
        "training",
        "1 UnknownRun, 2 NotOpen, 3 NotDue, 4 NotOwed, 5 Conflict, 6 WrongOpening, 7 \
         WrongSteps, 8 WrongReveal, 9 Malformed, 10 NotYourTurn, 11 Params, 12 NotAuthority, \
         13 Missing, 14 Finished, 15 TooManyRuns",
    ),
    (
        "escrow",
        "1 Terms, 2 NotOpen, 3 NotGateway, 4 Totals, 5 Deposit, 6 Voucher, 7 Payees",
    ),
];

#[test]
fn error_codes_are_stable() {
    for (codespace, codes) in LedgerError::ALL_CODES {
        let (_, pinned) = PINNED
            .iter()
            .find(|(name, _)| name == codespace)
            .unwrap_or_else(|| panic!("the codes of {codespace} are not pinned"));
        let list: Vec<String> = codes
            .iter()
            .map(|(code, name)| format!("{code} {name}"))
            .collect();
        assert_eq!(list.join(", "), *pinned, "codespace {codespace}");
    }
}

#[test]
fn no_code_is_zero_and_none_comes_twice() {
    let mut spaces = BTreeSet::new();
    for (codespace, codes) in LedgerError::ALL_CODES {
        assert!(spaces.insert(*codespace), "{codespace} comes twice");
        let numbers: BTreeSet<u32> = codes.iter().map(|(code, _)| *code).collect();
        assert_eq!(
            numbers.len(),
            codes.len(),
            "a code of {codespace} comes twice"
        );
        assert!(!numbers.contains(&0), "0 means success");
    }
}
