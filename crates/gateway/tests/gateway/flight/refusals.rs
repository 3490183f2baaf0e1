//! What is refused, and in which words.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arrow_array::{
    ArrayRef, BinaryArray, FixedSizeListArray, Float32Array, Int8Array, Int32Array, ListArray,
    RecordBatch, UInt16Array, UInt32Array,
};
use arrow_buffer::OffsetBuffer;
use arrow_flight::Action;
use arrow_schema::{
    DataType, Field, Schema,
    extension::{EXTENSION_TYPE_METADATA_KEY, EXTENSION_TYPE_NAME_KEY},
};
use flight_tonic::Code;
use futures::TryStreamExt;
use r3mes_blobs::{BlobStore, Cid};
use r3mes_gateway::flight::{FlightLimits, Name};

use super::{Node, content, descriptor, get, put, status};

#[tokio::test]
async fn nothing_is_told_or_taken_without_the_token() {
    let node = Node::start(FlightLimits::default()).await;
    let name = Name::Package(node.package_cid);
    let (_, batches) = get(&mut node.client().await, name).await;
    let mut wrong = node.stranger().await;
    let header = "Bearer 0123456789abcdef0123456789abcdeX";
    wrong.add_header("authorization", header).unwrap();
    for mut client in [node.stranger().await, wrong] {
        let name = descriptor(&name.to_string());
        let ticket = arrow_flight::Ticket::new(format!("package/{}", node.package_cid));
        let refused = [
            client.get_flight_info(name.clone()).await.map(drop),
            client.get_schema(name).await.map(drop),
            client.list_flights("").await.map(drop),
            client.do_get(ticket).await.map(drop),
            client.do_action(Action::new("stats", "")).await.map(drop),
            client.list_actions().await.map(drop),
            client.handshake("").await.map(drop),
        ];
        let mut refused: Vec<_> = refused.map(|told| status(told.unwrap_err())).to_vec();
        refused.push(
            put(&mut client, "package", batches.clone())
                .await
                .unwrap_err(),
        );
        for status in refused {
            assert_eq!(status.code(), Code::Unauthenticated, "{status}");
            assert!(status.message().contains("authorization"), "{status}");
        }
    }
}

#[tokio::test]
async fn names_that_lead_nowhere_say_so() {
    let node = Node::start(FlightLimits::default()).await;
    let mut client = node.client().await;
    let absent = Cid::raw(b"nobody has this");
    let unknown = node.store.put(b"the ledger has not heard of this").unwrap();
    for (path, code, says) in [
        (
            "tree/x".to_owned(),
            Code::InvalidArgument,
            "gradients/MINER/ROUND",
        ),
        (format!("blob/{absent}"), Code::NotFound, "not stored here"),
        (format!("block/{absent}"), Code::NotFound, "not stored here"),
        (
            format!("adapter/{absent}"),
            Code::NotFound,
            "not stored here",
        ),
        (
            format!("adapter/{unknown}"),
            Code::NotFound,
            "knows no adapter",
        ),
        (
            format!("package/{}", node.adapter),
            Code::FailedPrecondition,
            "no package",
        ),
        (
            format!("gradients/{}/9", node.miner),
            Code::NotFound,
            "recorded",
        ),
    ] {
        let refused = client.get_flight_info(descriptor(&path)).await;
        let refused = status(refused.unwrap_err());
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(says), "{refused}");
    }
}

#[tokio::test]
async fn tables_that_stand_for_nothing_are_refused_with_what_is_wrong() {
    let node = Node::start(FlightLimits::default()).await;
    let mut client = node.client().await;
    let wide = [("q.a", [2, 3]), ("q.b", [4, 3])];
    let pair = [("q.a", [2, 3]), ("q.b", [4, 2])];
    let odd = [("q.a", [2, 3]), ("q.b", [4, 2]), ("z.a", [1, 1])];
    let missing = Cid::raw(b"another");
    let expected = format!("package/{missing}");
    let good = (0.5, vec![1, 5], vec![64, -3]);
    for (path, batch, says) in [
        ("tree", adapter(&pair, 0, 1.0), "adapter, package or blob"),
        ("adapter", adapter(&pair[..1], 0, 1.0), "belong together"),
        ("adapter", adapter(&wide, 0, 1.0), "[rank, in]"),
        ("adapter", adapter(&odd, 0, 1.0), "no column of an adapter"),
        ("adapter", adapter(&pair, 1, 1.0), "layer 0 is missing"),
        ("adapter", adapter(&pair, 0, f32::NAN), "not finite"),
        ("adapter", plain_lists(), "fixed_shape_tensor"),
        ("adapter", package("8", good.clone()), "missing"),
        ("package", adapter(&pair, 0, 1.0), "r3mes.parameters"),
        ("package", package("many", good.clone()), "whole number"),
        ("package", package("0", good.clone()), "outside"),
        ("package", package("20", good.clone()), "ends early"),
        (
            "package",
            package("8", (0.3, vec![1], vec![64])),
            "power of two",
        ),
        (
            "package",
            package("8", (0.5, vec![5, 1], vec![64, 1])),
            "out of order",
        ),
        (
            "package",
            package("8", (0.5, vec![1, 5], vec![64])),
            "of codes",
        ),
        (
            "package",
            package("8", (0.5, vec![1, 9], vec![64, 1])),
            "outside",
        ),
        ("package", package("8", (0.5, vec![1], vec![0])), "code 0"),
        (
            "package",
            package("8", (0.5, vec![1], vec![3])),
            "smallest power",
        ),
        (&expected, package("8", good), &missing.to_string()),
        ("blob", adapter(&pair, 0, 1.0), "missing"),
    ] {
        let refused = put(&mut client, path, vec![batch]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{says}: {refused}");
        assert!(refused.message().contains(says), "{says}: {refused}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_whole() {
    let limits = FlightLimits {
        max_bytes: 1000,
        ..FlightLimits::default()
    };
    let node = Node::start(limits).await;
    let mut client = node.client().await;
    let pieces = BinaryArray::from_iter_values([[7; 600], [8; 600]]);
    let schema = Schema::new(vec![Field::new("bytes", DataType::Binary, false)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(pieces)]).unwrap();
    let refused = put(
        &mut client,
        "blob",
        vec![batch.slice(0, 1), batch.slice(1, 1)],
    )
    .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("1000"), "{refused}");
    put(&mut client, "blob", vec![batch.slice(0, 1)])
        .await
        .unwrap();

    let name = descriptor(&format!("package/{}", node.package_cid));
    let refused = status(client.get_flight_info(name).await.unwrap_err());
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
}

#[tokio::test]
async fn a_table_that_is_read_too_slowly_ends_with_an_error() {
    let limits = FlightLimits {
        concurrent_gets: 1,
        patience: Duration::from_millis(50),
        ..FlightLimits::default()
    };
    let node = Node::start(limits).await;
    let file = node.store.put(&content(5, 32 << 20)).unwrap();
    let mut client = node.client().await;
    let flight = descriptor(&format!("blob/{file}"));
    let info = client.get_flight_info(flight.clone()).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut table = client.do_get(ticket).await.unwrap();
    assert!(table.try_next().await.unwrap().is_some());
    // The only place is free again as soon as the service gives the reader up.
    let mut other = node.client().await;
    while let Err(refusal) = other.get_flight_info(flight.clone()).await {
        assert_eq!(status(refusal).code(), Code::ResourceExhausted);
    }
    let rest: Result<Vec<_>, _> = table.try_collect().await;
    let refusal = status(rest.unwrap_err());
    assert_eq!(refusal.code(), Code::DeadlineExceeded, "{refusal}");
}

#[tokio::test]
async fn messages_that_are_not_arrow_are_refused_and_the_node_serves_on() {
    let node = Node::start(FlightLimits::default()).await;
    let mut client = node.client().await;
    let name = Name::Package(node.package_cid);
    let (_, batches) = get(&mut client, name).await;
    let encoded = arrow_flight::encode::FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor("package")))
        .build(futures::stream::iter(batches.clone().into_iter().map(Ok)));
    let messages: Vec<_> = encoded.try_collect().await.unwrap();
    // Every byte of the schema's and the first batch's header, damaged in turn.
    let mut refused = 0;
    for message in 0..2 {
        for at in 0..messages[message].data_header.len() {
            let mut damaged = messages.clone();
            let mut header = damaged[message].data_header.to_vec();
            header[at] ^= 0xff;
            damaged[message].data_header = header.into();
            let answers = client
                .do_put(futures::stream::iter(damaged.into_iter().map(Ok)))
                .await;
            let answered = match answers {
                Ok(answers) => answers.try_collect::<Vec<_>>().await,
                Err(error) => Err(error),
            };
            if let Err(error) = answered {
                refused += 1;
                let status = status(error);
                assert!(!status.message().is_empty(), "byte {at}: {status:?}");
            }
        }
    }
    assert!(refused > 100, "{refused}");
    let cid = put(&mut client, "package", batches).await.unwrap();
    assert_eq!(cid, node.package_cid.to_string());
}

/// One row of tensors.
fn adapter(tensors: &[(&str, [usize; 2])], layer: u32, number: f32) -> RecordBatch {
    let mut fields = vec![Field::new("layer", DataType::UInt32, false)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(vec![layer]))];
    for &(name, shape) in tensors {
        let size = shape[0] * shape[1];
        let values = Arc::new(Float32Array::from(vec![number; size]));
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        let list = FixedSizeListArray::new(Arc::clone(&item), size as i32, values, None);
        let mut field = Field::new(name, DataType::FixedSizeList(item, size as i32), true);
        field.set_metadata(HashMap::from([
            (
                EXTENSION_TYPE_NAME_KEY.to_owned(),
                "arrow.fixed_shape_tensor".to_owned(),
            ),
            (
                EXTENSION_TYPE_METADATA_KEY.to_owned(),
                format!("{{\"shape\":{shape:?}}}"),
            ),
        ]));
        fields.push(field);
        columns.push(Arc::new(list));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Numbers whose shape nothing tells.
fn plain_lists() -> RecordBatch {
    let table = adapter(&[("q.a", [2, 3]), ("q.b", [4, 2])], 0, 1.0);
    let fields = table.schema();
    let plain = fields.fields().iter();
    let plain: Vec<_> = plain
        .map(|field| Field::clone(field).with_metadata(HashMap::new()))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(plain)), table.columns().to_vec()).unwrap()
}

/// One chunk of up to eight entries.
fn package(parameters: &str, (scale, positions, codes): (f32, Vec<u16>, Vec<i8>)) -> RecordBatch {
    let metadata = HashMap::from([
        ("r3mes.parameters".to_owned(), parameters.to_owned()),
        ("r3mes.chunk".to_owned(), "8".to_owned()),
    ]);
    let list = |values: ArrayRef| -> ArrayRef {
        let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        Arc::new(ListArray::new(item, offsets, values, None))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("chunk", Arc::new(UInt32Array::from(vec![0]))),
        ("scale", Arc::new(Float32Array::from(vec![scale]))),
        ("positions", list(Arc::new(UInt16Array::from(positions)))),
        ("codes", list(Arc::new(Int8Array::from(codes)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let schema = Schema::clone(&batch.schema()).with_metadata(metadata);
    batch.with_schema(Arc::new(schema)).unwrap()
}

#[tokio::test]
async fn columns_of_another_type_are_refused_by_name() {
    let node = Node::start(FlightLimits::default()).await;
    let mut client = node.client().await;
    let table = package("8", (0.5, vec![1], vec![64]));
    for (index, name) in ["chunk", "scale", "positions", "codes"].iter().enumerate() {
        let mut columns = table.columns().to_vec();
        columns[index] = Arc::new(Int32Array::from(vec![0]));
        let names = table.schema();
        let names = names.fields().iter().map(|field| field.name().clone());
        let batch = RecordBatch::try_from_iter(names.zip(columns)).unwrap();
        let metadata = table.schema().metadata().clone();
        let schema = Schema::clone(&batch.schema()).with_metadata(metadata);
        let batch = batch.with_schema(Arc::new(schema)).unwrap();
        let refused = put(&mut client, "package", vec![batch]).await.unwrap_err();
        assert!(refused.message().contains(name), "{refused}");
        assert!(refused.message().contains("not Int32"), "{refused}");
    }
}
