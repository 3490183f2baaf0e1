//! What is said of a home that does not fit, before anything runs in it.

use std::fs;

use crate::homes::{Home, complaint, json};

#[test]
fn a_home_that_does_not_fit_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::found(folder.path().join("home"));
    let file = home.dir.join("config.yaml");
    let good = fs::read_to_string(&file).unwrap();
    let other = good.replace("chain_id: chains-1", "chain_id: chains-2");
    for (text, said) in [
        (other.as_str(), "write chains-1 there"),
        ("", "there is nothing to run"),
        (
            "services:\n  gateway:\n    listen: localhost:8000\n",
            "line 3",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let refused = complaint(&home.dir, &["start"]);
        assert!(refused.contains(said), "{refused}");
        assert!(refused.contains("config.yaml"), "{refused}");
    }
    fs::write(&file, &good).unwrap();

    // A process whose supervisor ended while it began does not run on alone.
    let left = complaint(&home.dir, &["run", "ledger", "--supervisor", "1"]);
    assert!(left.contains("has ended"), "{left}");

    // Keys are not replaced, and a file that is lost is told from a home that never was.
    fs::remove_file(&file).unwrap();
    let lost = complaint(&home.dir, &["start"]);
    assert!(lost.contains("put the file back"), "{lost}");
    let again = complaint(&home.dir, &["init"]);
    assert!(again.contains("not replaced"), "{again}");
    let nowhere = json(&folder.path().join("nowhere"), &["status"]);
    assert_eq!(nowhere["initialised"], false, "{nowhere}");
}
