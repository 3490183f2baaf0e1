//! Ids, addresses, keys, coins, roles, transactions, messages and their canonical encoding.
