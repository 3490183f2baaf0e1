//! The rules of the IPFS trustless gateway specification, one by one.

use std::sync::Arc;

use r3mes_blobs::{AnyCid, BlobStore, Block, Cid, MemoryStore, car};
use r3mes_gateway::ipfs::{GatewayLimits, router};
use reqwest::{Method, Response, header};

use super::support::{Running, client, content};

pub(super) const LIMIT: u64 = 100 << 20;
pub(super) const RAW: &str = "application/vnd.ipld.raw";
pub(super) const CAR: &str = "application/vnd.ipld.car";
pub(super) const PLAIN_CAR: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=n";

/// A gateway over a store with a file of four leaves, two of which are the same.
pub(super) struct Fixture {
    pub(super) store: Arc<MemoryStore>,
    pub(super) running: Running,
    pub(super) cid: AnyCid,
    pub(super) leaves: Vec<AnyCid>,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let mut file = content(1, 1 << 20);
        file.extend_from_within(..);
        file.extend(content(2, 1_500_000));
        let cid = AnyCid::from(store.put(&file).unwrap());
        let leaves = store.any_block(&cid).unwrap().unwrap().links().unwrap();
        assert_eq!((leaves.len(), &leaves[0]), (4, &leaves[1]));
        let running = Running::start(router(store.clone(), GatewayLimits::default())).await;
        Self {
            store,
            running,
            cid,
            leaves,
        }
    }

    pub(super) async fn get(&self, path: &str, headers: &[(header::HeaderName, &str)]) -> Response {
        self.ask(Method::GET, path, headers).await
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
    ) -> Response {
        let mut request = client().request(method, self.running.url(path));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request.send().await.unwrap()
    }

    /// The CIDs of a CAR's blocks in order, each block checked.
    pub(super) async fn blocks(&self, path: &str) -> Vec<AnyCid> {
        let response = self.get(path, &[]).await;
        assert_eq!(response.status(), 200, "{path}");
        let bytes = response.bytes().await.unwrap();
        let mut stream = &bytes[..];
        let mut reader = car::Reader::new(&mut stream, LIMIT).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block().unwrap() {
            blocks.push(block.cid().clone());
        }
        blocks
    }

    pub(super) fn car(&self, query: &str) -> String {
        format!("/ipfs/{}?format=car{query}", self.cid)
    }

    /// Stores a directory with one entry.
    pub(super) fn directory(&self, name: &str, of: impl Into<AnyCid>) -> AnyCid {
        self.keep(node(&[(name, &of.into())], DIRECTORY))
    }

    /// Stores a `dag-pb` node.
    pub(super) fn keep(&self, node: Vec<u8>) -> AnyCid {
        self.insert(Block::verify(Cid::dag_pb(&node), node.into()).unwrap())
    }

    pub(super) fn insert(&self, block: Block) -> AnyCid {
        self.store.insert(std::slice::from_ref(&block)).unwrap();
        block.cid().clone()
    }
}

/// The UnixFS data of a directory.
pub(super) const DIRECTORY: &[u8] = &[8, 1];

/// A `dag-pb` node.
pub(super) fn node(links: &[(&str, &AnyCid)], data: &[u8]) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
    let link = |(name, cid): &(&str, &AnyCid)| {
        let hash = field(0x0a, &cid.to_bytes());
        field(0x12, &[hash, field(0x12, name.as_bytes())].concat())
    };
    let links: Vec<u8> = links.iter().flat_map(link).collect();
    [links, field(0x0a, data)].concat()
}

pub(super) fn text<'r>(response: &'r Response, name: &header::HeaderName) -> &'r str {
    response.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn the_format_parameter_wins_over_the_accept_header() {
    let fixture = Fixture::new().await;
    let path = format!("/ipfs/{}?format=raw", fixture.cid);
    let response = fixture.get(&path, &[(header::ACCEPT, CAR)]).await;
    assert_eq!(text(&response, &header::CONTENT_TYPE), RAW);
    // A cache may not take this for the CAR that the header asked for.
    assert_eq!(text(&response, &header::CONTENT_LOCATION), path);
}

#[tokio::test]
async fn the_most_wanted_type_that_is_served_is_sent() {
    let fixture = Fixture::new().await;
    let path = format!("/ipfs/{}", fixture.cid);
    let dups = "application/vnd.ipld.car; version=1; order=dfs; dups=y";
    for (accept, kind) in [
        (RAW.to_owned(), RAW),
        (CAR.to_owned(), PLAIN_CAR),
        (format!("text/html, {RAW};q=0.4, {CAR};q=0.7"), PLAIN_CAR),
        (format!("{CAR};q=0.3, {RAW}"), RAW),
        (format!("{CAR};q=0, {RAW};q=0.1"), RAW),
        (
            format!("{CAR};order=foo, {CAR};order=dfs;dups=y;q=0.5"),
            dups,
        ),
        (format!("{CAR}; version=1; order=unk; dups=n"), PLAIN_CAR),
        (format!("{CAR};version=2, {RAW};q=0.1"), RAW),
        // Ranges of types, of which the narrower counts; a type by its name comes before a range.
        ("*/*".to_owned(), RAW),
        ("text/html, application/*;q=0.9, */*;q=0.8".to_owned(), RAW),
        (format!("*/*, {CAR}"), PLAIN_CAR),
        (format!("*/*;q=0.5, {RAW};q=0.1"), PLAIN_CAR),
        (format!("*/*, {RAW};q=0"), PLAIN_CAR),
        (format!("{CAR};version=2, */*;q=0.1"), RAW),
        (format!("{CAR};q=0.2, application/*;q=0.1, */*"), PLAIN_CAR),
    ] {
        let response = fixture.get(&path, &[(header::ACCEPT, &accept)]).await;
        assert_eq!(response.status(), 200, "{accept}");
        assert_eq!(text(&response, &header::CONTENT_TYPE), kind, "{accept}");
        assert_eq!(text(&response, &header::VARY), "accept");
    }
}

#[tokio::test]
async fn a_request_that_names_no_form_is_bad_and_an_unknown_one_not_acceptable() {
    let fixture = Fixture::new().await;
    let path = format!("/ipfs/{}", fixture.cid);
    assert_eq!(
        fixture.get(&path, &[(header::ACCEPT, "")]).await.status(),
        406
    );
    for accept in [
        "text/*",
        "text/html",
        "*/*;q=0",
        "application/*;q=0, */*",
        &format!("{CAR};version=2"),
        &format!("{CAR};q=0"),
    ] {
        let response = fixture.get(&path, &[(header::ACCEPT, accept)]).await;
        assert_eq!(response.status(), 406, "{accept}");
        let says = response.text().await.unwrap();
        assert!(says.contains("application/vnd.ipld.car"), "{says}");
    }
    // reqwest always sends the header, so this speaks for itself.
    let bare = super::support::bare_get(&fixture.running, &path).await;
    assert!(bare.starts_with("HTTP/1.1 400"), "{bare}");
}

#[tokio::test]
async fn a_car_says_its_version_order_and_duplicates() {
    let fixture = Fixture::new().await;
    for (query, dups) in [
        ("", "n"),
        ("&car-version=1&car-order=dfs&car-dups=n", "n"),
        ("&car-order=unk", "n"),
        ("&car-dups=y", "y"),
    ] {
        let response = fixture.get(&fixture.car(query), &[]).await;
        let kind = format!("{CAR}; version=1; order=dfs; dups={dups}");
        assert_eq!(text(&response, &header::CONTENT_TYPE), kind, "{query}");
        assert_eq!(text(&response, &header::ACCEPT_RANGES), "none");
    }
    for query in ["&car-version=2", "&car-order=bfs", "&car-dups=yes"] {
        let response = fixture.get(&fixture.car(query), &[]).await;
        assert_eq!(response.status(), 400, "{query}");
    }
}

#[tokio::test]
async fn the_car_parameters_win_over_those_in_accept_and_the_answer_says_where_it_is() {
    let fixture = Fixture::new().await;
    let accept = format!("{CAR};dups=y;order=dfs");
    let (path, asked) = (fixture.car("&car-dups=n"), [(header::ACCEPT, &*accept)]);
    let response = fixture.get(&path, &asked).await;
    assert_eq!(text(&response, &header::CONTENT_TYPE), PLAIN_CAR);
    let location = text(&response, &header::CONTENT_LOCATION);
    let expected = fixture.car("&car-version=1&car-order=dfs&car-dups=n");
    assert_eq!(location, expected);
    // What Accept asks for and is not served does not matter where the URL says something else.
    for (query, accept) in [
        ("&car-version=1", "version=2"),
        ("&car-order=dfs", "order=bfs"),
        ("&car-dups=n", "dups=maybe"),
    ] {
        let accept = format!("{CAR};{accept}");
        let accept = [(header::ACCEPT, &*accept)];
        for path in [
            fixture.car(query),
            format!("/ipfs/{}?{}", fixture.cid, &query[1..]),
        ] {
            let response = fixture.get(&path, &accept).await;
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(text(&response, &header::CONTENT_TYPE), PLAIN_CAR);
            assert!(response.headers().contains_key(header::CONTENT_LOCATION));
        }
        let response = fixture.get(&fixture.car(""), &accept).await;
        assert_eq!(response.status(), 406, "{query}");
    }
}

#[tokio::test]
async fn a_form_that_only_accept_names_has_an_address_of_its_own() {
    let fixture = Fixture::new().await;
    let path = format!("/ipfs/{}", fixture.cid);
    let response = fixture.get(&path, &[(header::ACCEPT, RAW)]).await;
    assert_eq!(
        text(&response, &header::CONTENT_LOCATION),
        format!("{path}?format=raw")
    );
    let response = fixture
        .get(&format!("{path}?dag-scope=block"), &[(header::ACCEPT, CAR)])
        .await;
    let location = text(&response, &header::CONTENT_LOCATION).to_owned();
    assert!(location.ends_with("&dag-scope=block"), "{location}");
    let same = fixture.get(&location, &[]).await;
    assert!(!same.headers().contains_key(header::CONTENT_LOCATION));
    assert_eq!(same.bytes().await.unwrap(), response.bytes().await.unwrap());
}

#[tokio::test]
async fn duplicate_blocks_are_sent_once_or_each_time_as_asked() {
    let fixture = Fixture::new().await;
    let leaves = &fixture.leaves;
    let root = std::slice::from_ref(&fixture.cid);
    let once = [root, &leaves[..1], &leaves[2..]].concat();
    assert_eq!(fixture.blocks(&fixture.car("")).await, once);
    let each = [root, leaves].concat();
    assert_eq!(fixture.blocks(&fixture.car("&car-dups=y")).await, each);
    let entity = fixture.car("&dag-scope=entity&car-dups=y");
    assert_eq!(fixture.blocks(&entity).await, each);
}

#[tokio::test]
async fn entity_bytes_give_the_least_blocks_that_prove_them() {
    let fixture = Fixture::new().await;
    for (bytes, wanted) in [
        ("0:*", &[0, 2, 3][..]),
        ("0:0", &[0]),
        ("2097152:2097152", &[2]),
        ("-1:*", &[3]),
        ("-1500000:-500001", &[2]),
        // Both ends within a block, the second counted from the end.
        ("1048000:2098000", &[0, 2]),
        ("2097152:-1", &[2, 3]),
        ("3000000:-100000", &[2, 3]),
        // In part outside.
        ("3000000:99999999", &[2, 3]),
        ("-99999999:0", &[0]),
        // Nothing at all, though each end lies within.
        ("3000000:-3000000", &[]),
    ] {
        let mut blocks = vec![fixture.cid.clone()];
        blocks.extend(wanted.iter().map(|leaf| fixture.leaves[*leaf].clone()));
        let path = fixture.car(&format!("&entity-bytes={bytes}"));
        assert_eq!(fixture.blocks(&path).await, blocks, "{bytes}");
    }
}

#[tokio::test]
async fn entity_bytes_that_are_malformed_or_wholly_outside_are_refused() {
    let fixture = Fixture::new().await;
    for bytes in [
        "5",
        "a:b",
        "2:1",
        "-1:-2",
        "*:5",
        "99999999:*",
        "-9999999:-9999998",
    ] {
        let path = fixture.car(&format!("&entity-bytes={bytes}"));
        assert_eq!(fixture.get(&path, &[]).await.status(), 400, "{bytes}");
    }
}

#[tokio::test]
async fn a_path_is_proved_by_the_directories_on_it() {
    let fixture = Fixture::new().await;
    let inner = fixture.directory("file name.bin", &fixture.cid);
    let outer = fixture.directory("inner", &inner);
    let path = format!("/ipfs/{outer}/inner/file%20name.bin?format=car");
    let leaves = fixture.leaves.clone();
    let way = [outer.clone(), inner, fixture.cid.clone()];
    let whole = [&way, &leaves[..1], &leaves[2..]].concat();
    assert_eq!(fixture.blocks(&path).await, whole);
    let block = format!("{path}&dag-scope=block");
    assert_eq!(fixture.blocks(&block).await, whole[..3]);
    let bytes = format!("{path}&entity-bytes=0:0");
    assert_eq!(fixture.blocks(&bytes).await, whole[..4]);
    // A directory is an entity without what lies in it, and has no bytes to choose from.
    for query in ["dag-scope=entity", "entity-bytes=5:9"] {
        let listing = format!("/ipfs/{outer}/inner/?format=car&{query}");
        assert_eq!(fixture.blocks(&listing).await, whole[..2], "{query}");
    }
}

#[tokio::test]
async fn a_path_that_does_not_exist_is_not_found_and_the_part_is_named() {
    let fixture = Fixture::new().await;
    let outer = fixture.directory("inner", &fixture.cid);
    for (below, named) in [("other", "other"), ("inner/deeper", "deeper")] {
        let path = format!("/ipfs/{outer}/{below}?format=car");
        let response = fixture.get(&path, &[]).await;
        assert_eq!(response.status(), 404, "{below}");
        let body = response.text().await.unwrap();
        assert!(body.contains(&format!("no \"{named}\"")), "{body}");
    }
    // What the directory names may be missing here as well.
    let absent = fixture.directory("gone", Cid::raw(b"nobody has this"));
    let path = format!("/ipfs/{absent}/gone?format=car");
    assert_eq!(fixture.get(&path, &[]).await.status(), 404);
}

#[tokio::test]
async fn names_that_could_leave_the_path_are_refused() {
    let fixture = Fixture::new().await;
    let long = "a/".repeat(65);
    for below in ["%2E%2E/x", "a//b", "a%2Fb", "%ff", "a%00", &long] {
        let path = format!("/ipfs/{}/{below}?format=car", fixture.cid);
        assert_eq!(fixture.get(&path, &[]).await.status(), 400, "{below}");
    }
}

#[tokio::test]
async fn a_raw_block_has_no_path() {
    let fixture = Fixture::new().await;
    let outer = fixture.directory("inner", &fixture.cid);
    let path = format!("/ipfs/{outer}/inner?format=raw");
    assert_eq!(fixture.get(&path, &[]).await.status(), 400);
    let slash = format!("/ipfs/{outer}/?format=raw");
    assert_eq!(fixture.get(&slash, &[]).await.status(), 200);
}

#[tokio::test]
async fn only_if_cached_is_answered_412_for_what_is_not_here() {
    let fixture = Fixture::new().await;
    let only = [(header::CACHE_CONTROL, "no-transform, only-if-cached")];
    let absent = Cid::raw(b"nobody has this");
    for format in ["raw", "car"] {
        for (cid, status) in [(AnyCid::from(absent), 412), (fixture.cid.clone(), 200)] {
            let path = format!("/ipfs/{cid}?format={format}");
            let response = fixture.ask(Method::HEAD, &path, &only).await;
            assert_eq!(response.status(), status, "{path}");
            let response = fixture.get(&path, &only).await;
            assert_eq!(response.status(), status, "{path}");
            let empty = response.bytes().await.unwrap().is_empty();
            assert_eq!(empty, status == 412);
        }
    }
}

#[tokio::test]
async fn each_form_and_scope_has_an_entity_tag_of_its_own_that_answers_304() {
    let fixture = Fixture::new().await;
    let outer = fixture.directory("inner", &fixture.cid);
    let mut tags = Vec::new();
    for path in [
        format!("/ipfs/{}?format=raw", fixture.cid),
        fixture.car(""),
        fixture.car("&dag-scope=block"),
        fixture.car("&dag-scope=entity"),
        fixture.car("&entity-bytes=0:9"),
        fixture.car("&entity-bytes=0:10"),
        fixture.car("&car-dups=y"),
        format!("/ipfs/{outer}?format=car"),
        format!("/ipfs/{outer}/inner?format=car"),
    ] {
        let response = fixture.ask(Method::HEAD, &path, &[]).await;
        let tag = text(&response, &header::ETAG).to_owned();
        assert_eq!(tag.starts_with("W/"), path.contains("format=car"), "{tag}");
        for known in [&tag, &format!("\"other\", {tag}"), "*"] {
            let again = [(header::IF_NONE_MATCH, known)];
            let again = fixture.get(&path, &again).await;
            assert_eq!(again.status(), 304, "{path}: {known}");
            assert_eq!(text(&again, &header::ETAG), tag);
            assert!(again.bytes().await.unwrap().is_empty());
        }
        let other = [(header::IF_NONE_MATCH, "\"other\"")];
        assert_eq!(fixture.get(&path, &other).await.status(), 200);
        tags.push(tag);
    }
    let count = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), count);
    // What is not here is not confirmed either.
    let absent = format!("/ipfs/{}?format=raw", Cid::raw(b"nobody has this"));
    let any = [(header::IF_NONE_MATCH, "*")];
    assert_eq!(fixture.get(&absent, &any).await.status(), 404);
}

#[tokio::test]
async fn answers_may_be_kept_for_ever_and_are_never_rendered() {
    let fixture = Fixture::new().await;
    for (format, ending) in [("raw", "bin"), ("car", "car")] {
        let path = format!("/ipfs/{}?format={format}", fixture.cid);
        for method in [Method::GET, Method::HEAD] {
            let response = fixture.ask(method, &path, &[]).await;
            let cache = text(&response, &header::CACHE_CONTROL);
            assert_eq!(cache, "public, max-age=29030400, immutable");
            assert_eq!(text(&response, &header::X_CONTENT_TYPE_OPTIONS), "nosniff");
            let disposition = format!("attachment; filename=\"{}.{ending}\"", fixture.cid);
            assert_eq!(text(&response, &header::CONTENT_DISPOSITION), disposition);
        }
    }
}

#[tokio::test]
async fn a_file_name_that_is_wished_for_is_sent_in_ascii_and_in_full() {
    let fixture = Fixture::new().await;
    for (wish, disposition) in [
        ("model.car", "attachment; filename=\"model.car\""),
        ("a%22%0d%0ab", "attachment; filename=\"a___b\""),
        (
            "%C3%A4.car",
            "attachment; filename=\"_.car\"; filename*=UTF-8''%C3%A4%2Ecar",
        ),
    ] {
        let path = fixture.car(&format!("&dag-scope=block&filename={wish}"));
        let response = fixture.get(&path, &[]).await;
        assert_eq!(text(&response, &header::CONTENT_DISPOSITION), disposition);
    }
}

#[tokio::test]
async fn a_service_worker_may_not_be_registered() {
    let fixture = Fixture::new().await;
    let worker = [(header::HeaderName::from_static("service-worker"), "script")];
    let path = format!("/ipfs/{}?format=raw", fixture.cid);
    assert_eq!(fixture.get(&path, &worker).await.status(), 400);
}

#[tokio::test]
async fn pages_of_any_origin_may_ask() {
    let fixture = Fixture::new().await;
    let path = format!("/ipfs/{}?format=raw", fixture.cid);
    let asked = fixture.ask(Method::OPTIONS, &path, &[]).await;
    assert_eq!(asked.status(), 204);
    for response in [asked, fixture.get(&path, &[]).await] {
        let any = text(&response, &header::ACCESS_CONTROL_ALLOW_ORIGIN);
        assert_eq!(any, "*");
        let shown = text(&response, &header::ACCESS_CONTROL_EXPOSE_HEADERS);
        assert!(shown.contains("Content-Range"), "{shown}");
    }
}
