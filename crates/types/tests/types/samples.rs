//! One sample of everything that is encoded, with every field set to something that is not its default.

use r3mes_types::auth::{
    Account, AuthParams, FeeGrant, Grant, GrantEntry, Grants, MsgGrant, MsgGrantFees, MsgRevoke,
    MsgRevokeFees,
};
use r3mes_types::bank::{Balance, Balances, BankParams, MsgFaucet, MsgSend};
use r3mes_types::beacon::{Chain, Mix, Mixes, MsgRegisterChain, MsgReveal, NextChain};
use r3mes_types::data::{
    DataParams, DataShard, Dataset, DatasetSpec, DatasetStatus, MsgProposeDataset, MsgVoteDataset,
};
use r3mes_types::escrow::{Escrow, MsgCharge, MsgClose, MsgOpen, Total, VoucherContent};
use r3mes_types::governance::{
    Change, GovernanceParams, MsgPropose, MsgVote, Proposal, ProposalStatus, SlashDecision,
};
use r3mes_types::models::{Model, ModelSpec, MsgRegisterModel, Version};
use r3mes_types::nodes::{
    Endpoint, Lock, MsgAppeal, MsgLeave, MsgRegister, MsgUnjail, MsgUpdate, Node, NodeSpec,
    NodeStatus, NodesParams, RoleStake, Slash, SlashStatus, Unbonding,
};
use r3mes_types::rewards::{RewardsParams, Vesting, VestingPart};
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::{Blob, List, Text, Wire};
use r3mes_types::{
    Address, Allocation, Amount, Cid, ConsensusAddress, ConsensusKey, Hash, Message, Millis,
    PageRequest, Ppm, Resources, Role, RoleSet, SecretKey, Time,
};

pub(crate) fn key() -> SecretKey {
    SecretKey::from_bytes(&[1; 32]).unwrap()
}

fn other() -> Address {
    Address::from([9; 20])
}

fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).unwrap()
}

fn list<T, const MAX: usize>(values: Vec<T>) -> List<T, MAX> {
    List::new(values).unwrap()
}

const AMOUNT: Amount = Amount::remes(3);
const TIME: Time = Time::from_nanos(1_700_000_000_123_456_789);
const SPAN: Millis = Millis::seconds(60);

fn node_spec() -> NodeSpec {
    let allocation = |role| Allocation {
        role,
        cpu_cores: 4,
        memory_gb: 8,
        gpu_usage: Ppm::percent(50),
        network_usage: Ppm::percent(20),
    };
    let endpoint = |role| Endpoint {
        role,
        blobs: text("http://127.0.0.1:8090"),
        api: text("http://127.0.0.1:8000"),
    };
    NodeSpec {
        moniker: text("node"),
        roles: RoleSet::of(Role::ALL),
        primary_role: Some(Role::Miner),
        stake: AMOUNT,
        resources: Resources {
            cpu_cores: 8,
            memory_gb: 16,
            gpu_count: 1,
            gpu_memory_gb: 12,
            storage_gb: 100,
            network_bandwidth_mbps: 1_000,
        },
        allocations: list(vec![allocation(Role::Miner), allocation(Role::Serving)]),
        endpoints: list(vec![endpoint(Role::Miner), endpoint(Role::Serving)]),
        consensus_key: Some(ConsensusKey::from([5; 32])),
    }
}

fn model_spec() -> ModelSpec {
    ModelSpec {
        id: Hash::of(b"model"),
        name: text("tiny"),
        base: Cid::raw(b"base"),
        base_bytes: 11_000_000,
        tokenizer: Cid::dag_pb(b"tokenizer"),
        tokenizer_hash: Hash::of(b"tokenizer"),
        exact_version: 1,
        memory_mib: 64,
        price_per_million_tokens: AMOUNT,
        licence: text("MIT"),
    }
}

fn dataset_spec() -> DatasetSpec {
    let shard = |name: &str| DataShard {
        cid: Cid::raw(name.as_bytes()),
        tokens: 300,
    };
    DatasetSpec {
        name: text("texts"),
        licence: text("public-domain"),
        source: text("a library"),
        tokenizer_hash: Hash::of(b"tokenizer"),
        shards: list(vec![shard("a"), shard("b")]),
        held_out: Some(shard("c")),
    }
}

/// One message of each type that this file knows.
pub(crate) fn messages() -> Vec<Message> {
    let me = key().address();
    vec![
        MsgSend::new(me, other(), AMOUNT).into(),
        MsgFaucet {
            to: me,
            amount: AMOUNT,
        }
        .into(),
        MsgGrant {
            granter: me,
            grantee: other(),
            type_urls: list(vec![text("/cosmos.bank.v1beta1.MsgSend")]),
            expires_at: TIME,
        }
        .into(),
        MsgRevoke {
            granter: me,
            grantee: other(),
        }
        .into(),
        MsgGrantFees {
            granter: me,
            grantee: other(),
            limit: AMOUNT,
            expires_at: TIME,
        }
        .into(),
        MsgRevokeFees {
            granter: me,
            grantee: other(),
        }
        .into(),
        MsgRegisterChain {
            operator: me,
            end: Hash::of(b"end"),
            length: 1_000,
        }
        .into(),
        MsgRegister {
            address: me,
            spec: node_spec(),
        }
        .into(),
        MsgUpdate {
            address: me,
            spec: node_spec(),
        }
        .into(),
        MsgLeave { address: me }.into(),
        MsgUnjail { address: me }.into(),
        MsgAppeal {
            address: me,
            slash: 7,
            statement: text("no"),
        }
        .into(),
        MsgRegisterModel {
            authority: me,
            spec: model_spec(),
        }
        .into(),
        MsgProposeDataset {
            proposer: me,
            spec: dataset_spec(),
        }
        .into(),
        MsgVoteDataset {
            voter: me,
            dataset: 7,
            approve: true,
        }
        .into(),
        MsgPropose {
            proposer: me,
            title: text("a change"),
            change: change(),
        }
        .into(),
        MsgVote {
            voter: me,
            proposal: 7,
            approve: true,
        }
        .into(),
        MsgOpen {
            payer: me,
            gateway: other(),
            user: text("alice"),
            deposit: AMOUNT,
            expires_at: TIME,
            voucher_key: Some(key().public_key()),
        }
        .into(),
        MsgCharge {
            gateway: me,
            escrow: 7,
            totals: list(vec![total()]),
            voucher: Some(voucher_content().sign(&key())),
        }
        .into(),
        MsgClose {
            gateway: me,
            escrow: 7,
        }
        .into(),
    ]
}

fn total() -> Total {
    Total {
        payee: other(),
        amount: AMOUNT,
    }
}

fn voucher_content() -> VoucherContent {
    VoucherContent {
        chain_id: text("r3mes-test"),
        escrow: 7,
        total: AMOUNT,
    }
}

fn change() -> Change {
    Change::Slash(SlashDecision {
        slash: 7,
        revert: true,
    })
}

/// A signed transaction with every field set.
pub(crate) fn transaction() -> Vec<u8> {
    let mut unsigned = Unsigned::new(messages());
    unsigned.memo = text("memo");
    unsigned.timeout_height = 500;
    unsigned.fee = Fee {
        payer: Some(key().address()),
        granter: Some(other()),
        ..Fee::of(AMOUNT, 300_000)
    };
    let signer = Signer {
        chain_id: "r3mes-test",
        account_number: 11,
        sequence: 12,
    };
    unsigned.sign(&key(), &signer).unwrap()
}

/// Records and answers by name.
pub(crate) fn records() -> Vec<(&'static str, Vec<u8>)> {
    let mut records = account_records();
    records.extend(node_records());
    records.extend(asset_records());
    records.extend(escrow_records());
    records
}

fn account_records() -> Vec<(&'static str, Vec<u8>)> {
    let me = key().address();
    let validator = ConsensusAddress::from([6; 20]);
    let grant = Grant {
        type_urls: list(vec![text("/x")]),
        expires_at: TIME,
    };
    let fees = FeeGrant {
        remaining: AMOUNT,
        expires_at: TIME,
    };
    let account = Account {
        address: me,
        number: 1,
        sequence: 2,
        public_key: Some(key().public_key().into()),
    };
    let entry = GrantEntry {
        grantee: other(),
        grant: Some(grant.clone()),
        fees: Some(fees),
    };
    let balances = list(vec![Balance {
        address: me,
        amount: AMOUNT,
    }]);
    let chain = Chain {
        last: Hash::of(b"last"),
        remaining: 5,
        next_end: Some(Hash::of(b"next")),
        next_length: 6,
    };
    let page = PageRequest {
        after: Blob::new([1, 2, 3]).unwrap(),
        limit: 10,
    };
    let auth = AuthParams {
        fee_per_million_gas: AMOUNT,
        max_tx_gas: 1,
        max_obligation_gas: 2,
        max_block_gas: 3,
        max_block_bytes: 4,
    };
    let reveal = MsgReveal {
        validator,
        preimage: Hash::of(b"preimage"),
        next: None,
    };
    let last_reveal = MsgReveal {
        next: Some(NextChain {
            end: Hash::of(b"end"),
            length: 1 << 20,
        }),
        ..reveal
    };
    vec![
        ("tx.TxRaw", transaction()),
        ("auth.Account", account.encode()),
        (
            "auth.Grants",
            Grants {
                grants: list(vec![entry]),
                next: Blob::new([7]).unwrap(),
            }
            .encode(),
        ),
        ("auth.AuthParams", auth.encode()),
        (
            "bank.Balances",
            Balances {
                balances,
                next: Blob::new([7]).unwrap(),
            }
            .encode(),
        ),
        (
            "bank.BankParams",
            BankParams {
                faucet_limit: AMOUNT,
            }
            .encode(),
        ),
        ("beacon.MsgReveal", reveal.encode()),
        ("beacon.MsgReveal with a next chain", last_reveal.encode()),
        ("beacon.Chain", chain.encode()),
        (
            "beacon.Mixes",
            Mixes {
                mixes: list(vec![Mix {
                    height: 3,
                    mix: Hash::of(b"mix"),
                }]),
            }
            .encode(),
        ),
        ("query.PageRequest", page.encode()),
    ]
}

fn node_records() -> Vec<(&'static str, Vec<u8>)> {
    let me = key().address();
    let node = Node {
        address: me,
        spec: node_spec(),
        status: NodeStatus::Jailed,
        bonded: AMOUNT,
        locked: AMOUNT,
        locks: 2,
        disputes: 1,
        unbonding: list(vec![Unbonding {
            amount: AMOUNT,
            started_at: TIME,
            release_at: TIME,
        }]),
        registered_at: TIME,
        jailed_until: TIME,
        jail_reason: text("forged step"),
    };
    let slash = Slash {
        id: 7,
        node: me,
        amount: AMOUNT,
        reason: text("forged step"),
        status: SlashStatus::Appealed,
        at: TIME,
        final_at: TIME,
        statement: text("no"),
    };
    let params = NodesParams {
        minimum_stakes: list(vec![RoleStake {
            role: Role::Miner,
            minimum: AMOUNT,
        }]),
        unbonding: SPAN,
        appeal_window: SPAN,
        jail: SPAN,
        max_block_validators: 100,
        double_sign_slash: Ppm::percent(5),
    };
    vec![
        ("nodes.Node", node.encode()),
        (
            "nodes.Lock",
            Lock {
                amount: AMOUNT,
                since: TIME,
            }
            .encode(),
        ),
        ("nodes.Slash", slash.encode()),
        ("nodes.NodesParams", params.encode()),
    ]
}

fn escrow_records() -> Vec<(&'static str, Vec<u8>)> {
    let escrow = Escrow {
        id: 7,
        payer: key().address(),
        gateway: other(),
        user: text("alice"),
        deposit: AMOUNT,
        charged: Amount::new(5),
        expires_at: TIME,
        voucher_key: Some(key().public_key()),
        totals: list(vec![total()]),
    };
    vec![
        ("escrow.Escrow", escrow.encode()),
        ("escrow.VoucherContent", voucher_content().encode()),
    ]
}

fn asset_records() -> Vec<(&'static str, Vec<u8>)> {
    let model = Model {
        spec: model_spec(),
        registered_at: TIME,
        versions: 3,
    };
    let version = Version {
        model: Hash::of(b"model"),
        number: 3,
        run: 1,
        round: 2,
        adapter: Cid::raw(b"adapter"),
        adapter_hash: Hash::of(b"adapter"),
        registered_at: TIME,
    };
    let spec = dataset_spec();
    let dataset = Dataset {
        id: 1,
        content: Hash::of(b"content"),
        name: spec.name,
        licence: spec.licence,
        source: spec.source,
        tokenizer_hash: spec.tokenizer_hash,
        shards: 2,
        tokens: 600,
        held_out: spec.held_out,
        proposer: other(),
        status: DatasetStatus::Adopted,
        voting_ends_at: TIME,
    };
    let proposal = Proposal {
        id: 7,
        content: Hash::of(b"content"),
        proposer: other(),
        title: text("a change"),
        change: change(),
        status: ProposalStatus::Open,
        voting_ends_at: TIME,
    };
    let governance = GovernanceParams {
        authority: Some(other()),
        voting: SPAN,
        threshold: Ppm::percent(67),
    };
    vec![
        ("models.Model", model.encode()),
        ("models.Version", version.encode()),
        ("data.Dataset", dataset.encode()),
        ("data.DataParams", DataParams { voting: SPAN }.encode()),
        ("governance.Proposal", proposal.encode()),
        ("governance.GovernanceParams", governance.encode()),
        (
            "rewards.RewardsParams",
            RewardsParams {
                max_supply: AMOUNT,
                vesting: SPAN,
            }
            .encode(),
        ),
        (
            "rewards.Vesting",
            Vesting {
                address: other(),
                total: AMOUNT,
                parts: list(vec![VestingPart {
                    due: TIME,
                    amount: AMOUNT,
                }]),
            }
            .encode(),
        ),
    ]
}
