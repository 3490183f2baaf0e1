//! What the lints cannot see in the sources of the arithmetic (rule 8 of docs/spec/exact.md).

use std::fs;
use std::path::{Path, PathBuf};

/// Parts of intrinsics' names that round differently from the single operations they stand for:
/// fused multiply-add and estimates.
const BANNED: [&str; 9] = [
    "fmadd", "fmsub", "fnmadd", "fnmsub", "rcp14", "rcp_ps", "rsqrt", "vfma", "vrecp",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines before the tests of every source file of some crates, with their places.
fn lines(crates: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for name in crates {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        sources(&beside.join(name).join("src"), &mut files);
    }
    let mut lines = Vec::new();
    for file in files {
        if file.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        let code = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        for (i, line) in code.lines().enumerate() {
            lines.push((format!("{}:{}", file.display(), i + 1), line.to_owned()));
        }
    }
    assert!(lines.len() > 1000, "the sources were not found");
    lines
}

#[test]
fn no_intrinsic_fuses_or_estimates() {
    for (place, line) in lines(&["exact"]) {
        for name in BANNED {
            assert!(!line.contains(name), "{place}: {name}");
        }
    }
}

/// Whether a line folds an iterator with an operator whose result depends on the order, or on the
/// zero that it starts from, when the numbers are floats.
fn folds(line: &str) -> bool {
    [".sum()", ".sum::<", ".product()", ".product::<"]
        .iter()
        .any(|call| line.contains(call))
}

#[test]
fn iterators_sum_integers_only() {
    // `.sum()` on f32 starts at -0.0. A sum names its integer type, or the line does.
    let integers = ["usize", "i32", "i64", "u64", "u128"];
    for (place, line) in lines(&["exact", "model", "training"]) {
        if folds(&line) {
            let named = integers.iter().any(|integer| line.contains(integer));
            let floats = ["f32", "f64"].iter().any(|float| line.contains(float));
            assert!(named && !floats, "{place}: {line}");
        }
    }
}
