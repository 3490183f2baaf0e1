//! CIDs and trees.

use std::io::{self, Read};

use bytes::Bytes;
use proptest::prelude::*;
use r3mes_blobs::{
    AddError, BlobStore, Block, Cid, Codec, FileReader, GetError, MemoryStore, NodeError,
    file::{LINKS_PER_NODE, add_in_chunks_of},
};
use sha2::{Digest, Sha256};

use super::support::{content, own};

#[test]
fn small_files_are_one_raw_block() {
    let store = MemoryStore::new();
    let empty = store.put(b"").unwrap();
    assert_eq!(
        empty.to_string(),
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    );
    let chunk = content(1, 1 << 20);
    let cid = store.put(&chunk).unwrap();
    assert_eq!(cid.codec(), Codec::Raw);
    assert_eq!(*cid.digest(), <[u8; 32]>::from(Sha256::digest(&chunk)));
    assert_eq!(store.usage().unwrap().blocks, 2);
}

/// What `ipfs add -Q --cid-version 1 --raw-leaves --chunker size-CHUNK FILE` of Kubo 0.42.0 prints.
#[test]
fn files_have_the_cid_that_kubo_gives_them() {
    let zeros = vec![0; 200 << 20];
    for (file, chunk, expected) in [
        (
            &content(7, 3_000_000)[..],
            1 << 20,
            "bafybeidgadwpq5ydp5w2oy66lo4zy2owmvt67nn2npu4ogvskbtv2sscmi",
        ),
        (
            &content(7, 1 << 20),
            1 << 20,
            "bafkreidn2ous33mbp3otcby2kx4y7aqnkogf3ehsmumomv63gnlneujpam",
        ),
        (
            &content(7, (1 << 20) + 1),
            1 << 20,
            "bafybeidnext3vmb76by2ls6ezlztgg46j7t7tspyakthjck4cqt7bdjaum",
        ),
        // Two levels of nodes, and three.
        (
            &content(1, 400_000),
            1024,
            "bafybeiemr52bkrayemprtvgpyrkprbuh7qyxoao2ur35ja3irubjhmrqcq",
        ),
        (
            &content(1, 400_000),
            7,
            "bafybeid7mphjzljo5vawdxig3bnpqwnad2qxnpjrssarbmfs6rxhjwhzd4",
        ),
        // Two levels of nodes over chunks of full length.
        (
            &zeros,
            1 << 20,
            "bafybeiaoev4xhwum4z7vb5if2yyvkmtmgqoipeiejiovbep2wuyxfuknwy",
        ),
    ] {
        let cid = add_in_chunks_of(&MemoryStore::new(), &mut &file[..], chunk).unwrap();
        assert_eq!(cid.to_string(), expected, "chunks of {chunk}");
    }
}

/// Builds a tree the other way round, from the top as Kubo's balanced builder does, with its own
/// encoder, and compares the root.
fn reference_root(leaves: &[(Cid, u64)]) -> (Cid, u64, u64) {
    fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }
    fn field(key: u8, body: &[u8]) -> Vec<u8> {
        [&[key][..], &varint(body.len() as u64), body].concat()
    }
    fn node(children: &[(Cid, u64, u64)]) -> (Cid, u64, u64) {
        let size: u64 = children.iter().map(|child| child.1).sum();
        let mut data = [&[8, 2, 0x18][..], &varint(size)].concat();
        let mut out = Vec::new();
        let mut total = 0;
        for (cid, size, below) in children {
            let hash = field(0x0a, &cid.to_bytes());
            let link = [&hash[..], &[0x12, 0, 0x18], &varint(*below)].concat();
            out.extend(field(0x12, &link));
            data.extend([&[0x20][..], &varint(*size)].concat());
            total += below;
        }
        out.extend(field(0x0a, &data));
        (Cid::dag_pb(&out), size, total + out.len() as u64)
    }
    fn fill(leaves: &mut std::slice::Iter<'_, (Cid, u64)>, depth: u32) -> (Cid, u64, u64) {
        if depth == 0 {
            let (cid, size) = leaves.next().unwrap();
            return (*cid, *size, *size);
        }
        let mut children = Vec::new();
        while children.len() < LINKS_PER_NODE && leaves.len() > 0 {
            children.push(fill(leaves, depth - 1));
        }
        node(&children)
    }
    let mut depth = 0;
    while LINKS_PER_NODE.pow(depth) < leaves.len() {
        depth += 1;
    }
    fill(&mut leaves.iter(), depth)
}

#[test]
fn trees_are_balanced_with_174_links_per_node() {
    for leaves in [2, 173, 174, 175, 348, 349, 174 * 174, 174 * 174 + 1, 40_000] {
        let file = content(leaves as u64, leaves * 3 - 1);
        let store = MemoryStore::new();
        let root = add_in_chunks_of(&store, &mut &file[..], 3).unwrap();
        let chunks: Vec<_> = file
            .chunks(3)
            .map(|chunk| (Cid::raw(chunk), chunk.len() as u64))
            .collect();
        assert_eq!(root, reference_root(&chunks).0, "{leaves} leaves");
        assert_eq!(store.get(&root, u64::MAX).unwrap(), file);
    }
}

#[test]
fn a_reader_starts_anywhere() {
    let store = MemoryStore::new();
    let file = content(9, 10_000);
    let root = add_in_chunks_of(&store, &mut &file[..], 7).unwrap();
    for offset in [0, 1, 6, 7, 8, 1217, 1218, 1219, 5000, 9999, 10_000] {
        let mut reader = FileReader::open(&store, root).unwrap();
        reader.skip_to(offset).unwrap();
        assert_eq!(reader.position(), offset);
        assert_eq!(reader.read_rest().unwrap(), file[offset as usize..]);
    }
    let mut reader = FileReader::open(&store, root).unwrap();
    let error = reader.skip_to(10_001).unwrap_err();
    assert!(matches!(error, GetError::Seek { size: 10_000, .. }));
}

#[test]
fn skipping_does_not_need_the_blocks_skipped() {
    let source = MemoryStore::new();
    let file = content(3, 3 << 20);
    let root = source.put(&file).unwrap();
    let node = source.block(&root).unwrap().unwrap();
    let last = node.links().unwrap()[2].clone();
    let store = MemoryStore::new();
    store
        .insert(&[node, source.any_block(&last).unwrap().unwrap()])
        .unwrap();
    let mut reader = FileReader::open(&store, root).unwrap();
    reader.skip_to(2 << 20).unwrap();
    assert_eq!(reader.read_rest().unwrap(), file[2 << 20..]);
}

/// A node over `links` with sizes of its writer's choice.
fn forged(links: &[(Cid, u64)], size: u64) -> Block {
    let mut data = vec![8, 2, 0x18, size as u8];
    let mut out = Vec::new();
    for (cid, size) in links {
        out.extend([0x12, 42, 0x0a, 36]);
        out.extend(cid.to_bytes());
        out.extend([0x12, 0, 0x18, *size as u8]);
        data.extend([0x20, *size as u8]);
    }
    out.extend([0x0a, data.len() as u8]);
    out.extend(data);
    Block::verify(Cid::dag_pb(&out), Bytes::from(out)).unwrap()
}

#[test]
fn a_leaf_of_another_length_than_declared_is_refused() {
    let store = MemoryStore::new();
    let leaf = store.put(b"four").unwrap();
    let honest = forged(&[(leaf, 4), (leaf, 4)], 8);
    let liar = forged(&[(leaf, 4), (leaf, 5)], 9);
    store.insert(&[honest.clone(), liar.clone()]).unwrap();
    assert_eq!(store.get(&own(&honest), 100).unwrap(), b"fourfour");
    let error = store.get(&own(&liar), 100).unwrap_err();
    assert!(
        matches!(&error, GetError::Node { cid, source: NodeError::Sizes } if *cid == leaf),
        "{error:?}"
    );
}

#[test]
fn a_tree_without_end_is_refused() {
    let store = MemoryStore::new();
    let mut below = store.put(b"x").unwrap();
    for _ in 0..40 {
        let node = forged(&[(below, 1)], 1);
        below = own(&node);
        store.insert(&[node]).unwrap();
    }
    let error = store.get(&below, 100).unwrap_err();
    assert!(matches!(
        error,
        GetError::Node {
            source: NodeError::TooDeep { .. },
            ..
        }
    ));
}

#[test]
fn a_failing_reader_is_an_error() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("unplugged"))
        }
    }
    let error = MemoryStore::new().put_reader(&mut Failing).unwrap_err();
    assert!(matches!(error, AddError::Read { .. }));
}

#[test]
fn how_a_reader_hands_out_bytes_does_not_matter() {
    struct Dribble<'a>(&'a [u8]);
    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = buffer.len().min(1000).min(self.0.len());
            self.0.read(&mut buffer[..n])
        }
    }
    let store = MemoryStore::new();
    let file = content(5, 2_100_000);
    let dribbled = store.put_reader(&mut Dribble(&file)).unwrap();
    assert_eq!(dribbled, store.put(&file).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_file_in_any_chunks_comes_back(
        file in proptest::collection::vec(any::<u8>(), 0..3000),
        chunk in 1usize..50,
        offset in 0usize..3000,
    ) {
        let store = MemoryStore::new();
        let root = add_in_chunks_of(&store, &mut &file[..], chunk).unwrap();
        let offset = offset.min(file.len());
        let mut reader = FileReader::open(&store, root).unwrap();
        prop_assert_eq!(reader.size(), file.len() as u64);
        reader.skip_to(offset as u64).unwrap();
        prop_assert_eq!(&reader.read_rest().unwrap()[..], &file[offset..]);
    }

    #[test]
    fn any_bytes_as_a_node_are_read_or_refused_without_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let store = MemoryStore::new();
        let block = Block::verify(Cid::dag_pb(&bytes), bytes.into()).unwrap();
        let cid = own(&block);
        store.insert(&[block]).unwrap();
        let _ = store.get(&cid, 1 << 20);
        let _ = store.missing(&cid);
    }
}
