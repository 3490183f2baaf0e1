//! What the gateway does when blocks are not here or not whole, and with conditions on a request.

use std::{fs, sync::Arc};

use r3mes_blobs::{AnyCid, BlobStore, Cid, DiskOptions, DiskStore, car};
use r3mes_gateway::ipfs::{GatewayLimits, router, routing};
use reqwest::{Method, header};

use super::{
    support::{Running, bare_get, client, content},
    trustless::{DIRECTORY, Fixture, LIMIT, node, text},
};

/// The number of whole blocks that were received before the connection broke off.
async fn broken_off(mut response: reqwest::Response) -> usize {
    let mut received = Vec::new();
    let broken = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => received.extend(chunk),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "a CAR that is not whole ended as if it were");
    let mut stream = &received[..];
    let mut reader = car::Reader::new(&mut stream, LIMIT).unwrap();
    let mut blocks = 0;
    while let Ok(Some(_)) = reader.next_block() {
        blocks += 1;
    }
    blocks
}

#[tokio::test]
async fn what_is_not_here_is_not_found_whatever_is_asked_of_it() {
    let fixture = Fixture::new().await;
    for absent in [Cid::raw(b"nobody has this"), Cid::dag_pb(b"nor this")] {
        for query in [
            "raw",
            "car",
            "car&dag-scope=block",
            "car&dag-scope=entity",
            "car&entity-bytes=0:5",
        ] {
            let path = format!("/ipfs/{absent}?format={query}");
            for method in [Method::GET, Method::HEAD] {
                let response = fixture.ask(method.clone(), &path, &[]).await;
                assert_eq!(response.status(), 404, "{method} {path}");
                assert!(!response.headers().contains_key(header::ETAG));
                let body = response.text().await.unwrap();
                assert_eq!(body.contains(&absent.to_string()), method == Method::GET);
            }
        }
    }
}

#[tokio::test]
async fn a_car_without_one_of_its_blocks_breaks_off() {
    let fixture = Fixture::new().await;
    let absent = AnyCid::from(Cid::raw(b"nobody has this"));
    let whole = fixture.leaves[2].clone();
    let entries = [("a", &whole), ("b", &absent), ("c", &whole)];
    let directory = fixture.keep(node(&entries, DIRECTORY));
    let path = format!("/ipfs/{directory}?format=car");
    let response = fixture.get(&path, &[]).await;
    assert_eq!(response.status(), 200);
    assert!(broken_off(response).await <= 2);
    // What is asked for without it is whole.
    let path = format!("/ipfs/{directory}/c?format=car");
    assert_eq!(fixture.blocks(&path).await, [directory.clone(), whole]);
    let path = format!("/ipfs/{directory}?format=car&dag-scope=entity");
    assert_eq!(fixture.blocks(&path).await, [directory]);
}

#[tokio::test]
async fn a_block_that_was_damaged_on_the_disk_is_not_here() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(folder.path(), DiskOptions::default()).unwrap();
    let root = store.put(&content(1, 3_000_000)).unwrap();
    let leaves = store.block(&root).unwrap().unwrap().links().unwrap();
    let damage = |cid: &AnyCid| {
        let name = cid.to_string();
        let shard = &name[name.len() - 3..name.len() - 1];
        let path = folder.path().join("blocks").join(shard).join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let running = Running::start(router(Arc::new(store), GatewayLimits::default())).await;
    let get = async |path: String| client().get(running.url(&path)).send().await.unwrap();
    damage(&leaves[1]);
    let response = get(format!("/ipfs/{root}?format=car")).await;
    assert!(broken_off(response).await <= 2);
    damage(&root.into());
    // The first time it is seen to be damaged, afterwards it has been set aside.
    for _ in 0..2 {
        for format in ["raw", "car"] {
            let response = get(format!("/ipfs/{root}?format={format}")).await;
            assert_eq!(response.status(), 404);
            let told = response.text().await.unwrap();
            assert!(!told.contains("quarantine"), "{told}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_known_is_confirmed_before_its_path_is_followed() {
    let fixture = Fixture::new().await;
    let outer = fixture.directory("gone", Cid::dag_pb(b"nobody has this"));
    let path = format!("/ipfs/{outer}/gone/below?format=car");
    assert_eq!(fixture.get(&path, &[]).await.status(), 404);
    let any = [(header::IF_NONE_MATCH, "*")];
    assert_eq!(fixture.get(&path, &any).await.status(), 304);
}

#[tokio::test]
async fn only_if_cached_counts_for_what_a_path_leads_through_and_to() {
    let fixture = Fixture::new().await;
    let only = [(header::CACHE_CONTROL, "only-if-cached")];
    let inner = fixture.directory("leaf", Cid::raw(b"nobody has this"));
    let outer = fixture.directory("inner", &inner);
    let far = fixture.directory("gone", Cid::dag_pb(b"nor this"));
    for path in [format!("{outer}/inner/leaf"), format!("{far}/gone/below")] {
        let path = format!("/ipfs/{path}?format=car");
        for (headers, status) in [(&only[..], 412), (&[], 404)] {
            let response = fixture.get(&path, headers).await;
            assert_eq!(response.status(), status, "{path}");
        }
    }
    // A name that does not exist is not a matter of what is here.
    let wrong = format!("/ipfs/{outer}/other?format=car");
    assert_eq!(fixture.get(&wrong, &only).await.status(), 404);
}

#[tokio::test]
async fn a_part_of_a_block_is_sent_only_of_the_block_that_is_known() {
    let fixture = Fixture::new().await;
    let path = format!("/ipfs/{}?format=raw", fixture.leaves[0]);
    let tag = format!("\"{}.raw\"", fixture.leaves[0]);
    for (known, status) in [
        (&*tag, 206),
        ("\"another\"", 200),
        // A weak tag says nothing of single bytes.
        (&format!("W/{tag}"), 200),
    ] {
        let headers = [(header::RANGE, "bytes=5-9"), (header::IF_RANGE, known)];
        let response = fixture.get(&path, &headers).await;
        assert_eq!(response.status(), status, "{known}");
        assert_eq!(text(&response, &header::ACCEPT_RANGES), "bytes");
        let length = if status == 206 { 5 } else { 1 << 20 };
        assert_eq!(response.bytes().await.unwrap().len(), length);
    }
}

#[tokio::test]
async fn a_car_has_no_parts() {
    let fixture = Fixture::new().await;
    let range = [(header::RANGE, "bytes=0-9")];
    let response = fixture.get(&fixture.car(""), &range).await;
    assert_eq!(response.status(), 200);
    assert_eq!(text(&response, &header::ACCEPT_RANGES), "none");
    assert!(!response.headers().contains_key(header::CONTENT_RANGE));
    assert!(response.bytes().await.unwrap().len() > 2 << 20);
}

#[tokio::test]
async fn a_sharded_directory_is_proved_by_the_shards_on_the_way_and_listed_by_all() {
    let fixture = Fixture::new().await;
    // Of 256 children by murmur3; the hash of "hello" begins with 0xcb, then 0xd8.
    let data = [8, 5, 0x28, 0x22, 0x30, 0x80, 2];
    let leaf = &fixture.leaves[2];
    let below = fixture.keep(node(&[("D8hello", leaf)], &data));
    let other = fixture.keep(node(&[("00x", leaf)], &data));
    let root = fixture.keep(node(&[("00", &other), ("CB", &below)], &data));
    let way = [root.clone(), below.clone(), leaf.clone()];
    let path = format!("/ipfs/{root}/hello?format=car");
    assert_eq!(fixture.blocks(&path).await, way);
    // A shard is no part of the path: there are two logical roots.
    let roots = fixture.get(&path, &[]).await;
    assert_eq!(roots.headers()["x-ipfs-roots"], format!("{root},{leaf}"));
    let listing = format!("/ipfs/{root}?format=car&dag-scope=entity");
    let shards = [root.clone(), other.clone(), below.clone()];
    assert_eq!(fixture.blocks(&listing).await, shards);
    let all = [root.clone(), other, leaf.clone(), below];
    assert_eq!(
        fixture.blocks(&format!("/ipfs/{root}?format=car")).await,
        all
    );
    for absent in ["hallo", "CB", "D8hello"] {
        let path = format!("/ipfs/{root}/{absent}?format=car");
        assert_eq!(fixture.get(&path, &[]).await.status(), 404, "{absent}");
    }
}

#[tokio::test]
async fn a_symbolic_link_is_sent_and_not_followed() {
    let fixture = Fixture::new().await;
    let link = fixture.keep(node(&[], b"\x08\x04\x12\x04leaf"));
    let leaf = fixture.leaves[2].clone();
    let root = fixture.keep(node(&[("leaf", &leaf), ("link", &link)], DIRECTORY));
    let both = [root.clone(), link];
    for query in [
        "",
        "&dag-scope=entity",
        "&entity-bytes=0:1",
        "&dag-scope=block",
    ] {
        let path = format!("/ipfs/{root}/link?format=car{query}");
        assert_eq!(fixture.blocks(&path).await, both, "{query}");
    }
    let path = format!("/ipfs/{root}/link/below?format=car");
    assert_eq!(fixture.get(&path, &[]).await.status(), 404);
}

#[tokio::test]
async fn an_answer_says_what_was_asked_for_and_what_its_path_led_through() {
    let fixture = Fixture::new().await;
    let outer = fixture.directory("a b", &fixture.cid);
    let path = format!("/ipfs/{outer}/a%20b");
    for (path, query, roots) in [
        (format!("/ipfs/{outer}"), "raw", outer.to_string()),
        (
            path,
            "car&dag-scope=block",
            format!("{outer},{}", fixture.cid),
        ),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let url = format!("{path}?format={query}");
            let response = fixture.ask(method, &url, &[]).await;
            assert_eq!(response.headers()["x-ipfs-path"], path);
            assert_eq!(response.headers()["x-ipfs-roots"], roots);
        }
    }
}

#[tokio::test]
async fn no_ipns_record_is_here() {
    let fixture = Fixture::new().await;
    let name = "/ipns/k51qzi5uqu5dit2ku9mutlfgwyz8u730on38kd10m97m36bjt66my99hb6103f";
    let record = "application/vnd.ipfs.ipns-record";
    for (path, accept, status) in [
        (format!("{name}?format=ipns-record"), "text/html", 404),
        (name.to_owned(), record, 404),
        (name.to_owned(), "*/*", 404),
        (name.to_owned(), "text/html", 406),
        // It would have to be resolved.
        (format!("{name}?format=car"), record, 400),
        (format!("{name}/below?format=ipns-record"), record, 400),
        (
            "/ipns/example.org?format=ipns-record".to_owned(),
            record,
            400,
        ),
        (
            format!("/ipfs/{}?format=ipns-record", fixture.cid),
            record,
            400,
        ),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let accept = [(header::ACCEPT, accept)];
            let response = fixture.ask(method.clone(), &path, &accept).await;
            assert_eq!(response.status(), status, "{method} {path}");
            assert_eq!(text(&response, &header::X_CONTENT_TYPE_OPTIONS), "nosniff");
        }
    }
    let only = [(header::CACHE_CONTROL, "only-if-cached")];
    let path = format!("{name}?format=ipns-record");
    assert_eq!(fixture.get(&path, &only).await.status(), 412);
    let bare = bare_get(&fixture.running, name).await;
    assert!(bare.starts_with("HTTP/1.1 400"), "{bare}");
}

#[tokio::test]
async fn providers_are_told_of_any_cid_and_of_nothing_else() {
    let fixture = Fixture::new().await;
    let routes = routing(fixture.store.clone(), "http://127.0.0.1:8090").unwrap();
    let running = Running::start(routes).await;
    let ask = async |name: &str| {
        let url = running.url(&format!("/routing/v1/providers/{name}"));
        client().get(url).send().await.unwrap()
    };
    let hash = [&[0x12, 32], &fixture.cid.digest().unwrap()[..]].concat();
    let old = AnyCid::from_bytes(&hash).unwrap();
    let absent = Cid::raw(b"nobody has this");
    for (cid, count) in [
        (fixture.cid.to_string(), 1),
        (old.to_string(), 1),
        (absent.to_string(), 0),
        ("bafkqaaa".to_owned(), 0),
    ] {
        let answer: serde_json::Value = ask(&cid).await.json().await.unwrap();
        assert_eq!(
            answer["Providers"].as_array().unwrap().len(),
            count,
            "{cid}"
        );
    }
    for wrong in ["x", "bafk", "a%2Fb"] {
        let response = ask(wrong).await;
        assert_eq!(response.status(), 400, "{wrong}");
        assert!(response.text().await.unwrap().contains("not a CID"));
    }
}
