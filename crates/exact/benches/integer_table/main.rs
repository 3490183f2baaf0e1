//! Integer kernels against the machine's limits and the prototype, as a Markdown table.
//!
//! `cargo bench -p r3mes-exact --bench integer_table [-- scalar|avx2|avx512|amx|neon]`. One thread.
//! With `counts` besides: how many instructions they take, by valgrind.

#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "the prototype, and the processor's instructions alone"
    )
)]

mod case;
mod counts;
mod measure;
mod peak;
mod reference;

use std::hint::black_box;

use case::{Case, Kernel, Numbers};
use measure::{Work, seconds};
use peak::Peak;
use r3mes_exact::{Codes, Isa, Tile, int8, panels::padded, ternary};

/// Shapes of linear layers, outputs x inputs: the demo model's, and BitNet 2B-4T's.
const LINEARS: [(usize, usize); 6] = [
    (288, 288),
    (768, 288),
    (288, 768),
    (768, 768),
    (2560, 2560),
    (6912, 2560),
];

/// The demo model's head, and its transpose.
const HEAD: (usize, usize) = (32_000, 288);

/// Bytes that no cache holds.
const STREAM: usize = 256 << 20;

/// Rows of activations in a product of matrices.
const TOKENS: usize = 128;

/// Rows of activations when several answers are generated at once.
const ANSWERS: usize = 8;

fn main() {
    let arguments = std::env::args().skip(1);
    let arguments: Vec<String> = arguments.filter(|word| !word.starts_with('-')).collect();
    if let Some(counted) = counts::requested(&arguments) {
        return counted.call();
    }
    let (counts, names): (Vec<_>, Vec<_>) = arguments.iter().partition(|word| *word == "counts");
    let named = names.first().map(|name| name.parse().expect("a back end"));
    let isa = Isa::choose(named).expect("a back end of this machine");
    if counts.is_empty() {
        table(isa);
    } else if let Err(error) = counts::table(named) {
        eprintln!("integer_table: {error}");
        std::process::exit(1);
    }
}

/// All products of the table.
fn cases() -> Vec<Case> {
    let case = |kernel, shape, rows| Case {
        kernel,
        shape,
        rows,
    };
    let mut cases = Vec::new();
    for shape in LINEARS {
        for rows in [1, ANSWERS, TOKENS] {
            cases.push(case(Kernel::TernaryForward, shape, rows));
        }
        cases.push(case(Kernel::TernaryBackward, shape, TOKENS));
    }
    for rows in [1, ANSWERS, TOKENS] {
        cases.push(case(Kernel::Int8Forward, HEAD, rows));
    }
    for wide in [0, 2, 1000] {
        cases.push(case(Kernel::Int8Backward(wide), (HEAD.1, HEAD.0), TOKENS));
    }
    cases
}

fn table(isa: Isa) {
    let peak = peak::peak(isa);
    println!("Kernels: {isa}, one thread.");
    if let Some(Peak { instruction, rate }) = &peak {
        println!("Peak of `{instruction}`: {rate:.0} GMAC/s.");
    }
    println!();
    println!("| product | shape | N | GMAC/s | of peak | prototype | ratio |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    for case in cases() {
        line(isa, peak.as_ref(), &case);
    }
    println!();
    streams(isa);
}

fn line(isa: Isa, peak: Option<&Peak>, case: &Case) {
    let prototype = if isa > Isa::Scalar {
        case.prototype()
    } else {
        None
    };
    let mut work: Vec<Work<'_>> = vec![case.work(isa)];
    work.extend(prototype);
    let rates: Vec<f64> = seconds(&mut work)
        .iter()
        .map(|time| case.macs() / time / 1e9)
        .collect();
    let share = peak.map_or("-".into(), |peak| {
        format!("{:.0}%", 100.0 * rates[0] / peak.rate)
    });
    let (prototype, ratio) = rates.get(1).map_or(("-".into(), "-".into()), |rate| {
        (format!("{rate:.0}"), format!("{:.2}", rates[0] / rate))
    });
    let (name, (outputs, inputs), rows, rate) = (case.name(), case.shape, case.rows, rates[0]);
    println!(
        "| {name} | {outputs}x{inputs} | {rows} | {rate:.0} | {share} | {prototype} | {ratio} |"
    );
}

/// Products with one row of codes by many matrices that no cache holds, each in turns with a plain
/// read of as much memory.
fn streams(isa: Isa) {
    println!("| streamed from memory, N = 1 | GMAC/s | GB/s | plain read, GB/s | share |");
    println!("|---|---:|---:|---:|---:|");
    let memory = vec![0x55u8; STREAM];
    let line = |name: &str, (rows, cols): (usize, usize), len: usize, work: Work<'_>| {
        let mut work = [
            work,
            peak::read_in_order(&memory),
            peak::read_in_turns(&memory),
        ];
        let times = seconds(&mut work);
        let (matrices, plain) = ((STREAM / len) as f64, times[1].min(times[2]));
        let macs = matrices * (rows * cols) as f64 / times[0] / 1e9;
        let read = matrices * len as f64 / times[0] / 1e9;
        let plain = STREAM as f64 / plain / 1e9;
        let share = 100.0 * read / plain;
        println!("| {name} {rows}x{cols} | {macs:.1} | {read:.1} | {plain:.1} | {share:.0}% |");
    };
    for (rows, cols) in LINEARS {
        let len = ternary::packed_len(rows, cols);
        let codes = Numbers(2).codes(padded(cols));
        let mut y = vec![0.0; rows];
        let memory = &memory;
        let ours = Box::new(move || {
            for bytes in memory.chunks_exact(len) {
                let (w, x) = (ternary::Panels::trusted(bytes, rows, cols), row(&codes));
                ternary::forward(isa, w, 0..w.panels(), x, 0.02, Tile::new(&mut y, 1, rows));
            }
        });
        line("ternary", (rows, cols), len, ours);
    }

    let (rows, cols) = HEAD;
    let len = int8::packed_len(rows, cols);
    let codes = Numbers(2).codes(padded(cols));
    let (row_scales, mut y) = (vec![0.01; rows], vec![0.0; rows]);
    let ours = Box::new(|| {
        for bytes in memory.chunks_exact(len) {
            let (w, x) = (int8::Panels::trusted(bytes, rows, cols), row(&codes));
            int8::forward(
                isa,
                w,
                0..w.panels(),
                x,
                &row_scales,
                Tile::new(&mut y, 1, rows),
            );
        }
    });
    line("int8", HEAD, len, ours);

    #[cfg(target_arch = "x86_64")]
    if isa > Isa::Scalar {
        // As many rows as fill the memory: the prototype's matrix owns its bytes.
        let (rows, cols) = (STREAM / 2560 * 4, 2560);
        let matrix = reference::Matrix::new(&vec![0; rows * cols], rows, cols);
        let x = reference::Rows::new(&Numbers(2).codes(cols), cols);
        let mut out = vec![0; rows];
        let len = matrix.len();
        let prototype = Box::new(move || matrix.product(black_box(&x), &mut out));
        line("prototype", (rows, cols), len, prototype);
    }
}

/// One row of codes.
fn row(codes: &[i8]) -> Codes<'_> {
    Codes {
        codes,
        stride: codes.len(),
        sums: &[0],
        scales: &[0.01],
        rows: 1,
    }
}
