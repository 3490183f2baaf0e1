use std::path::Path;

/// The prefixes of all tables, as they stand in the source.
#[expect(
    clippy::disallowed_methods,
    reason = "the test reads the ledger's sources"
)]
fn prefixes(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            prefixes(&path, found);
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        for constructor in ["Map::new(", "Item::new("] {
            for rest in source.split(constructor).skip(1) {
                if let Some(literal) = rest.trim_start().strip_prefix('"') {
                    found.push(literal.split('"').next().unwrap().to_owned());
                }
            }
        }
    }
}

#[test]
fn no_table_lies_within_another() {
    let mut found = Vec::new();
    prefixes(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    assert!(found.len() > 40, "only {} tables were found", found.len());
    found.sort();
    for pair in found.windows(2) {
        assert!(
            !pair[1].starts_with(&pair[0]),
            "{} and {}",
            pair[0],
            pair[1]
        );
    }
    for prefix in found {
        assert!(prefix.contains('/'), "{prefix} names no domain");
    }
}
