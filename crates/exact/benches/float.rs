//! The f32 operations one by one: `cargo bench -p r3mes-exact --bench float`.
//!
//! Throughput is elements per second; for products multiply-adds per second.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use r3mes_exact::{
    Activation, AdamW, AttentionShape, Cpu, CpuBuffer, CpuOptions, Device, Isa, LoraSite, Philox,
    signed_unit,
};

const ROWS: usize = 128;
const WIDTH: usize = 768;

fn values(device: &Cpu, seed: u64, len: usize) -> CpuBuffer<f32> {
    let words = Philox::from_seed(seed).words().take(len);
    device.upload(&words.map(signed_unit).collect::<Vec<_>>())
}

fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    device: &Cpu,
    work: usize,
    mut run: impl FnMut(),
) {
    group.throughput(Throughput::Elements(work as u64));
    group.bench_function(device.isa().name(), |bencher| bencher.iter(&mut run));
}

fn operations(criterion: &mut Criterion) {
    for isa in Isa::available() {
        let options = CpuOptions {
            isa: Some(isa),
            threads: 1,
        };
        let device = Cpu::new(options).expect("an available back end");
        rows(criterion, &device);
        products(criterion, &device);
    }
}

fn rows(criterion: &mut Criterion, device: &Cpu) {
    let n = ROWS * WIDTH;
    let [x, y] = [1, 2].map(|seed| values(device, seed, n));
    let gain = values(device, 3, WIDTH);
    let mut out = device.zeros(n);
    let mut group = criterion.benchmark_group("rms_norm");
    bench(&mut group, device, n, || {
        device.rms_norm(&x, &gain, 1e-5, ROWS, &mut out)
    });
    group.finish();
    let mut codes = device.codes(ROWS, WIDTH);
    let mut group = criterion.benchmark_group("quantize");
    bench(&mut group, device, n, || {
        device
            .quantize(&x, ROWS, &mut codes)
            .expect("finite values");
    });
    group.finish();
    let mut group = criterion.benchmark_group("swiglu");
    bench(&mut group, device, n, || {
        device.gated(Activation::Silu, &x, &y, n, &mut out)
    });
    group.finish();
    let step = AdamW {
        learning_rate: 4e-3,
        beta1: 0.9,
        beta2: 0.999,
        c1: 0.1,
        c2: 0.001,
        epsilon: 1e-8,
        weight_decay: 0.0,
        t: 1,
    };
    let [mut weights, mut first, mut second] = [(); 3].map(|()| device.zeros(n));
    let mut group = criterion.benchmark_group("adamw");
    bench(&mut group, device, n, || {
        device.adamw(&step, &x, &mut weights, [&mut first, &mut second]);
    });
    group.finish();
}

fn products(criterion: &mut Criterion, device: &Cpu) {
    let site = LoraSite {
        a: 0,
        b: 8 * WIDTH,
        rank: 8,
        inputs: WIDTH,
        outputs: WIDTH,
        scale: 2.0,
    };
    let adapter = values(device, 4, site.len());
    let mut codes = device.codes(ROWS, WIDTH);
    let x = values(device, 5, ROWS * WIDTH);
    device
        .quantize(&x, ROWS, &mut codes)
        .expect("finite values");
    let (mut hidden, mut y) = (device.zeros(ROWS * 8), device.zeros(ROWS * WIDTH));
    let mut group = criterion.benchmark_group("lora forward 768 to 768, rank 8, 128 rows");
    bench(&mut group, device, ROWS * site.len(), || {
        device.lora_forward(&site, &adapter, &codes, &mut hidden, &mut y);
    });
    group.finish();
    let shape = AttentionShape {
        heads: 12,
        kv_heads: 12,
        head_dim: WIDTH / 12,
    };
    let [q, k, v] = [6, 7, 8].map(|seed| values(device, seed, ROWS * WIDTH));
    let mut group = criterion.benchmark_group("attention, 12 heads of 64, 128 positions");
    bench(&mut group, device, ROWS * ROWS * WIDTH, || {
        device.attention(&shape, [&q, &k, &v], &[ROWS], &mut y);
    });
    group.finish();
}

criterion_group!(benches, operations);
criterion_main!(benches);
