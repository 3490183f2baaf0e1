//! What a node far away can be made to prove: blocks, balances and participants, from its RPC and from
//! files, and that a file with anything changed in it is refused.

use std::fs;

use serde_json::Value;

use super::homes::{Home, complaint, json};

/// Every place in a document where a value stands.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                leaves(field, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                leaves(value, &format!("{at}/{index}"), found);
            }
        }
        _ => found.push(at.to_owned()),
    }
}

/// Another value of the same kind: a digit or letter in the middle changed.
fn flipped(value: &Value) -> Value {
    match value {
        Value::Bool(truth) => Value::Bool(!truth),
        Value::Number(number) => Value::from(number.as_i64().unwrap() + 1),
        Value::String(text) if text.is_empty() => Value::from("AAAA"),
        Value::String(text) => {
            let mut letters: Vec<char> = text.chars().collect();
            let middle = letters.len() / 2;
            let at = (middle..letters.len())
                .find(|at| letters[*at].is_ascii_alphanumeric())
                .unwrap();
            letters[at] = if letters[at] == '1' { '2' } else { '1' };
            Value::String(letters.into_iter().collect())
        }
        _ => Value::from(1),
    }
}

#[test]
fn what_a_node_proves_is_verified_from_it_and_from_files_and_no_changed_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let founder = Home::found(folder.path().join("founder"));
    let running = founder.start();
    let address = json(&founder.dir, &["keys", "show"])["account"].clone();
    let address = address.as_str().unwrap();
    let other = "remes1r5v5srda7xfth3hn2s26txvrcrntldjuy5u8da";
    json(&founder.dir, &["tx", "send", other, "5uremes"]);

    // Somebody who joins believes nothing that is not proved.
    let joined = folder.path().join("joined");
    // A try that failed leaves no keys that the next one would refuse to replace.
    let nobody = complaint(&joined, &["init", "--join", "http://127.0.0.1:1"]);
    assert!(nobody.contains("cannot take the genesis"), "{nobody}");
    let long = "a".repeat(60);
    let refused = complaint(&joined, &["init", "--chain-id", &long]);
    assert!(refused.contains("--chain-id"), "{refused}");
    json(&joined, &["init", "--join", &founder.rpc]);
    let config = fs::read_to_string(joined.join("config.yaml")).unwrap();
    assert!(config.contains("light:"), "{config}");
    let account = json(&joined, &["query", "account", other]);
    assert_eq!(account["balance"]["amount"], 5, "{account}");

    let file = |name: &str| folder.path().join(name).display().to_string();
    let saved = [
        ("block", vec!["block", "1"]),
        ("balance", vec!["balance", other]),
        ("participants", vec!["participants"]),
    ];
    for (name, what) in &saved {
        let path = file(name);
        let online = [&["verify"], &what[..], &["--save", &path]].concat();
        let found = json(&joined, &online);
        assert_eq!(found["signed_power"], found["total_power"], "{found}");
        match *name {
            "block" => assert_eq!(found["transactions"].as_array().unwrap().len(), 2),
            "balance" => assert_eq!(found["uremes"], 5, "{found}"),
            _ => assert_eq!(found["validators"].as_array().unwrap().len(), 1),
        }
    }
    let header = json(&joined, &["verify", "block", "1"]);
    let newest = json(&joined, &["verify", "block"]);
    let trust = format!("{}:{}", newest["height"], newest["hash"].as_str().unwrap());
    // By a header that is named, from anywhere.
    let nowhere = folder.path().join("nowhere");
    let asked = [
        "verify",
        "block",
        "--chain",
        &founder.rpc,
        "--trust",
        &trust,
    ];
    assert_eq!(json(&nowhere, &asked)["hash"], newest["hash"]);
    let first = [
        "verify",
        "block",
        "1",
        "--chain",
        &founder.rpc,
        "--trust",
        &trust,
    ];
    assert_eq!(json(&nowhere, &first)["hash"], header["hash"]);
    let refused = complaint(&nowhere, &["verify", "block", "--chain", &founder.rpc]);
    assert!(refused.contains("--trust"), "{refused}");
    let later = file("later");
    let first = format!("1:{}", header["hash"].as_str().unwrap());
    let by_first = ["verify", "block", "--trust", &first];
    let saving = [&by_first[..], &["--chain", &founder.rpc, "--save", &later]].concat();
    json(&nowhere, &saving);
    drop(running);

    // Nobody is there to ask any more.
    for (name, what) in &saved {
        let path = file(name);
        let offline = [&["verify"], &what[..], &["--file", &path]].concat();
        json(&joined, &offline);
        let document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let mut places = Vec::new();
        leaves(&document, "", &mut places);
        assert!(places.len() > 20, "{places:?}");
        for place in places {
            let mut changed = document.clone();
            let value = changed.pointer_mut(&place).unwrap();
            *value = flipped(value);
            fs::write(&path, serde_json::to_vec(&changed).unwrap()).unwrap();
            let refused = complaint(&joined, &offline);
            assert!(refused.contains(&path), "{place}: {refused}");
            assert!(refused.contains("because"), "{place}: {refused}");
        }
        // One signature counts once.
        let mut doubled = document;
        let signatures = doubled.pointer_mut("/block/signed/commit/signatures");
        let signatures = signatures.and_then(Value::as_array_mut).unwrap();
        signatures.push(signatures[0].clone());
        fs::write(&path, serde_json::to_vec(&doubled).unwrap()).unwrap();
        let refused = complaint(&joined, &offline);
        assert!(refused.contains("signs twice"), "{refused}");
    }
    // A file that was made from an earlier trusted header is held against that header, and no other.
    let offline = [&by_first[..], &["--file", &later]].concat();
    assert_eq!(json(&nowhere, &offline)["hash"], newest["hash"]);
    let wrong = [
        "verify",
        "block",
        "--trust",
        &format!("1:{}", "AB".repeat(32)),
        "--file",
        &later,
    ];
    let refused = complaint(&nowhere, &wrong);
    assert!(refused.contains("is trusted"), "{refused}");
    // A proof of one thing is none of another.
    fs::write(file("block"), "{}").unwrap();
    let refused = complaint(
        &joined,
        &["verify", "balance", address, "--file", &file("block")],
    );
    assert!(refused.contains("no proof"), "{refused}");
}
