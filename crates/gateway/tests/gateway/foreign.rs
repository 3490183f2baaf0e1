//! What the gateway does with CIDs and blocks of other kinds than the network's own.

use bytes::Bytes;
use r3mes_blobs::{AnyCid, Block, Cid, car};
use reqwest::{Method, header};

use super::trustless::{CAR, DIRECTORY, Fixture, LIMIT, PLAIN_CAR, RAW, node, text};

const ROOTS: &str = "x-ipfs-roots";

/// A block of any codec.
fn coded(codec: &[u8], bytes: &[u8]) -> Block {
    let head = [&[1], codec, &[0x12, 32]].concat();
    let cid = [&head[..], Cid::raw(bytes).digest()].concat();
    Block::verify(AnyCid::from_bytes(&cid).unwrap(), bytes.to_vec().into()).unwrap()
}

/// A DAG-JSON document with a link at `files/one`.
fn json(link: &AnyCid) -> Block {
    let text = format!("{{\"files\":{{\"one\":{{\"/\":\"{link}\"}}}},\"title\":\"x\"}}");
    coded(&[0xa9, 0x02], text.as_bytes())
}

/// The same in DAG-CBOR.
fn cbor(link: &AnyCid) -> Block {
    let cid = link.to_bytes();
    let link = [&[0xd8, 0x2a, 0x58, cid.len() as u8 + 1, 0], &cid[..]].concat();
    coded(
        &[0x71],
        &[b"\xa2\x65files\xa1\x63one", &link[..], b"\x65title\x61x"].concat(),
    )
}

/// The CID of version 0 of a `dag-pb` block.
fn v0(cid: &AnyCid) -> AnyCid {
    let hash = [&[0x12, 32], &cid.digest().unwrap()[..]].concat();
    AnyCid::from_bytes(&hash).unwrap()
}

/// The CID in which `content` itself stands.
fn inline(codec: u8, content: &[u8]) -> AnyCid {
    let head = [1, codec, 0, content.len() as u8];
    AnyCid::from_bytes(&[&head, content].concat()).unwrap()
}

#[tokio::test]
async fn both_versions_of_a_cid_name_one_block() {
    let fixture = Fixture::new().await;
    let old = v0(&fixture.cid);
    let block = fixture.get(&format!("/ipfs/{old}?format=raw"), &[]).await;
    assert_eq!(block.status(), 200);
    let disposition = format!("attachment; filename=\"{old}.bin\"");
    assert_eq!(text(&block, &header::CONTENT_DISPOSITION), disposition);
    assert_eq!(block.headers()[ROOTS], old.to_string());
    let bytes = block.bytes().await.unwrap();
    assert!(fixture.cid.matches(&bytes));
    // A CAR names the root as it was asked for, and other blocks as their links do.
    let leaves = &fixture.leaves;
    let blocks = fixture.blocks(&format!("/ipfs/{old}?format=car")).await;
    assert_eq!(
        (&blocks[0], &blocks[1..]),
        (&old, &[&leaves[..1], &leaves[2..]].concat()[..])
    );
    let directory = fixture.directory("file", &old);
    let path = format!("/ipfs/{}/file?format=car&dag-scope=block", v0(&directory));
    assert_eq!(fixture.blocks(&path).await, [v0(&directory), old]);
    let absent = v0(&Cid::dag_pb(b"nobody has this").into());
    let absent = format!("/ipfs/{absent}?format=raw");
    assert_eq!(fixture.get(&absent, &[]).await.status(), 404);
}

#[tokio::test]
async fn content_in_a_cid_is_answered_without_a_block() {
    let fixture = Fixture::new().await;
    let hello = inline(0x55, b"hello");
    for (cid, content) in [(inline(0x55, b""), &b""[..]), (hello.clone(), b"hello")] {
        for method in [Method::GET, Method::HEAD] {
            let path = format!("/ipfs/{cid}?format=raw");
            let raw = fixture.ask(method.clone(), &path, &[]).await;
            assert_eq!(raw.status(), 200);
            assert_eq!(
                text(&raw, &header::CONTENT_LENGTH),
                content.len().to_string()
            );
            if method == Method::GET {
                assert_eq!(raw.bytes().await.unwrap(), content);
            }
        }
        let (path, any) = (
            format!("/ipfs/{cid}?format=raw"),
            (header::IF_NONE_MATCH, "*"),
        );
        assert_eq!(fixture.get(&path, &[any]).await.status(), 304);
        for query in ["", "&car-dups=y", "&dag-scope=entity", "&dag-scope=block"] {
            let path = format!("/ipfs/{cid}?format=car{query}");
            let bytes = fixture.get(&path, &[]).await.bytes().await.unwrap();
            let mut stream = &bytes[..];
            let mut reader = car::Reader::new(&mut stream, LIMIT).unwrap();
            assert_eq!(reader.roots(), std::slice::from_ref(&cid));
            assert_eq!(reader.next_block().unwrap(), None, "{path}");
        }
    }
    // By it clients see whether this is a gateway; the CAR is byte for byte that of the specification.
    let probe = fixture
        .get("/ipfs/bafkqaaa", &[(header::ACCEPT, CAR)])
        .await;
    assert_eq!(text(&probe, &header::CONTENT_TYPE), PLAIN_CAR);
    let header = "19a265726f6f747381d82a4500015500006776657273696f6e01";
    assert_eq!(hex::encode(probe.bytes().await.unwrap()), header);
    let below = fixture.get("/ipfs/bafkqaaa/a?format=car", &[]).await;
    assert_eq!(below.status(), 404);
    // In a directory it is part of the directory's block, and a directory may itself be inline.
    let within = inline(0x70, &node(&[("file", &fixture.cid)], DIRECTORY));
    let outer = fixture.keep(node(&[("text", &hello), ("within", &within)], DIRECTORY));
    let path = format!("/ipfs/{outer}/text?format=car&car-dups=y");
    assert_eq!(fixture.blocks(&path).await, std::slice::from_ref(&outer));
    let path = format!("/ipfs/{outer}/within/file?format=car&dag-scope=block");
    assert_eq!(fixture.blocks(&path).await, [outer, fixture.cid.clone()]);
}

#[tokio::test]
async fn documents_are_sent_as_they_are_and_their_links_followed() {
    let fixture = Fixture::new().await;
    for document in [cbor(&fixture.leaves[3]), json(&fixture.leaves[3])] {
        let bytes = document.bytes().clone();
        let cid = fixture.insert(document);
        let raw = fixture
            .get(&format!("/ipfs/{cid}"), &[(header::ACCEPT, RAW)])
            .await;
        assert_eq!(text(&raw, &header::CONTENT_TYPE), RAW);
        assert_eq!(raw.bytes().await.unwrap(), bytes);
        let directory = fixture.directory("document", &cid);
        let whole = [directory.clone(), cid.clone(), fixture.leaves[3].clone()];
        let below = format!("/ipfs/{directory}/document/files/one");
        for (path, query, blocks) in [
            (format!("/ipfs/{directory}"), "", &whole[..]),
            (
                format!("/ipfs/{directory}"),
                "&dag-scope=entity",
                &whole[..1],
            ),
            (format!("/ipfs/{cid}"), "", &whole[1..]),
            (format!("/ipfs/{cid}"), "&dag-scope=entity", &whole[1..2]),
            // It has no bytes to choose from.
            (format!("/ipfs/{cid}"), "&entity-bytes=5:9", &whole[1..2]),
            (below.clone(), "", &whole[..]),
        ] {
            let path = format!("{path}?format=car{query}");
            assert_eq!(fixture.blocks(&path).await, blocks, "{path}");
        }
        // A path leads to blocks only: to part of a document it does not, and the rest is not there.
        for (path, status) in [
            ("title", 501),
            ("files", 501),
            ("other", 404),
            ("files/two", 404),
            ("files/one/deeper", 404),
        ] {
            let path = format!("/ipfs/{cid}/{path}?format=car");
            assert_eq!(fixture.get(&path, &[]).await.status(), status, "{path}");
        }
        let roots = fixture.get(&format!("{below}?format=car"), &[]).await;
        let expected = format!("{directory},{cid},{}", fixture.leaves[3]);
        assert_eq!(roots.headers()[ROOTS], expected);
    }
}

#[tokio::test]
async fn blocks_of_codecs_that_are_not_known_are_sent_and_not_entered() {
    let fixture = Fixture::new().await;
    let opaque = fixture.insert(coded(&[0x78], b"blob 0"));
    let directory = fixture.directory("git", &opaque);
    let raw = fixture
        .get(&format!("/ipfs/{opaque}?format=raw"), &[])
        .await;
    assert_eq!(raw.bytes().await.unwrap(), "blob 0");
    let both = [directory.clone(), opaque];
    let path = format!("/ipfs/{directory}?format=car");
    assert_eq!(fixture.blocks(&path).await, both);
    let entity = format!("{path}&dag-scope=entity");
    assert_eq!(fixture.blocks(&entity).await, both[..1]);
    let below = format!("/ipfs/{directory}/git/refs?format=car");
    assert_eq!(fixture.get(&below, &[]).await.status(), 404);
    // A hash that nothing can be held against: no block of that name is here, or is asked for.
    let sha1 = "f01551114da39a3ee5e6b4b0d3255bfef95601890afd80709";
    let directory = fixture.directory("sha1", sha1.parse::<AnyCid>().unwrap());
    let entity = format!("/ipfs/{directory}?format=car&dag-scope=entity");
    assert_eq!(
        fixture.blocks(&entity).await,
        std::slice::from_ref(&directory)
    );
    let path = format!("/ipfs/{directory}/sha1?format=car");
    assert_eq!(fixture.get(&path, &[]).await.status(), 404);
    let path = format!("/ipfs/{sha1}?format=raw");
    let refused = fixture.get(&path, &[]).await;
    assert_eq!(refused.status(), 400);
    let said = refused.text().await.unwrap();
    assert!(said.contains("its hash is sha1 (0x11)"), "{said}");
}

#[tokio::test]
async fn blocks_by_other_hashes_are_sent_and_followed() {
    let fixture = Fixture::new().await;
    let empty = "bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmi";
    let empty: AnyCid = empty.parse().unwrap();
    let directory = fixture.directory("blake3", &empty);
    let path = format!("/ipfs/{directory}/blake3?format=car");
    // It is not here yet.
    assert_eq!(fixture.get(&path, &[]).await.status(), 404);
    fixture.insert(Block::verify(empty.clone(), Bytes::new()).unwrap());
    assert_eq!(fixture.blocks(&path).await, [directory, empty.clone()]);
    let raw = fixture.get(&format!("/ipfs/{empty}?format=raw"), &[]).await;
    assert_eq!(raw.status(), 200);
    assert_eq!(raw.bytes().await.unwrap(), "");
}

#[tokio::test]
async fn a_node_that_is_no_unixfs_is_an_entity_by_itself() {
    let fixture = Fixture::new().await;
    // Links and bytes of somebody's own; a UnixFS type that nobody knows; sizes that lie.
    for data in [&b"anything"[..], &[8, 99], &[8, 2, 0x18, 9, 0x20, 1]] {
        let cid = fixture.keep(node(&[("leaf", &fixture.leaves[0])], data));
        let path = format!("/ipfs/{cid}?format=car");
        for query in ["&dag-scope=entity", "&entity-bytes=0:9", "&dag-scope=block"] {
            let path = format!("{path}{query}");
            assert_eq!(
                fixture.blocks(&path).await,
                std::slice::from_ref(&cid),
                "{path}"
            );
        }
        let all = [cid, fixture.leaves[0].clone()];
        assert_eq!(fixture.blocks(&path).await, all);
    }
    // Not even a node: it can be had, and nothing follows from it.
    let cid = fixture.keep(b"\x0b".to_vec());
    for (query, status) in [("raw", 200), ("car&dag-scope=entity", 200), ("car", 404)] {
        let path = format!("/ipfs/{cid}?format={query}");
        assert_eq!(fixture.get(&path, &[]).await.status(), status, "{path}");
    }
}
