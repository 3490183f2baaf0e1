//! Blocks of other writers: other codecs, version 0, content in the CID.

use bytes::Bytes;
use r3mes_blobs::{
    AnyCid, BlobStore, Block, Cid, FileReader, FollowError, MemoryStore, ResolveError, Scope,
    Traversal, car, missing, resolve,
};

use super::{
    stores::on_each_store,
    support::{block, name, own},
};

const LIMIT: u64 = 1 << 20;

/// A block of any codec.
fn coded(codec: &[u8], bytes: impl Into<Bytes>) -> Block {
    let bytes = bytes.into();
    let head = [&[1], codec, &[0x12, 32]].concat();
    let cid = [&head[..], Cid::raw(&bytes).digest()].concat();
    Block::verify(AnyCid::from_bytes(&cid).unwrap(), bytes).unwrap()
}

fn json(text: impl Into<Bytes>) -> Block {
    coded(&[0xa9, 0x02], text)
}

/// The CID in which `content` itself stands.
fn inline(codec: u8, content: &[u8]) -> AnyCid {
    let head = [1, codec, 0, content.len() as u8];
    AnyCid::from_bytes(&[&head, content].concat()).unwrap()
}

/// A node over links with names, with UnixFS data.
fn node(links: &[(&str, &AnyCid)], data: &[u8]) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
    let link = |(name, cid): &(&str, &AnyCid)| {
        let hash = field(0x0a, &cid.to_bytes());
        field(0x12, &[hash, field(0x12, name.as_bytes())].concat())
    };
    let links: Vec<u8> = links.iter().flat_map(link).collect();
    [links, field(0x0a, data)].concat()
}

fn directory(links: &[(&str, &AnyCid)]) -> Block {
    let node = node(links, &[8, 1]);
    Block::verify(Cid::dag_pb(&node), node.into()).unwrap()
}

/// The CIDs that a scope gives, or the first that is missing.
fn given(store: &dyn BlobStore, root: &AnyCid, scope: Scope) -> Result<Vec<AnyCid>, AnyCid> {
    let mut traversal = Traversal::new(root, scope);
    let mut given = Vec::new();
    loop {
        match traversal.next(store) {
            Ok(Some(block)) => given.push(block.cid().clone()),
            Ok(None) => return Ok(given),
            Err(FollowError::Missing { cid }) => return Err(cid),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_block_has_one_place_under_both_versions_of_its_cid() {
    on_each_store(|store| {
        let node = directory(&[]);
        let new = node.cid().clone();
        let old: AnyCid = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
            .parse()
            .unwrap();
        assert_eq!(old.key(), new);
        store.insert(std::slice::from_ref(&node)).unwrap();
        let by_old = Block::verify(&old, node.bytes().clone()).unwrap();
        store.insert(std::slice::from_ref(&by_old)).unwrap();
        assert_eq!(store.usage().unwrap().blocks, 1);
        assert_eq!(store.any_block(&old).unwrap(), Some(by_old));
        assert_eq!(store.any_block(&new).unwrap(), Some(node));
        assert!(store.contains_any(&old).unwrap() && store.contains_any(&new).unwrap());
    });
}

#[test]
fn a_pin_keeps_what_documents_link_to() {
    on_each_store(|store| {
        let leaf = block(1, 100);
        let document = json(format!("[{{\"/\":\"{}\"}}]", leaf.cid()));
        let root = directory(&[("document", document.cid())]);
        let other = json("{}");
        let all = [root.clone(), document.clone(), leaf.clone(), other.clone()];
        store.insert(&all).unwrap();
        store.pin(&own(&root), &name("kept")).unwrap();
        assert!(store.missing(&own(&root)).unwrap().is_empty());
        assert_eq!(store.collect_garbage(0).unwrap().removed.blocks, 1);
        assert!(!store.contains_any(other.cid()).unwrap());
        assert!(store.contains_any(leaf.cid()).unwrap());
    });
}

#[test]
fn opaque_codecs_are_leaves_and_hashes_that_are_not_known_are_missing() {
    let store = MemoryStore::new();
    // git-raw, and sha1.
    let opaque = coded(&[0x78], &b"blob 0"[..]);
    let unknown: AnyCid = "f01551114da39a3ee5e6b4b0d3255bfef95601890afd80709"
        .parse()
        .unwrap();
    let root = directory(&[("git", opaque.cid()), ("sha1", &unknown)]);
    store.insert(&[root.clone(), opaque.clone()]).unwrap();
    assert_eq!(
        missing(&store, root.cid()).unwrap(),
        std::slice::from_ref(&unknown)
    );
    assert_eq!(given(&store, root.cid(), Scope::All), Err(unknown));
    let entity = Scope::Bytes { from: 0, to: 9 };
    assert_eq!(
        given(&store, root.cid(), entity),
        Ok(vec![root.cid().clone()])
    );
    let root = directory(&[("git", opaque.cid())]);
    store.insert(std::slice::from_ref(&root)).unwrap();
    let both = vec![root.cid().clone(), opaque.cid().clone()];
    assert_eq!(given(&store, root.cid(), Scope::All), Ok(both));
}

#[test]
fn blocks_by_other_hashes_are_kept_checked_and_collected_as_others() {
    on_each_store(|store| {
        let leaf: AnyCid =
            "f01551e206437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
                .parse()
                .unwrap();
        let root = directory(&[("leaf", &leaf)]);
        store.insert(std::slice::from_ref(&root)).unwrap();
        store.pin(&own(&root), &name("kept")).unwrap();
        assert_eq!(
            missing(store, root.cid()).unwrap(),
            std::slice::from_ref(&leaf)
        );
        let block = Block::verify(leaf.clone(), Bytes::from_static(b"abc")).unwrap();
        store.insert(std::slice::from_ref(&block)).unwrap();
        assert_eq!(store.any_block(&leaf).unwrap(), Some(block));
        assert!(missing(store, root.cid()).unwrap().is_empty());
        assert_eq!(store.collect_garbage(0).unwrap().removed.blocks, 0);
        assert!(store.unpin(&own(&root), &name("kept")).unwrap());
        assert_eq!(store.collect_garbage(0).unwrap().removed.blocks, 2);
        assert!(!store.contains_any(&leaf).unwrap());
    });
}

#[test]
fn content_in_a_cid_is_followed_and_never_given() {
    let store = MemoryStore::new();
    let leaf = block(1, 100);
    let text = inline(0x55, b"hello");
    let within = inline(0x70, &node(&[("leaf", leaf.cid())], &[8, 1]));
    let root = directory(&[("text", &text), ("within", &within)]);
    store.insert(&[root.clone(), leaf.clone()]).unwrap();
    assert!(missing(&store, root.cid()).unwrap().is_empty());
    let both = vec![root.cid().clone(), leaf.cid().clone()];
    assert_eq!(given(&store, root.cid(), Scope::All), Ok(both));
    assert_eq!(given(&store, &text, Scope::All), Ok(Vec::new()));
    let path = ["within".to_owned(), "leaf".to_owned()];
    let resolved = resolve(&store, root.cid(), &path).unwrap();
    assert_eq!(resolved.cid, *leaf.cid());
    assert_eq!(resolved.way, std::slice::from_ref(&root));
    let roots = [root.cid().clone(), within, leaf.cid().clone()];
    assert_eq!(resolved.roots, roots);
    // A file whose last part stands in the node.
    let data = [8, 2, 0x18, 105, 0x20, 100, 0x20, 5];
    let file = node(&[("", leaf.cid()), ("", &text)], &data);
    let file = Block::verify(Cid::dag_pb(&file), file.into()).unwrap();
    store.insert(std::slice::from_ref(&file)).unwrap();
    let mut reader = FileReader::open(&store, file.cid()).unwrap();
    let content = [&leaf.bytes()[..], b"hello"].concat();
    assert_eq!(reader.read_rest().unwrap(), content);
}

#[test]
fn a_path_goes_through_documents_up_to_links() {
    let store = MemoryStore::new();
    let leaf = block(1, 100);
    let inner = directory(&[("leaf", leaf.cid())]);
    let document = json(format!(
        "{{\"files\":[7,{{\"/\":\"{}\"}}],\"title\":\"x\"}}",
        inner.cid()
    ));
    let root = directory(&[("document", document.cid())]);
    let all = [root.clone(), document.clone(), inner.clone(), leaf.clone()];
    store.insert(&all).unwrap();
    let follow = |path: &str| {
        let names: Vec<String> = path.split('/').map(str::to_owned).collect();
        resolve(&store, root.cid(), &names)
    };
    let resolved = follow("document/files/1/leaf").unwrap();
    assert_eq!(resolved.cid, *leaf.cid());
    assert_eq!(resolved.way, all[..3]);
    for within in ["document/title", "document/files", "document/files/0"] {
        let error = follow(within).unwrap_err();
        assert!(matches!(error, ResolveError::NoLink { .. }), "{error:?}");
    }
    for (path, part) in [
        ("document/files/2", "2"),
        ("document/other/leaf", "other"),
        ("document/title/deeper", "deeper"),
        ("document/files/1/other", "other"),
    ] {
        let error = follow(path).unwrap_err();
        let named = matches!(&error, ResolveError::NoEntry { name, .. } if name == part);
        assert!(named, "{path}: {error:?}");
    }
}

#[test]
fn a_car_carries_cids_of_every_kind() {
    let (here, there) = (MemoryStore::new(), MemoryStore::new());
    let leaf = block(1, 100);
    let old = directory(&[("leaf", leaf.cid())]);
    let v0 = AnyCid::from_bytes(&[&[0x12, 32], &old.cid().digest().unwrap()[..]].concat()).unwrap();
    let document = json(format!("[{{\"/\":\"{v0}\"}},{{\"/\":\"bafkqaaa\"}}]"));
    here.insert(&[leaf.clone(), old, document.clone()]).unwrap();
    let mut stream = Vec::new();
    car::write(&here, document.cid(), &mut stream).unwrap();
    let mut bytes = &stream[..];
    let mut reader = car::Reader::new(&mut bytes, LIMIT).unwrap();
    assert_eq!(reader.roots(), std::slice::from_ref(document.cid()));
    let mut cids = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        cids.push(block.cid().clone());
    }
    // As the links name them, and nothing for content that stands in its link.
    assert_eq!(
        cids,
        [document.cid().clone(), v0.clone(), leaf.cid().clone()]
    );
    car::import(&there, &mut &stream[..], LIMIT).unwrap();
    assert!(missing(&there, document.cid()).unwrap().is_empty());
    // Others do write such blocks; they take no place.
    let inline = inline(0x55, b"hello");
    let mut stream = car::header(&[inline.clone(), v0]);
    stream.extend(car::section_head(&Block::inline(&inline).unwrap()));
    stream.extend(b"hello");
    let before = there.usage().unwrap();
    let roots = car::import(&there, &mut &stream[..], LIMIT).unwrap();
    assert_eq!((roots.len(), &roots[0]), (2, &inline));
    assert_eq!(there.usage().unwrap(), before);
}
