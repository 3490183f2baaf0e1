//! Integer kernels against the machine's limits and the prototype, as a Markdown table.
//!
//! `cargo bench -p r3mes-exact --bench integer_table [-- scalar|avx2|avx512|amx|neon]`. One thread.

mod measure;
mod peak;
mod reference;

use std::hint::black_box;

use measure::{Work, seconds};
use peak::Peak;
use r3mes_exact::{Codes, Isa, Tile, WideCodes, Write, int8, panels::padded, ternary};

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

fn main() {
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let isa = wanted.map(|name| name.parse().expect("a back end"));
    let isa = Isa::choose(isa).expect("a back end of this machine");
    let peak = peak::peak(isa);
    println!("Kernels: {isa}, one thread.");
    if let Some(Peak { instruction, rate }) = &peak {
        println!("Peak of `{instruction}`: {rate:.0} GMAC/s.");
    }
    println!();
    println!("| product | shape | N | GMAC/s | of peak | prototype | ratio |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    for shape in LINEARS {
        for tokens in [1, TOKENS] {
            ternary_forward(isa, peak.as_ref(), shape, tokens);
        }
        ternary_backward(isa, peak.as_ref(), shape);
    }
    for tokens in [1, TOKENS] {
        int8_forward(isa, peak.as_ref(), tokens);
    }
    for occupied in [0.0, 0.002, 1.0] {
        int8_backward(isa, peak.as_ref(), occupied);
    }
    println!();
    streams(isa);
}

/// One line of the table; `times` are ours and, if there is one, the prototype's.
fn line(
    name: &str,
    (rows, cols): (usize, usize),
    tokens: usize,
    peak: Option<&Peak>,
    times: &[f64],
) {
    let rates: Vec<f64> = times
        .iter()
        .map(|time| (rows * cols * tokens) as f64 / time / 1e9)
        .collect();
    let share = peak.map_or("-".into(), |peak| {
        format!("{:.0}%", 100.0 * rates[0] / peak.rate)
    });
    let (prototype, ratio) = rates.get(1).map_or(("-".into(), "-".into()), |rate| {
        (format!("{rate:.0}"), format!("{:.2}", rates[0] / rate))
    });
    let rate = rates[0];
    println!("| {name} | {rows}x{cols} | {tokens} | {rate:.0} | {share} | {prototype} | {ratio} |");
}

fn ternary_forward(isa: Isa, peak: Option<&Peak>, shape: (usize, usize), tokens: usize) {
    let (rows, cols) = shape;
    let weights = Numbers(1).ternary(rows * cols);
    let codes = Numbers(2).codes(tokens * cols);
    let bytes = ternary::pack(&weights, rows, cols).expect("weights are ternary");
    let w = ternary::Panels::new(&bytes, rows, cols).expect("just packed");
    let (sums, scales) = (vec![0; tokens], vec![0.01; tokens]);
    let x = Codes {
        codes: &codes,
        stride: padded(cols),
        sums: &sums,
        scales: &scales,
        rows: tokens,
    };
    let mut y = vec![0.0; tokens * rows];
    let ours: Work<'_> = Box::new(move || {
        let y = Tile::new(&mut y, tokens, rows);
        ternary::forward(isa, black_box(w), 0..w.panels(), x, 0.02, y);
    });
    let name = if tokens == 1 {
        "ternary GEMV"
    } else {
        "ternary GEMM"
    };
    #[cfg(target_arch = "x86_64")]
    if isa > Isa::Scalar {
        let matrix = reference::Matrix::new(&weights, rows, cols);
        let x = reference::Rows::new(&codes, cols);
        let mut out = vec![0; tokens * rows];
        let prototype: Work<'_> = Box::new(move || matrix.product(black_box(&x), &mut out));
        line(name, shape, tokens, peak, &seconds(&mut [ours, prototype]));
        return;
    }
    line(name, shape, tokens, peak, &seconds(&mut [ours]));
}

fn ternary_backward(isa: Isa, peak: Option<&Peak>, (rows, cols): (usize, usize)) {
    let weights = Numbers(1).ternary(rows * cols);
    let bytes = ternary::pack(&weights, rows, cols).expect("weights are ternary");
    let wt = ternary::transpose(ternary::Panels::new(&bytes, rows, cols).expect("just packed"));
    let wt = ternary::Panels::new(&wt, cols, rows).expect("just packed");
    let low: Vec<i16> = Numbers(2)
        .codes(TOKENS * rows)
        .into_iter()
        .map(|x| i16::from(x) * 255)
        .collect();
    let scales = vec![0.01; TOKENS];
    let g = WideCodes {
        low: &low,
        high: &[],
        stride: padded(rows),
        scales: &scales,
        rows: TOKENS,
    };
    let mut dx = vec![0.0; TOKENS * cols];
    let ours: Work<'_> = Box::new(move || {
        let dx = Tile::new(&mut dx, TOKENS, cols);
        ternary::backward(
            isa,
            black_box(wt),
            0..wt.panels(),
            g,
            0.02,
            Write::Replace,
            dx,
        );
    });
    line(
        "ternary backward",
        (rows, cols),
        TOKENS,
        peak,
        &seconds(&mut [ours]),
    );
}

fn int8_forward(isa: Isa, peak: Option<&Peak>, tokens: usize) {
    let (rows, cols) = HEAD;
    let bytes = int8::pack(&Numbers(1).codes(rows * cols), rows, cols).expect("no -128");
    let w = int8::Panels::new(&bytes, rows, cols).expect("just packed");
    let codes = Numbers(2).codes(tokens * cols);
    let (sums, scales, row_scales) = (vec![0; tokens], vec![0.01; tokens], vec![0.01; rows]);
    let x = Codes {
        codes: &codes,
        stride: padded(cols),
        sums: &sums,
        scales: &scales,
        rows: tokens,
    };
    let mut y = vec![0.0; tokens * rows];
    let ours: Work<'_> = Box::new(move || {
        let y = Tile::new(&mut y, tokens, rows);
        int8::forward(isa, black_box(w), 0..w.panels(), x, &row_scales, y);
    });
    let name = if tokens == 1 {
        "int8 GEMV"
    } else {
        "int8 GEMM"
    };
    line(name, HEAD, tokens, peak, &seconds(&mut [ours]));
}

/// The head's gradient; `occupied` is the share of codes with upper parts.
fn int8_backward(isa: Isa, peak: Option<&Peak>, occupied: f64) {
    let (rows, cols) = HEAD;
    let bytes = int8::pack(&Numbers(1).codes(rows * cols), cols, rows).expect("no -128");
    let wt = int8::Panels::new(&bytes, cols, rows).expect("just packed");
    let mut numbers = Numbers(2);
    let low: Vec<i16> = numbers
        .codes(TOKENS * rows)
        .into_iter()
        .map(|x| i16::from(x) * 255)
        .collect();
    let high = |_| {
        if (numbers.next() % 100_000) as f64 <= occupied * 1e5 {
            9
        } else {
            0
        }
    };
    let high: Vec<i8> = (0..TOKENS * rows).map(high).collect();
    let scales = vec![0.01; TOKENS];
    let g = WideCodes {
        low: &low,
        high: &high,
        stride: padded(rows),
        scales: &scales,
        rows: TOKENS,
    };
    let mut dx = vec![0.0; TOKENS * cols];
    let ours: Work<'_> = Box::new(move || {
        let dx = Tile::new(&mut dx, TOKENS, cols);
        int8::backward(isa, black_box(wt), 0..wt.panels(), g, Write::Replace, dx);
    });
    let name = format!("int8 backward, {:.1}% of codes wide", 100.0 * occupied);
    line(&name, (cols, rows), TOKENS, peak, &seconds(&mut [ours]));
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

/// Xorshift: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn ternary(&mut self, len: usize) -> Vec<i8> {
        (0..len).map(|_| (self.next() % 3) as i8 - 1).collect()
    }

    fn codes(&mut self, len: usize) -> Vec<i8> {
        (0..len)
            .map(|_| (self.next() % 255) as u8 as i8)
            .map(|x| x.max(-127))
            .collect()
    }
}
