//! Instructions of the kernels, counted by valgrind: they are the same on a busy machine.

use std::fmt;
use std::io;
use std::process::Command;

use r3mes_exact::Isa;

use crate::case::{Case, Kernel};
use crate::measure::Work;

/// The word by which this program, under valgrind, is told to call a product.
const CALL: &str = "call";

/// Products that are counted: a wide enough layer of each kind, and a head.
const CASES: [Case; 9] = [
    case(Kernel::TernaryForward, (768, 768), 1),
    case(Kernel::TernaryForward, (768, 768), 8),
    case(Kernel::TernaryForward, (768, 768), 128),
    case(Kernel::TernaryForward, (768, 2560), 128),
    case(Kernel::TernaryBackward, (768, 768), 128),
    case(Kernel::Int8Forward, (2048, 288), 1),
    case(Kernel::Int8Forward, (2048, 288), 8),
    case(Kernel::Int8Forward, (2048, 288), 128),
    case(Kernel::Int8Backward(2), (288, 2048), 128),
];

const fn case(kernel: Kernel, shape: (usize, usize), rows: usize) -> Case {
    Case {
        kernel,
        shape,
        rows,
    }
}

/// Why instructions could not be counted.
#[derive(Debug)]
pub(crate) enum CountError {
    /// Valgrind stops at the instructions of this back end.
    Unknown(Isa),
    /// Valgrind could not be started.
    Start(io::Error),
    /// Valgrind failed, or gave no count.
    Failed(String),
}

impl fmt::Display for CountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(isa) => write!(
                f,
                "valgrind does not know the instructions of {isa}: give `avx2` or `scalar` too"
            ),
            Self::Start(error) if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "valgrind is not installed, and counts the instructions")
            }
            Self::Start(error) => write!(f, "valgrind does not start: {error}"),
            Self::Failed(said) => write!(f, "valgrind gave no count:\n{said}"),
        }
    }
}

/// A product to call under valgrind.
pub(crate) struct Counted {
    work: Work<'static>,
    calls: usize,
}

impl Counted {
    pub(crate) fn call(mut self) {
        for _ in 0..self.calls {
            (self.work)();
        }
    }
}

/// What the arguments `call ISA INDEX CALLS` ask for.
pub(crate) fn requested(arguments: &[String]) -> Option<Counted> {
    let [word, isa, index, calls] = arguments else {
        return None;
    };
    if word != CALL {
        return None;
    }
    let index: usize = index.parse().ok()?;
    Some(Counted {
        work: CASES.get(index)?.work(isa.parse().ok()?),
        calls: calls.parse().ok()?,
    })
}

/// Prints the table of the back end given, or of the best that valgrind knows.
///
/// # Errors
/// Where valgrind is missing, fails, or does not know the instructions.
pub(crate) fn table(named: Option<Isa>) -> Result<(), CountError> {
    let known = |isa: &Isa| !matches!(isa, Isa::Avx512 | Isa::Amx);
    let best = Isa::available().into_iter().rfind(known);
    let isa = named.or(best).unwrap_or(Isa::Scalar);
    if !known(&isa) {
        return Err(CountError::Unknown(isa));
    }
    println!("Kernels: {isa}, instructions counted by valgrind.");
    println!();
    println!("| product | shape | N | instructions for 1,000 MAC |");
    println!("|---|---|---:|---:|");
    for (index, case) in CASES.iter().enumerate() {
        // What comes before the calls is in both counts.
        let one = instructions(isa, index, 1)?;
        let three = instructions(isa, index, 3)?;
        let each = three.saturating_sub(one) as f64 / 2.0;
        let (name, (outputs, inputs), rows) = (case.name(), case.shape, case.rows);
        println!(
            "| {name} | {outputs}x{inputs} | {rows} | {:.1} |",
            1e3 * each / case.macs()
        );
    }
    Ok(())
}

/// Instructions of this program when it makes some calls.
fn instructions(isa: Isa, index: usize, calls: usize) -> Result<u64, CountError> {
    let program = std::env::current_exe().map_err(CountError::Start)?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([
            CALL,
            &isa.to_string(),
            &index.to_string(),
            &calls.to_string(),
        ])
        .output()
        .map_err(CountError::Start)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let counted = said.lines().find_map(|line| line.split_once("Collected :"));
    let count = counted.and_then(|(_, count)| count.trim().parse().ok());
    count
        .filter(|_| output.status.success())
        .ok_or(CountError::Failed(said))
}
