//! What a block costs, and how large the state is: `cargo bench -p r3mes-consensus --bench blocks
//! [-- --quick]`.
//!
//! Blocks go through the [`Application`] that every engine drives, over a database in `TMPDIR`. Nodes are
//! registered by messages, each from an account of its own. A block's time is the thread's processor time,
//! which other programs change little, for examining, executing and committing it, as on every validator;
//! its transactions were checked before on their way into the mempool, unless something else is said. The
//! least of some blocks.

use std::time::Duration;

use r3mes_types::bank::MsgSend;
use r3mes_types::nodes::{MsgRegister, NodeSpec};
use r3mes_types::wire::Text;
use r3mes_types::{Amount, Message, Resources, Role, RoleSet};

mod chain;

use chain::{Account, Chain, Failure};

/// Blocks of each kind.
const TURNS: usize = 9;
/// Transfers of a block where something else varies.
const TRANSFERS: usize = 1_000;
/// Messages of a block where they vary.
const MESSAGES: [usize; 6] = [125, 250, 500, 1_000, 2_000, 4_000];
/// Accounts that send transfers: as many as messages, so that each has entries of its own to change.
const SENDERS: usize = 4_000;
/// Numbers of registered nodes.
const NODES: [usize; 3] = [1_000, 10_000, 100_000];
const FEWER_NODES: [usize; 2] = [1_000, 10_000];
/// Blocks after which the versions of the state with the registrations are gone: each block removes the one
/// of as many blocks before.
const SETTLING: usize = 128;
/// Most registrations of a block, and of accounts that one transaction funds.
const REGISTRATIONS: usize = 2_000;
const FUNDED: usize = 32;

fn main() -> Result<(), Failure> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let mut chain = Chain::new()?;
    let mut senders = accounts(&mut chain, SENDERS)?;
    by_messages(&mut chain, &mut senders)?;
    println!();
    let numbers = if quick { &FEWER_NODES[..] } else { &NODES[..] };
    by_nodes(&mut chain, &mut senders, numbers)
}

/// Block time against the number of messages, one transfer in each transaction.
fn by_messages(chain: &mut Chain, senders: &mut [Account]) -> Result<(), Failure> {
    println!("| messages | block, ms | µs a message |");
    println!("|---:|---:|---:|");
    let mut points = Vec::new();
    for count in MESSAGES {
        let time = least(|| {
            let txs = transfers(chain, senders, count)?;
            chain.check(&txs)?;
            chain.block(txs)
        })?;
        let micros = time.as_secs_f64() * 1e6;
        println!(
            "| {count} | {:.1} | {:.1} |",
            micros / 1e3,
            micros / count as f64
        );
        points.push((count as f64, micros));
    }
    let (slope, start) = line(&points);
    let off = points
        .iter()
        .map(|(x, y)| (y - start - slope * x).abs() / y);
    println!(
        "\nThe line through these: {:.1} ms and {slope:.1} µs a message; no point is off it by more than {:.0}%.",
        start / 1e3,
        100.0 * off.fold(0.0, f64::max)
    );
    Ok(())
}

/// Block time and size of the state against the number of registered nodes.
fn by_nodes(chain: &mut Chain, senders: &mut [Account], numbers: &[usize]) -> Result<(), Failure> {
    println!(
        "| nodes | empty block, ms | {TRANSFERS} transfers, ms | unchecked before, ms | keys | keys and values, MB | file, MB |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    let mut registered = 0;
    for &count in numbers {
        register(chain, count - registered)?;
        registered = count;
        for _ in 0..SETTLING {
            chain.block(Vec::new())?;
        }
        let empty = least(|| chain.block(Vec::new()))?;
        let checked = least(|| {
            let txs = transfers(chain, senders, TRANSFERS)?;
            chain.check(&txs)?;
            chain.block(txs)
        })?;
        let unchecked = least(|| {
            let txs = transfers(chain, senders, TRANSFERS)?;
            chain.block(txs)
        })?;
        let size = chain.size()?;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "| {count} | {:.2} | {:.1} | {:.1} | {} | {:.1} | {:.1} |",
            ms(empty),
            ms(checked),
            ms(unchecked),
            size.keys,
            size.bytes as f64 / 1e6,
            size.file as f64 / 1e6
        );
    }
    Ok(())
}

/// The least time of some blocks.
fn least(mut block: impl FnMut() -> Result<Duration, Failure>) -> Result<Duration, Failure> {
    let mut least = Duration::MAX;
    for _ in 0..TURNS {
        least = least.min(block()?);
    }
    Ok(least)
}

/// Slope and start of the line with the least squares, each point weighed by its own size.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        points.iter().map(|&(x, y)| of(x, y) / (y * y)).sum()
    };
    let (n, x, y) = (sum(&|_, _| 1.0), sum(&|x, _| x), sum(&|_, y| y));
    let (xx, xy) = (sum(&|x, _| x * x), sum(&|x, y| x * y));
    let slope = (n * xy - x * y) / (n * xx - x * x);
    (slope, (y - slope * x) / n)
}

/// Transfers from sender to sender.
fn transfers(
    chain: &Chain,
    senders: &mut [Account],
    count: usize,
) -> Result<Vec<Vec<u8>>, Failure> {
    let mut txs = Vec::with_capacity(count);
    for number in 0..count {
        let to = senders[(number + 1) % SENDERS].address();
        let from = &mut senders[number % SENDERS];
        let send = MsgSend::new(from.address(), to, Amount::new(1));
        txs.push(chain.sign(from, vec![send.into()])?);
    }
    Ok(txs)
}

/// New accounts with something to spend.
fn accounts(chain: &mut Chain, count: usize) -> Result<Vec<Account>, Failure> {
    let mut fresh = chain.fresh(count)?;
    for block in fresh.chunks(REGISTRATIONS) {
        let mut txs = Vec::new();
        for part in block.chunks(FUNDED) {
            let rich = chain.rich_address();
            let sends = part.iter().map(|account| -> Message {
                MsgSend::new(rich, account.address(), Amount::remes(10)).into()
            });
            let sends = sends.collect();
            txs.push(chain.sign_rich(sends)?);
        }
        chain.block(txs)?;
    }
    chain.number(&mut fresh)?;
    Ok(fresh)
}

fn register(chain: &mut Chain, count: usize) -> Result<(), Failure> {
    let mut owners = accounts(chain, count)?;
    for block in owners.chunks_mut(REGISTRATIONS) {
        let mut txs = Vec::new();
        for owner in block {
            let spec = NodeSpec {
                moniker: Text::new("a node")?,
                roles: RoleSet::of(&[Role::Miner]),
                primary_role: None,
                stake: Amount::remes(1),
                resources: Resources::default(),
                allocations: Default::default(),
                endpoints: Default::default(),
                consensus_key: None,
            };
            let address = owner.address();
            txs.push(chain.sign(owner, vec![MsgRegister { address, spec }.into()])?);
        }
        chain.block(txs)?;
    }
    Ok(())
}
