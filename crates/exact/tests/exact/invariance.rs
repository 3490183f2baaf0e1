//! What must not show in a token's bits: its batch, the chunks of its prompt, the micro-batch.

use proptest::prelude::*;
use r3mes_exact::{
    AttentionShape, Bytes, Cpu, CpuBuffer, CpuOptions, Device, Isa, LoraBackward, LoraSite,
    NotFinite, Philox, Write, int8, signed_unit, ternary,
};

fn cpu(threads: usize) -> Cpu {
    let options = CpuOptions { isa: None, threads };
    Cpu::new(options).expect("the best back end")
}

fn values(seed: u64, stream: u32, len: usize) -> Vec<f32> {
    let random = Philox::new([seed as u32, (seed >> 32) as u32], [stream, 0]);
    random
        .words()
        .take(len)
        .map(|word| 3.0 * signed_unit(word))
        .collect()
}

fn shape() -> impl Strategy<Value = AttentionShape> {
    (
        1usize..3,
        1usize..3,
        prop::sample::select(vec![4usize, 16, 24]),
    )
        .prop_map(|(kv_heads, group, head_dim)| AttentionShape {
            heads: kv_heads * group,
            kv_heads,
            head_dim,
        })
}

/// One sequence: queries, keys and values of all positions.
fn sequence(seed: u64, shape: &AttentionShape, len: usize) -> [Vec<f32>; 3] {
    [
        values(seed, 0, len * shape.q_width()),
        values(seed, 1, len * shape.kv_width()),
        values(seed, 2, len * shape.kv_width()),
    ]
}

fn attend(
    device: &Cpu,
    shape: &AttentionShape,
    [q, k, v]: &[Vec<f32>; 3],
    lengths: &[usize],
) -> Vec<f32> {
    let qkv = [q, k, v].map(|m| device.upload(m));
    let mut out = device.zeros(q.len());
    device.attention(shape, qkv.each_ref(), lengths, &mut out);
    out.to_vec()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn attention_has_the_same_bits_in_any_chunks_beside_any_other_sequence(
        seed: u64,
        shape in shape(),
        chunks in prop::collection::vec(1usize..60, 1..6),
        others in prop::collection::vec(0usize..4, 6),
        threads in 1usize..4,
    ) {
        let device = cpu(threads);
        let len = chunks.iter().sum();
        let whole = sequence(seed, &shape, len);
        let expected = attend(&cpu(1), &shape, &whole, &[len]);

        let mut caches = [device.kv_cache(&shape), device.kv_cache(&shape)];
        let (mut start, mut found) = (0, Vec::new());
        for (chunk, other) in chunks.iter().zip(others) {
            // The other sequence goes first, so that rows of the batch are not positions.
            let beside = sequence(seed ^ 1, &shape, other);
            let widths = [shape.q_width(), shape.kv_width(), shape.kv_width()];
            let mut batch = [(); 3].map(|()| Vec::new());
            for ((batch, width), (beside, whole)) in batch.iter_mut().zip(widths).zip(beside.iter().zip(&whole)) {
                batch.extend_from_slice(beside);
                batch.extend_from_slice(&whole[start * width..(start + chunk) * width]);
            }
            let qkv = batch.each_ref().map(|m| device.upload(m));
            let mut out: CpuBuffer<f32> = device.zeros(batch[0].len());
            let mut both = caches.each_mut();
            device.attention_cached(&shape, qkv.each_ref(), &[other, *chunk], &mut both, &mut out);
            found.extend_from_slice(&out[other * shape.q_width()..]);
            start += chunk;
        }
        prop_assert_eq!(device.cached(&caches[1]), len);
        prop_assert_eq!(bits(&found), bits(&expected));
    }

    #[test]
    fn a_truncated_cache_goes_on_as_if_the_rest_had_never_been(
        seed: u64,
        shape in shape(),
        (keep, dropped, more) in (0usize..100, 1usize..80, 1usize..80),
    ) {
        let device = cpu(1);
        let whole = sequence(seed, &shape, keep + more);
        let expected = attend(&device, &shape, &whole, &[keep + more]);
        let mut cache = device.kv_cache(&shape);
        let append = |part: &[Vec<f32>; 3], rows: usize, cache: &mut _| {
            let qkv = part.each_ref().map(|m| device.upload(m));
            let mut out: CpuBuffer<f32> = device.zeros(part[0].len());
            device.attention_cached(&shape, qkv.each_ref(), &[rows], &mut [cache], &mut out);
            out.to_vec()
        };
        let cut = |from: usize, to: usize| {
            let widths = [shape.q_width(), shape.kv_width(), shape.kv_width()];
            [0, 1, 2].map(|i| whole[i][from * widths[i]..to * widths[i]].to_vec())
        };
        let mut found = append(&cut(0, keep), keep, &mut cache);
        // What is dropped may even be infinite.
        let poison = sequence(seed, &shape, dropped).map(|m| m.iter().map(|_| f32::INFINITY).collect());
        append(&poison, dropped, &mut cache);
        device.truncate(&mut cache, keep);
        found.extend(append(&cut(keep, keep + more), more, &mut cache));
        prop_assert_eq!(bits(&found), bits(&expected));
    }

    #[test]
    fn micro_batches_of_whole_sequences_give_the_same_lora_gradients(
        seed: u64,
        sequences in prop::collection::vec(1usize..150, 1..5),
        cut in 0usize..5,
        threads in 1usize..4,
    ) {
        let site = LoraSite { a: 0, b: 8 * 40, rank: 8, inputs: 40, outputs: 24, scale: 2.0 };
        let device = cpu(threads);
        let adapter = device.upload(&values(seed, 3, site.len()));
        let n: usize = sequences.iter().sum();
        let (x, dy) = (values(seed, 4, n * site.inputs), values(seed, 5, n * site.outputs));
        let run = |parts: &[&[usize]]| -> Result<Vec<u32>, NotFinite> {
            let mut gradient = device.zeros(site.len());
            let mut first = 0;
            for part in parts.iter().filter(|part| !part.is_empty()) {
                let rows: usize = part.iter().sum();
                let mut codes = device.codes(rows, site.inputs);
                device.quantize(&device.upload(&x[first * site.inputs..]), rows, &mut codes)?;
                let mut hidden = device.zeros(rows * site.rank);
                let mut y = device.zeros(rows * site.outputs);
                device.lora_forward(&site, &adapter, &codes, &mut hidden, &mut y);
                let pass = LoraBackward {
                    adapter: &adapter,
                    x: &codes,
                    hidden: &hidden,
                    dy: &device.upload(&dy[first * site.outputs..]),
                    sequences: part,
                    gradient: &mut gradient,
                    dx: None,
                };
                device.lora_backward(&site, pass);
                first += rows;
            }
            Ok(bits(&gradient))
        };
        let (before, after) = sequences.split_at(cut.min(sequences.len()));
        prop_assert_eq!(run(&[&sequences]), run(&[before, after]));
    }

    #[test]
    fn a_ternary_layer_with_lora_has_the_bits_of_its_parts(
        seed: u64,
        sequences in prop::collection::vec(1usize..200, 1..5),
        (inputs, outputs) in (1usize..90, 1usize..90),
        threads in 1usize..4,
        write in prop::sample::select(vec![Write::Replace, Write::Add]),
        bad in prop::option::weighted(0.3, 0usize..800),
    ) {
        let n: usize = sequences.iter().sum();
        let site = LoraSite { a: 0, b: 8 * inputs, rank: 8, inputs, outputs, scale: 2.0 };
        let mut dy = values(seed, 5, n * outputs);
        let bad = bad.map(|bad| bad % n);
        if let Some(bad) = bad {
            dy[bad * outputs] = f32::NAN;
            dy[(n - 1) * outputs] = f32::INFINITY;
        }
        let weights: Vec<i8> = values(seed, 6, outputs * inputs).iter().map(|v| (v / 1.6) as i8).collect();
        let panels = ternary::pack(&weights, outputs, inputs).expect("ternary weights");
        let run = |device: &Cpu, together: bool| {
            let w = device.ternary(Bytes::from_slice(&panels), outputs, inputs, 0.07);
            let adapter = device.upload(&values(seed, 3, site.len()));
            let mut codes = device.codes(n, inputs);
            device.quantize(&device.upload(&values(seed, 4, n * inputs)), n, &mut codes).expect("finite");
            let (mut hidden, mut y) = (device.zeros(n * site.rank), device.zeros(n * outputs));
            if together {
                device.ternary_lora_forward(&w, &site, &adapter, &codes, &mut hidden, &mut y);
            } else {
                device.ternary_forward(&w, &codes, &mut y);
                device.lora_forward(&site, &adapter, &codes, &mut hidden, &mut y);
            }
            let mut dx = device.upload(&values(seed, 7, n * inputs));
            let mut gradient = device.upload(&values(seed, 8, site.len()));
            let dy: CpuBuffer<f32> = device.upload(&dy);
            let base = if together { Ok(()) } else {
                device.ternary_backward(&w, &dy, n, write, &mut dx)
            };
            let pass = LoraBackward {
                adapter: &adapter,
                x: &codes,
                hidden: &hidden,
                dy: &dy,
                sequences: &sequences,
                gradient: &mut gradient,
                dx: Some(&mut dx),
            };
            let result = if together {
                device.ternary_lora_backward(&w, &site, write, pass)
            } else {
                device.lora_backward(&site, pass);
                base
            };
            let found = [&hidden, &y, &dx, &gradient].map(|values| bits(values));
            // Gradients are worthless after an error.
            result.map(|()| found)
        };
        let one = Cpu::new(CpuOptions { isa: Some(Isa::Scalar), threads: 1 }).expect("always there");
        let expected = run(&one, false);
        prop_assert_eq!(expected.clone().err(), bad.map(|row| NotFinite { row }));
        for isa in Isa::available() {
            let device = Cpu::new(CpuOptions { isa: Some(isa), threads }).expect("an available back end");
            prop_assert_eq!(run(&device, true), expected.clone());
        }
    }

    #[test]
    fn a_row_of_the_head_has_the_same_loss_and_gradient_in_any_micro_batch(
        seed: u64,
        rows in 2usize..100,
        cut in 1usize..100,
        threads in 1usize..4,
    ) {
        let (inputs, vocabulary) = (24, 90);
        let cut = cut.min(rows - 1);
        let device = cpu(threads);
        let weights: Vec<i8> = values(seed, 6, vocabulary * inputs).iter().map(|v| (v * 40.0) as i8).collect();
        let panels = int8::pack(&weights, vocabulary, inputs).expect("int8 weights");
        let scales: Vec<f32> = (0..vocabulary).map(|i| 0.01 + i as f32 * 1e-4).collect();
        let head = device.int8(Bytes::from_slice(&panels), vocabulary, inputs, &scales);
        let x = values(seed, 7, rows * inputs);
        let targets: Vec<u32> = (0..rows as u32).map(|i| i * 31 % vocabulary as u32).collect();
        let run = |from: usize, to: usize| -> Result<(i64, Vec<u32>), NotFinite> {
            let mut codes = device.codes(to - from, inputs);
            device.quantize(&device.upload(&x[from * inputs..]), to - from, &mut codes)?;
            let mut dx = device.zeros((to - from) * inputs);
            let loss = device.head_loss(&head, &codes, &targets[from..to], rows, Some(&mut dx))?;
            Ok((loss, bits(&dx)))
        };
        let (loss, dx) = run(0, rows).expect("finite");
        let (first, second) = (run(0, cut).expect("finite"), run(cut, rows).expect("finite"));
        prop_assert_eq!(loss, first.0 + second.0);
        prop_assert_eq!(dx, [first.1, second.1].concat());
    }
}

#[test]
fn values_that_are_not_finite_are_reported_with_their_row() {
    for threads in 1..4 {
        let device = cpu(threads);
        let mut x = values(1, 8, 20 * 33);
        x[13 * 33 + 32] = f32::NAN;
        x[17 * 33] = f32::NEG_INFINITY;
        let x = device.upload(&x);
        let bad = Err(NotFinite { row: 13 });
        assert_eq!(device.quantize(&x, 20, &mut device.codes(20, 33)), bad);
        assert_eq!(device.check_finite(&x, 20 * 33, 33), bad);
        assert_eq!(device.check_finite(&x, 13 * 33, 33), Ok(()));
    }
}
