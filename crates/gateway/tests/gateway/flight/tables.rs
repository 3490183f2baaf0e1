//! What is read is right, and what is written back has the same CID.

use arrow_array::{
    cast::AsArray,
    types::{Float32Type, Int8Type, UInt16Type, UInt32Type},
};
use arrow_flight::Action;
use futures::TryStreamExt;
use r3mes_blobs::{BlobStore, CHUNK_BYTES, Cid};
use r3mes_gateway::flight::{FlightLimits, Name};
use serde_json::{Value, json};

use super::{Node, ROUND, content, descriptor, get, put};

#[tokio::test]
async fn an_adapter_is_a_row_for_each_layer_and_its_schema_tells_every_shape() {
    let node = Node::start(FlightLimits::default()).await;
    let mut client = node.client().await;
    let (schema, batches) = get(&mut client, Name::Adapter(node.adapter)).await;
    assert_eq!(schema.metadata["r3mes.rank"], "8");
    assert_eq!(schema.metadata["r3mes.round"], ROUND.to_string());
    assert_eq!(schema.metadata["r3mes.cid"], node.adapter.to_string());

    for pair in node.layout.pairs() {
        let (name, site) = (pair.linear.name(), &pair.site);
        for (factor, shape, range) in [
            ("a", [site.rank, site.inputs], pair.a()),
            ("b", [site.outputs, site.rank], pair.b()),
        ] {
            let name = format!("{name}.{factor}");
            let field = schema.field_with_name(&name).unwrap();
            assert_eq!(
                field.extension_type_name(),
                Some("arrow.fixed_shape_tensor")
            );
            let tensor: Value =
                serde_json::from_str(field.extension_type_metadata().unwrap()).unwrap();
            assert_eq!(tensor["shape"], json!(shape), "{name}");
            let batch = &batches[pair.layer];
            let layer = batch.column(0).as_primitive::<UInt32Type>().value(0);
            assert_eq!(layer as usize, pair.layer);
            let values = batch.column_by_name(&name).unwrap();
            let values = values.as_fixed_size_list().value(0);
            let values = values.as_primitive::<Float32Type>().values();
            assert_eq!(values, &node.numbers[range], "{name} of layer {layer}");
        }
    }

    let cid = put(&mut client, "adapter", batches).await.unwrap();
    assert_eq!(cid, node.adapter.to_string());
}

#[tokio::test]
async fn a_package_is_a_row_for_each_chunk_under_its_cid_and_under_its_miner_and_round() {
    let node = Node::start(FlightLimits::default()).await;
    let mut client = node.client().await;
    let (miner, round) = (node.miner, ROUND);
    for name in [
        Name::Package(node.package_cid),
        Name::Gradients { miner, round },
    ] {
        let (schema, batches) = get(&mut client, name).await;
        assert_eq!(schema.metadata["r3mes.chunk"], "4096");
        let mut entries = Vec::new();
        for batch in &batches {
            let chunks = batch.column(0).as_primitive::<UInt32Type>();
            let scales = batch.column(1).as_primitive::<Float32Type>();
            for row in 0..batch.num_rows() {
                let positions = batch.column(2).as_list::<i32>().value(row);
                let codes = batch.column(3).as_list::<i32>().value(row);
                let positions = positions.as_primitive::<UInt16Type>().values();
                let codes = codes.as_primitive::<Int8Type>().values();
                for (&position, &code) in positions.iter().zip(codes) {
                    let at = chunks.value(row) as usize * 4096 + usize::from(position);
                    let value = f64::from(code) * f64::from(scales.value(row));
                    entries.push((at, value));
                }
            }
        }
        let unit = 2f64.powi(-40);
        let sent = node.package.fixed_point();
        let sent: Vec<_> = sent.map(|(at, value)| (at, value as f64 * unit)).collect();
        assert!(entries.len() > 100 && entries == sent, "{name}");

        let cid = put(&mut client, &name.to_string(), batches).await.unwrap();
        assert_eq!(cid, node.package_cid.to_string());
    }
}

#[tokio::test]
async fn a_file_of_several_pieces_comes_as_it_is_and_goes_back() {
    let node = Node::start(FlightLimits::default()).await;
    let mut client = node.client().await;
    let file = content(5, 2 * CHUNK_BYTES + 77);
    let cid = node.store.put(&file).unwrap();
    let (_, batches) = get(&mut client, Name::Blob(cid)).await;
    let pieces = batches
        .iter()
        .map(|batch| batch.column(0).as_binary::<i32>());
    let pieces: Vec<u8> = pieces.flat_map(|piece| piece.value(0).to_vec()).collect();
    assert_eq!(pieces, file);
    let path = format!("blob/{cid}");
    assert_eq!(
        put(&mut client, &path, batches).await.unwrap(),
        cid.to_string()
    );
}

#[tokio::test]
async fn flights_are_listed_that_are_here_and_told_of_before_they_are_fetched() {
    let node = Node::start(FlightLimits::default()).await;
    let mut client = node.client().await;
    let mut names = Vec::new();
    for prefix in ["", "gradients/"] {
        let listed = client.list_flights(prefix).await.unwrap();
        let listed: Vec<_> = listed.try_collect().await.unwrap();
        names.push(listed.len());
        let last = listed.last().unwrap();
        let path = &last.flight_descriptor.as_ref().unwrap().path;
        let expected = [
            "gradients".to_owned(),
            node.miner.to_string(),
            ROUND.to_string(),
        ];
        assert_eq!(path, &expected);
        assert_eq!(last.total_bytes as usize, node.package.encode().len());
        assert_eq!(last.app_metadata, node.package_cid.to_string());
    }
    assert_eq!(names, [2, 1]);

    let name = descriptor(&format!("adapter/{}", node.adapter));
    let schema = client.get_schema(name.clone()).await.unwrap();
    let info = client.get_flight_info(name).await.unwrap();
    assert_eq!(info.total_bytes as usize, 4 * node.numbers.len());
    assert_eq!(info.total_records as usize, node.layout.pairs().len() / 7);
    assert_eq!(info.try_decode_schema().unwrap(), schema);
}

#[tokio::test]
async fn what_was_written_is_kept_until_it_is_deleted() {
    let node = Node::start(FlightLimits::default()).await;
    let mut client = node.client().await;
    let (_, batches) = get(&mut client, Name::Package(node.package_cid)).await;
    put(&mut client, "package", batches).await.unwrap();
    let written = async |client: &mut arrow_flight::FlightClient| {
        let answer = client.do_action(Action::new("stats", "")).await.unwrap();
        let answer: Vec<_> = answer.try_collect().await.unwrap();
        let stats: Value = serde_json::from_slice(&answer[0]).unwrap();
        stats["written"].as_u64().unwrap()
    };
    assert_eq!(written(&mut client).await, 1);
    let delete = Action::new("delete", node.package_cid.to_string());
    let answer = client.do_action(delete.clone()).await.unwrap();
    let _: Vec<_> = answer.try_collect().await.unwrap();
    assert_eq!(written(&mut client).await, 0);
    assert!(
        client.do_action(delete).await.is_err(),
        "nothing is left to delete"
    );
    let cid: Cid = node.package_cid;
    assert!(node.store.pins().unwrap().iter().all(|pin| pin.root != cid));

    let types = client.list_actions().await.unwrap();
    let types: Vec<_> = types.try_collect().await.unwrap();
    assert_eq!(types.len(), 3);
    for action in ["stats", "cleanup"] {
        let told = client.do_action(Action::new(action, "")).await.unwrap();
        let told: Vec<_> = told.try_collect().await.unwrap();
        assert!(told[0].starts_with(b"{"), "{told:?}");
    }
}
