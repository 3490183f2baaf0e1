//! The published `.proto` files, read by a compiler that is not ours, against what is encoded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use r3mes_types::Message;
use r3mes_types::query::QueryType;

use crate::samples::messages;
use crate::training_samples::training_messages;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test reads the published files"
)]
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("third_party") {
            // Not ours.
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "proto") {
            found.push(path);
        }
    }
}

fn pool() -> DescriptorPool {
    let mut found = Vec::new();
    files(&folder(), &mut found);
    found.sort();
    let compiled = protox::compile(found, [folder()]).unwrap();
    DescriptorPool::from_file_descriptor_set(compiled).unwrap()
}

#[test]
fn every_message_is_what_its_proto_file_says() {
    let pool = pool();
    let mut seen = BTreeSet::new();
    for message in messages().into_iter().chain(training_messages()) {
        let url = message.type_url();
        seen.insert(url);
        let name = url.trim_start_matches('/');
        let descriptor = pool.get_message_by_name(name).unwrap();
        let bytes = message.encode();
        let read = DynamicMessage::decode(descriptor, bytes.as_slice()).unwrap();
        assert_eq!(read.unknown_fields().count(), 0, "{url}");
        assert_eq!(read.encode_to_vec(), bytes, "{url}");
        let again = Message::decode(url, &read.encode_to_vec()).unwrap();
        assert_eq!(again, message);
    }
    let all: BTreeSet<&str> = Message::type_urls().collect();
    let missing: Vec<_> = all.difference(&seen).collect();
    assert!(missing.is_empty(), "no sample of {missing:?}");
}

#[test]
fn every_question_is_a_method_of_a_service() {
    let pool = pool();
    for question in QueryType::all() {
        let (service, method) = question.path[1..].split_once('/').unwrap();
        let service = pool.get_service_by_name(service).unwrap();
        assert!(
            service.methods().any(|known| known.name() == method),
            "{}",
            question.path
        );
    }
}
