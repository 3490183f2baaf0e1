#![expect(clippy::disallowed_methods, reason = "powers of two are exact")]
use proptest::prelude::*;
use r3mes_training::package::{CompressError, DecodePackageError, Package, Shape, ShapeError};
use r3mes_training::state::hash_floats;

use crate::{shape, values};

const DECAY: f32 = 0.95;

/// The definition, written as naively as possible: which positions of a chunk
/// are sent, with which value.
fn naive_chunk(e: &[f32], top_k: usize) -> Vec<(usize, f64)> {
    let mut order: Vec<usize> = (0..e.len()).collect();
    order.sort_by(|&a, &b| {
        f64::from(e[b].abs())
            .total_cmp(&f64::from(e[a].abs()))
            .then(a.cmp(&b))
    });
    order.truncate(top_k);
    let largest = f64::from(e[order[0]].abs());
    let mut scale = 2f64.powi(-40);
    while largest > 127.0 * scale {
        scale *= 2.0;
    }
    order.sort_unstable();
    let sent = order
        .into_iter()
        .map(|at| (at, (f64::from(e[at]) / scale).round_ties_even() * scale));
    sent.filter(|&(_, value)| value != 0.0).collect()
}

fn sent(package: &Package) -> Vec<(usize, f64)> {
    package
        .fixed_point()
        .map(|(at, value)| (at, value as f64 / 2f64.powi(40)))
        .collect()
}

fn any_value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1.0f32..1.0,
        2 => (-40i32..7).prop_map(|x| 2f32.powi(x)),
        1 => (-40i32..0).prop_map(|x| 127.0 * 2f32.powi(x)),
        1 => (-40i32..0).prop_map(|x| -63.5 * 2f32.powi(x)),
        1 => (-30i32..0, -127i32..127).prop_map(|(x, q)| (q as f32 + 0.5) * 2f32.powi(x)),
        1 => Just(-0.0f32),
        1 => Just(f32::from_bits(1)),
        1 => Just(0.25f32),
    ]
}

prop_compose! {
    fn any_update()(count in 1usize..300, chunk in 1usize..100, k in 1usize..100)
        (update in prop::collection::vec(any_value(), count), chunk in Just(chunk), k in Just(k))
        -> (Shape, Vec<f32>) {
        (shape(update.len(), chunk, k.min(chunk)), update)
    }
}

proptest! {
    #[test]
    fn what_is_sent_and_what_is_kept_add_up_to_the_update((shape, update) in any_update()) {
        let mut feedback = vec![0.0; update.len()];
        let package = Package::compress(shape, DECAY, &mut feedback, &update).unwrap();
        let mut total: Vec<f64> = feedback.iter().map(|&e| f64::from(e)).collect();
        for (at, value) in sent(&package) {
            total[at] += value;
        }
        let update: Vec<f64> = update.iter().map(|&e| f64::from(e)).collect();
        prop_assert_eq!(total, update);
    }

    #[test]
    fn the_largest_entries_are_sent_with_the_smallest_scale((shape, update) in any_update()) {
        let mut feedback = vec![0.0; update.len()];
        let package = Package::compress(shape, DECAY, &mut feedback, &update).unwrap();
        let mut expected = Vec::new();
        for (number, chunk) in update.chunks(shape.chunk).enumerate() {
            let entries = naive_chunk(chunk, shape.top_k).into_iter();
            expected.extend(entries.map(|(at, value)| (number * shape.chunk + at, value)));
        }
        prop_assert_eq!(sent(&package), expected);
    }

    #[test]
    fn a_package_survives_its_encoding((shape, update) in any_update()) {
        let mut feedback = vec![0.0; update.len()];
        let package = Package::compress(shape, DECAY, &mut feedback, &update).unwrap();
        let bytes = package.encode();
        prop_assert!(bytes.len() <= shape.max_encoded_len());
        prop_assert_eq!(Package::decode(&bytes, shape), Ok(package));
    }

    #[test]
    fn whatever_is_accepted_is_canonical(
        (shape, update) in any_update(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in 0usize..3,
        tail in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let mut feedback = vec![0.0; update.len()];
        let package = Package::compress(shape, DECAY, &mut feedback, &update).unwrap();
        let mut bytes = package.encode();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        bytes.extend(tail);
        if let Ok(other) = Package::decode(&bytes, shape) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn random_bytes_after_a_good_header_never_panic(
        body in prop::collection::vec(any::<u8>(), 0..400),
        chunk in 1usize..200,
    ) {
        let shape = shape(150, chunk, chunk.min(20));
        let mut bytes = Package::compress(shape, 0.0, &mut [0.0; 150], &[0.0; 150]).unwrap().encode();
        bytes.truncate(18);
        bytes.extend(body);
        if let Ok(package) = Package::decode(&bytes, shape) {
            prop_assert_eq!(package.encode(), bytes);
        }
    }
}

#[test]
fn equal_magnitudes_are_taken_by_position() {
    let shape = shape(6, 6, 3);
    let update = [0.5, -0.5, 0.5, 0.5, -0.5, 0.5];
    let package = Package::compress(shape, DECAY, &mut [0.0; 6], &update).unwrap();
    assert_eq!(sent(&package), [(0, 0.5), (1, -0.5), (2, 0.5)]);
}

#[test]
fn feedback_decays_before_the_update_is_added() {
    let shape = shape(2, 2, 1);
    let mut feedback = [0.5, 0.25];
    let package = Package::compress(shape, 0.5, &mut feedback, &[0.25, 0.0]).unwrap();
    assert_eq!(sent(&package), [(0, 0.5)]);
    assert_eq!(feedback, [0.0, 0.125]);
}

#[test]
fn a_diverged_update_is_named_not_sent() {
    let shape = shape(8, 4, 2);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 127.5] {
        let mut update = [0.0; 8];
        update[6] = bad;
        let result = Package::compress(shape, DECAY, &mut [0.0; 8], &update);
        assert_eq!(result, Err(CompressError::Diverged { index: 6 }));
    }
    let mut update = [0.0; 8];
    update[6] = 127.0;
    assert!(Package::compress(shape, DECAY, &mut [0.0; 8], &update).is_ok());
}

#[test]
fn each_way_of_writing_a_package_twice_is_refused() {
    let shape = shape(5, 5, 3);
    let update = [1.0, 0.0, -1.0, 0.0, 1.0];
    let good = Package::compress(shape, DECAY, &mut [0.0; 5], &update)
        .unwrap()
        .encode();
    // Header 18, count 2, exponent 1, three codes, gaps 0, 1, 1 in unary.
    assert_eq!(good[18..], [3, 0, 0xfa, 64, 0xc0, 64, 0b0000_1010]);
    let refused = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Package::decode(&bytes, shape).expect_err("not canonical")
    };
    let chunk = 0;
    assert_eq!(refused(0, b'X'), DecodePackageError::Header);
    assert_eq!(
        refused(18, 4),
        DecodePackageError::Count {
            chunk,
            count: 4,
            limit: 3
        }
    );
    assert_eq!(
        refused(20, 1),
        DecodePackageError::Scale { chunk, exponent: 1 }
    );
    assert_eq!(
        refused(20, 0xd0),
        DecodePackageError::Scale {
            chunk,
            exponent: -48
        }
    );
    assert_eq!(refused(21, 0), DecodePackageError::Code { chunk, code: 0 });
    assert_eq!(
        refused(21, 0x80),
        DecodePackageError::Code { chunk, code: -128 }
    );
    assert_eq!(
        refused(24, 0b0010_1010),
        DecodePackageError::Positions { chunk }
    );
    assert_eq!(
        refused(24, 0b0111_1111),
        DecodePackageError::Positions { chunk }
    );

    let mut halves = good.clone();
    halves[21..24].copy_from_slice(&[32, 0xe0, 32]);
    let error = Package::decode(&halves, shape).expect_err("the scale could be halved");
    assert_eq!(
        error,
        DecodePackageError::Scale {
            chunk,
            exponent: -6
        }
    );

    let mut long = good.clone();
    long.push(0);
    let error = Package::decode(&long, shape).expect_err("a byte too many");
    assert_eq!(error, DecodePackageError::Trailing { bytes: 1 });
    let error = Package::decode(&good[..24], shape).expect_err("a byte too few");
    assert_eq!(error, DecodePackageError::Truncated { chunk });
}

#[test]
fn shapes_are_bounded() {
    assert_eq!(
        Shape::new(0, 1, 1),
        Err(ShapeError::Parameters { parameters: 0 })
    );
    assert_eq!(Shape::new(1, 0, 1), Err(ShapeError::Chunk { chunk: 0 }));
    assert_eq!(
        Shape::new(1, 1 << 16, 1),
        Err(ShapeError::Chunk { chunk: 1 << 16 })
    );
    assert_eq!(
        Shape::new(1, 4, 5),
        Err(ShapeError::TopK { top_k: 5, chunk: 4 })
    );
}

#[test]
fn the_encoding_of_a_package_and_its_feedback_are_pinned() {
    let shape = shape(10_000, 4096, 512);
    let mut feedback = values(1, shape.parameters);
    let package =
        Package::compress(shape, DECAY, &mut feedback, &values(2, shape.parameters)).unwrap();
    assert_eq!(
        package.hash().to_string(),
        "2582f6dab22c03a8cde3c8a711c963730d7687a9ec473ff3d500af8bf7af48b7"
    );
    assert_eq!(
        hash_floats(&feedback).to_string(),
        "475d8aa42c35e40acf92eb166844d9c0f5db8bbeb70a3f6f83f854f9a90cde18"
    );
}
