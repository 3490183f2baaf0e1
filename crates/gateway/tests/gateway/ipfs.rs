//! The trustless gateway and the fetcher.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Path, http::StatusCode, routing::get};
use futures::StreamExt;
use r3mes_blobs::{BlobStore, Cid, MemoryStore, car};
use r3mes_gateway::ipfs::{
    FetchError, FetchOptions, Fetched, Fetcher, GatewayLimits, Source, router,
};
use reqwest::{Method, Response, header};

use super::support::{Running, client, content};

const LIMIT: u64 = 100 << 20;

async fn gateway(store: &Arc<MemoryStore>) -> Running {
    Running::start(router(store.clone(), GatewayLimits::default())).await
}

async fn ask(running: &Running, path: &str) -> Response {
    client().get(running.url(path)).send().await.unwrap()
}

fn text(response: &Response, name: header::HeaderName) -> &str {
    response.headers()[name].to_str().unwrap()
}

/// Does not wait between rounds, so that tests are quick.
fn fetcher(store: &Arc<MemoryStore>) -> Fetcher {
    let options = FetchOptions {
        pause: Duration::from_millis(1),
        ..FetchOptions::default()
    };
    Fetcher::new(store.clone(), options).unwrap()
}

fn source(running: &Running) -> Source {
    running.url("").parse().unwrap()
}

#[tokio::test]
async fn a_raw_block_comes_with_everything_a_cache_needs() {
    let store = Arc::new(MemoryStore::new());
    let cid = store.put(b"hello world").unwrap();
    let running = gateway(&store).await;
    let response = ask(&running, &format!("/ipfs/{cid}?format=raw")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        text(&response, header::CONTENT_TYPE),
        "application/vnd.ipld.raw"
    );
    assert_eq!(text(&response, header::CONTENT_LENGTH), "11");
    assert_eq!(text(&response, header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert!(text(&response, header::CACHE_CONTROL).contains("immutable"));
    let disposition = format!("attachment; filename=\"{cid}.bin\"");
    assert_eq!(text(&response, header::CONTENT_DISPOSITION), disposition);
    let tag = text(&response, header::ETAG).to_owned();
    assert_eq!(tag, format!("\"{cid}.raw\""));
    assert_eq!(response.bytes().await.unwrap(), "hello world");

    let again = client()
        .get(running.url(&format!("/ipfs/{cid}")))
        .header(header::ACCEPT, "application/vnd.ipld.raw")
        .header(header::IF_NONE_MATCH, tag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 304);
}

#[tokio::test]
async fn head_tells_the_length_without_the_block() {
    let store = Arc::new(MemoryStore::new());
    let cid = store.put(&content(1, 5000)).unwrap();
    let running = gateway(&store).await;
    for (name, length) in [(cid.to_string(), "5000"), ("bafkqaaa".to_owned(), "0")] {
        let url = running.url(&format!("/ipfs/{name}?format=raw"));
        let response = client().request(Method::HEAD, url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(text(&response, header::CONTENT_LENGTH), length);
        assert!(response.bytes().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_part_of_a_block_can_be_had() {
    let store = Arc::new(MemoryStore::new());
    let cid = store.put(b"hello world").unwrap();
    let running = gateway(&store).await;
    let url = running.url(&format!("/ipfs/{cid}?format=raw"));
    let part = |range: &'static str| client().get(&url).header(header::RANGE, range).send();
    let response = part("bytes=6-").await.unwrap();
    assert_eq!(response.status(), 206);
    assert_eq!(text(&response, header::CONTENT_RANGE), "bytes 6-10/11");
    assert_eq!(response.bytes().await.unwrap(), "world");
    let response = part("bytes=11-").await.unwrap();
    assert_eq!(response.status(), 416);
    assert_eq!(text(&response, header::CONTENT_RANGE), "bytes */11");
}

#[tokio::test]
async fn what_cannot_be_answered_says_why() {
    let store = Arc::new(MemoryStore::new());
    let cid = store.put(b"x").unwrap();
    let absent = Cid::raw(b"nobody has this");
    let running = gateway(&store).await;
    for (path, status, says) in [
        (format!("/ipfs/{absent}?format=raw"), 404, "not stored here"),
        (format!("/ipfs/{absent}?format=car"), 404, "not stored here"),
        (format!("/ipfs/{cid}?format=tar"), 400, "tar"),
        (
            format!("/ipfs/{cid}?format=car&dag-scope=some"),
            400,
            "dag-scope",
        ),
        (
            format!("/ipfs/{cid}?format=car&entity-bytes=5"),
            400,
            "entity-bytes",
        ),
        (format!("/ipfs/{cid}/a/b?format=raw"), 400, "path"),
        ("/ipfs/hello?format=raw".to_owned(), 400, "not a CID"),
        (
            "/ipfs/QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n?format=raw".to_owned(),
            404,
            "not stored here",
        ),
    ] {
        let response = ask(&running, &path).await;
        assert_eq!(response.status(), status, "{path}");
        let body = response.text().await.unwrap();
        assert!(body.contains(says), "{path}: {body}");
    }
    let posted = client().post(running.url(&format!("/ipfs/{cid}"))).send();
    assert_eq!(posted.await.unwrap().status(), 405);
}

#[tokio::test]
async fn a_car_has_the_blocks_of_its_scope() {
    let store = Arc::new(MemoryStore::new());
    let file = content(2, 5 << 20);
    let cid = store.put(&file).unwrap();
    let running = gateway(&store).await;
    for (query, blocks) in [
        ("", 6),
        ("&dag-scope=all", 6),
        ("&dag-scope=entity", 6),
        ("&dag-scope=block", 1),
        ("&entity-bytes=0:0", 2),
        ("&entity-bytes=1048575:1048576", 3),
        ("&entity-bytes=-1:*", 2),
    ] {
        let response = ask(&running, &format!("/ipfs/{cid}?format=car{query}")).await;
        assert_eq!(response.status(), 200);
        assert!(text(&response, header::CONTENT_TYPE).starts_with("application/vnd.ipld.car"));
        let stream = response.bytes().await.unwrap();
        let there = MemoryStore::new();
        let roots = car::import(&there, &mut &stream[..], LIMIT).unwrap();
        assert_eq!(roots, [cid]);
        assert_eq!(there.usage().unwrap().blocks, blocks, "{query}");
        if blocks == 6 {
            assert_eq!(there.get(&cid, LIMIT).unwrap(), file);
        }
    }
}

#[tokio::test]
async fn a_car_of_an_incomplete_blob_breaks_off_instead_of_ending() {
    let (whole, store) = (MemoryStore::new(), Arc::new(MemoryStore::new()));
    let cid = whole.put(&content(2, 3 << 20)).unwrap();
    store
        .insert(&[whole.block(&cid).unwrap().unwrap()])
        .unwrap();
    let running = gateway(&store).await;
    let url = running.url(&format!("/ipfs/{cid}?format=car"));
    // The break can come before the client has read the head of the answer, or after.
    if let Ok(response) = client().get(url).send().await {
        assert_eq!(response.status(), 200);
        assert!(response.bytes().await.is_err());
    }
}

#[tokio::test]
async fn requests_over_the_limit_are_told_to_come_back() {
    let store = Arc::new(MemoryStore::new());
    let cid = store.put(&content(2, 64 << 20)).unwrap();
    let limits = GatewayLimits {
        concurrent_requests: 1,
    };
    let running = Running::start(router(store.clone(), limits)).await;
    // An answer that is not read to its end holds the only place.
    let held = ask(&running, &format!("/ipfs/{cid}?format=car")).await;
    let refused = ask(&running, &format!("/ipfs/{cid}?format=raw")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(text(&refused, header::RETRY_AFTER), "1");
    assert_eq!(held.bytes().await.unwrap().len() >> 20, 64);
    let url = running.url(&format!("/ipfs/{cid}?format=raw"));
    // The place is free once the server has seen the end of the body.
    while client().get(&url).send().await.unwrap().status() == 429 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_blob_is_fetched_once_and_then_it_is_here() {
    let (there, here) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let file = content(3, 5_000_000);
    let cid = there.put(&file).unwrap();
    let running = gateway(&there).await;
    let (fetcher, sources) = (fetcher(&here), [source(&running)]);
    let fetched = fetcher.fetch(&cid, &sources, LIMIT).await.unwrap();
    assert_eq!(fetched.blocks, 6);
    assert_eq!(here.get(&cid, LIMIT).unwrap(), file);
    running.stop().await;
    // Nobody needs to be asked now.
    let fetched = fetcher.fetch(&cid, &sources, LIMIT).await.unwrap();
    assert_eq!(fetched, Fetched::default());
    assert_eq!(fetcher.get(&cid, &[], LIMIT).await.unwrap(), file);
}

#[tokio::test]
async fn a_fetch_goes_on_where_it_stopped() {
    let (there, here) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let file = content(4, 5_000_000);
    let cid = there.put(&file).unwrap();
    let root = there.block(&cid).unwrap().unwrap();
    let leaf = there.any_block(&root.links().unwrap()[3]).unwrap().unwrap();
    here.insert(&[root, leaf]).unwrap();
    let running = gateway(&there).await;
    let fetched = fetcher(&here).fetch(&cid, &[source(&running)], LIMIT).await;
    assert_eq!(fetched.unwrap().blocks, 4);
    assert_eq!(here.get(&cid, LIMIT).unwrap(), file);
}

#[tokio::test]
async fn each_block_comes_from_whoever_has_it() {
    let whole = MemoryStore::new();
    let file = content(5, 3_000_000);
    let cid = whole.put(&file).unwrap();
    let root = whole.block(&cid).unwrap().unwrap();
    let parts = [Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())];
    for (index, link) in root.links().unwrap().iter().enumerate() {
        let block = whole.any_block(link).unwrap().unwrap();
        parts[index % 2].insert(&[block]).unwrap();
    }
    parts[1].insert(&[root]).unwrap();
    let (one, two) = (gateway(&parts[0]).await, gateway(&parts[1]).await);
    let here = Arc::new(MemoryStore::new());
    let got = fetcher(&here)
        .get(&cid, &[source(&one), source(&two)], LIMIT)
        .await;
    assert_eq!(got.unwrap(), file);
}

#[tokio::test]
async fn a_source_that_lies_is_asked_only_once() {
    let there = Arc::new(MemoryStore::new());
    let file = content(6, 3_000_000);
    let cid = there.put(&file).unwrap();
    let honest = gateway(&there).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let liar = get(move |Path(_): Path<String>| {
        count.fetch_add(1, Ordering::Relaxed);
        async { "these are not the bytes" }
    });
    let liar = Running::start(Router::new().route("/ipfs/{cid}", liar)).await;
    let here = Arc::new(MemoryStore::new());
    let got = fetcher(&here)
        .get(&cid, &[source(&liar), source(&honest)], LIMIT)
        .await;
    assert_eq!(got.unwrap(), file);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_nobody_has_is_missing_and_says_who_was_asked() {
    let empty = gateway(&Arc::new(MemoryStore::new())).await;
    let failing = get(|| async { StatusCode::INTERNAL_SERVER_ERROR });
    let failing = Running::start(Router::new().route("/ipfs/{cid}", failing)).await;
    let gone = gateway(&Arc::new(MemoryStore::new())).await;
    let sources = [source(&empty), source(&failing), source(&gone)];
    gone.stop().await;
    let here = Arc::new(MemoryStore::new());
    let cid = Cid::raw(b"nobody has this");
    let error = fetcher(&here)
        .fetch(&cid, &sources, LIMIT)
        .await
        .unwrap_err();
    let FetchError::Missing {
        cid: named,
        attempts,
    } = &error
    else {
        panic!("{error:?}");
    };
    assert!(*named == cid);
    assert_eq!(attempts.0.len(), 3);
    let text = error.to_string();
    for said in ["does not have it", "500", "refused"] {
        assert!(text.contains(said), "{text}");
    }
    let error = fetcher(&here).fetch(&cid, &[], LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("no source"), "{error}");
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_after_its_root() {
    let (there, here) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let cid = there.put(&content(7, 5_000_000)).unwrap();
    let running = gateway(&there).await;
    let fetched = fetcher(&here)
        .fetch(&cid, &[source(&running)], 4_999_999)
        .await;
    let error = fetched.unwrap_err();
    assert!(
        matches!(
            error,
            FetchError::TooLarge {
                size: 5_000_000,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(here.usage().unwrap().blocks, 1);
}

#[tokio::test]
async fn a_block_without_end_is_not_read_to_its_end() {
    let endless = get(|| async {
        let chunks = futures::stream::repeat(0).map(|_| Ok::<_, std::io::Error>(vec![0u8; 65536]));
        axum::body::Body::from_stream(chunks)
    });
    let running = Running::start(Router::new().route("/ipfs/{cid}", endless)).await;
    let here = Arc::new(MemoryStore::new());
    let cid = Cid::raw(b"x");
    let error = fetcher(&here)
        .fetch(&cid, &[source(&running)], LIMIT)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("other bytes"), "{error}");
}
