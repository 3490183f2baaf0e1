//! CAR streams.

use bytes::Bytes;
use proptest::prelude::*;
use r3mes_blobs::{
    AnyCid, BlobStore, Cid, MAX_BLOCK_BYTES, MemoryStore, Scope, Traversal, car, car::CarError,
    file::add_in_chunks_of,
};
use sha2::{Digest, Sha256};

use super::support::content;

const LIMIT: u64 = 1 << 30;

fn car_of(store: &MemoryStore, root: &Cid) -> Vec<u8> {
    let mut stream = Vec::new();
    car::write(store, root, &mut stream).unwrap();
    stream
}

#[test]
fn stream_is_written_byte_for_byte_as_the_specification_says() {
    let store = MemoryStore::new();
    let root = store.put(b"hello world").unwrap();
    let cid = hex::encode(root.to_bytes());
    let header = format!("a265726f6f747381d82a582500{cid}6776657273696f6e01");
    let expected = format!("3a{header}2f{cid}{}", hex::encode(b"hello world"));
    assert_eq!(hex::encode(car_of(&store, &root)), expected);
}

/// The hash of what `ipfs dag export` of Kubo 0.42.0 writes for the same file.
#[test]
fn stream_of_a_longer_file_is_the_one_that_kubo_writes() {
    let store = MemoryStore::new();
    let root = store.put(&content(7, 3_000_000)).unwrap();
    let stream = car_of(&store, &root);
    assert_eq!(
        hex::encode(Sha256::digest(&stream)),
        "aeb1284f9d20afc5b13f623173e6fb8412e21fa4060f8b591e4df97a19561c47"
    );
}

#[test]
fn a_blob_moves_and_each_block_is_sent_once() {
    let (here, there) = (MemoryStore::new(), MemoryStore::new());
    let mut file = content(1, 1 << 20);
    file.extend_from_within(..);
    file.push(1);
    let root = here.put(&file).unwrap();
    let stream = car_of(&here, &root);
    assert!(stream.len() < (1 << 20) + 1000);
    let roots = car::import(&there, &mut &stream[..], LIMIT).unwrap();
    assert_eq!(roots, [root]);
    assert_eq!(there.get(&root, LIMIT).unwrap(), file);
}

#[test]
fn an_incomplete_blob_is_not_written_as_if_it_were_whole() {
    let (here, there) = (MemoryStore::new(), MemoryStore::new());
    let root = here.put(&content(1, 3_000_000)).unwrap();
    let node = here.block(&root).unwrap().unwrap();
    there.insert(&[node]).unwrap();
    let error = car::write(&there, root, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, CarError::Traverse { .. }), "{error:?}");
}

#[test]
fn only_blocks_of_the_wanted_bytes_are_gone_through() {
    let store = MemoryStore::new();
    let file = content(1, 174 * 100 * 3);
    let root = add_in_chunks_of(&store, &mut &file[..], 100).unwrap();
    let blocks = |scope| {
        let mut traversal = Traversal::new(root, scope);
        std::iter::from_fn(|| traversal.next(&store).unwrap()).count()
    };
    assert_eq!(blocks(Scope::Block), 1);
    assert_eq!(blocks(Scope::All), 1 + 3 + 3 * 174);
    let bytes = |from, to| blocks(Scope::Bytes { from, to });
    assert_eq!(bytes(0, u64::MAX), 1 + 3 + 3 * 174);
    assert_eq!(bytes(0, 1), 1 + 1 + 1);
    assert_eq!(bytes(99, 101), 1 + 1 + 2);
    assert_eq!(bytes(17_399, 17_401), 1 + 2 + 2);
    assert_eq!(bytes(17_400, 34_800), 1 + 1 + 174);
    assert_eq!(bytes(5, 5), 1);
    assert_eq!(bytes(1 << 40, u64::MAX), 1);
}

#[test]
fn a_wrong_block_is_refused() {
    let here = MemoryStore::new();
    let root = here.put(&content(1, 1000)).unwrap();
    let mut stream = car_of(&here, &root);
    *stream.last_mut().unwrap() ^= 1;
    let there = MemoryStore::new();
    let error = car::import(&there, &mut &stream[..], LIMIT).unwrap_err();
    assert!(matches!(error, CarError::Block { .. }), "{error:?}");
    assert_eq!(there.usage().unwrap().blocks, 0);
}

#[test]
fn a_stream_cut_anywhere_is_refused_or_has_fewer_blocks() {
    let here = MemoryStore::new();
    let root = here.put(&content(1, 1_048_600)).unwrap();
    let stream = car_of(&here, &root);
    for cut in [0, 1, 10, 58, 59, 60, 90, 300, stream.len() - 1] {
        let there = MemoryStore::new();
        match car::import(&there, &mut &stream[..cut], LIMIT) {
            Err(CarError::Cut | CarError::Header) => {}
            Ok(_) => assert!(!there.missing(&root).unwrap().is_empty()),
            Err(error) => panic!("cut at {cut}: {error:?}"),
        }
    }
}

#[test]
fn lengths_beyond_the_limits_are_refused_before_memory_is_taken() {
    let mut stream = car::header(&[Cid::raw(b"").into()]);
    // A section of 256 MB less one.
    stream.extend([0xff, 0xff, 0xff, 0x7f]);
    let store = MemoryStore::new();
    let error = car::import(&store, &mut &stream[..], LIMIT).unwrap_err();
    assert!(matches!(error, CarError::Section { .. }), "{error:?}");

    let long = [0x80, 0x80, 0x80, 0x80, 0x80, 1];
    let error = car::import(&store, &mut &long[..], LIMIT).unwrap_err();
    assert!(matches!(error, CarError::Section { .. }), "{error:?}");

    let here = MemoryStore::new();
    let root = here.put(&content(1, 5000)).unwrap();
    let stream = car_of(&here, &root);
    let error = car::import(&store, &mut &stream[..], 4000).unwrap_err();
    assert!(
        matches!(error, CarError::TooLong { limit: 4000 }),
        "{error:?}"
    );
}

#[test]
fn the_longest_block_fits_and_a_longer_one_does_not() {
    let section = |len: usize| {
        let bytes = Bytes::from(vec![1; len]);
        let cid = Cid::raw(&bytes);
        let mut stream = car::header(&[cid.into()]);
        let mut length = Cid::LEN + len;
        while length >= 0x80 {
            stream.push(length as u8 | 0x80);
            length >>= 7;
        }
        stream.push(length as u8);
        stream.extend(cid.to_bytes());
        stream.extend(bytes);
        stream
    };
    let store = MemoryStore::new();
    assert!(car::import(&store, &mut &section(MAX_BLOCK_BYTES)[..], LIMIT).is_ok());
    let longer = section(MAX_BLOCK_BYTES + 1);
    let error = car::import(&store, &mut &longer[..], LIMIT).unwrap_err();
    assert!(matches!(error, CarError::Block { .. }), "{error:?}");
    // Longer than that with any CID: refused by the length alone.
    let longer = section(MAX_BLOCK_BYTES + AnyCid::MAX_BYTES);
    let error = car::import(&store, &mut &longer[..100], LIMIT).unwrap_err();
    assert!(matches!(error, CarError::Section { .. }), "{error:?}");
}

proptest! {
    #[test]
    fn any_change_to_a_stream_is_refused_or_harmless(
        index in 0usize..400,
        change in 1u8..,
    ) {
        let here = MemoryStore::new();
        let root = here.put(&content(1, 250)).unwrap();
        let mut stream = car_of(&here, &root);
        let index = index % stream.len();
        stream[index] ^= change;
        let there = MemoryStore::new();
        if car::import(&there, &mut &stream[..], LIMIT).is_ok_and(|roots| roots == [root]) {
            // Only the block's own codec can differ without a trace in the header or the hash.
            prop_assert!(!there.contains(&root).unwrap());
        }
    }
}
