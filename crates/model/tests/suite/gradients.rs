//! Loss and gradients against the reference, and their independence of memory.

use r3mes_exact::{Cpu, Device};
use r3mes_model::{
    Batch, Linear, LinearSet, LoadedAdapter, LoraConfig, Loss, MemoryLimit, Model, StepPlan,
    TrainingWorkspace,
};

use crate::reference::{Dual, DualAdapter, Reference};
use crate::synthetic::{BITNET, PLAIN, Shape, Storage, loaded, tokens};

const AMPLE: MemoryLimit = MemoryLimit { bytes: 1 << 30 };
const LORA: LoraConfig = LoraConfig {
    rank: 4,
    alpha: 8.0,
    targets: LinearSet::ALL,
};

fn windows(shape: &Shape, lengths: &[usize]) -> Vec<Vec<u32>> {
    (0..)
        .zip(lengths)
        .map(|(seed, &len)| tokens(100 + seed, len, shape.vocab))
        .collect()
}

fn step(
    model: &Model<Cpu>,
    adapter: &LoadedAdapter<Cpu>,
    windows: &[Vec<u32>],
    limit: MemoryLimit,
) -> (Loss, Vec<f32>) {
    let windows = windows.iter().map(Vec::as_slice).collect();
    let batch = Batch::new(model.config(), windows).unwrap();
    let mut workspace = TrainingWorkspace::new(limit);
    let mut gradient = model.device().zeros(adapter.layout().len());
    let loss = model
        .loss_and_gradients(adapter, &batch, &mut workspace, &mut gradient)
        .unwrap();
    let mut numbers = vec![0.0; adapter.layout().len()];
    model.device().read(&gradient, 0, &mut numbers);
    (loss, numbers)
}

/// Compares the gradient of every factor of every pair with the reference's derivative along it.
///
/// Where a value lies so near a half that f32 and f64 round it to different codes, the two part
/// for good reason; windows in which that happens are left out, and must be the fewer.
fn agrees_with_reference(shape: Shape) {
    let model = shape.model(7, 1);
    let reference = Reference::new(shape, &shape.tensors(7, Storage::TernaryInt8), false);
    let adapter = loaded(&model, LORA, 3);
    let layout = adapter.layout();
    let numbers = adapter.download(model.device()).unwrap().into_numbers();
    let dual = || {
        numbers
            .iter()
            .map(|&n| f64::from(n).into())
            .collect::<Vec<Dual>>()
    };

    let mut all = windows(&shape, &[6; 12]);
    all.retain(|window| {
        let (loss, _) = step(&model, &adapter, std::slice::from_ref(window), AMPLE);
        let expected = reference.loss(
            &[window],
            &DualAdapter {
                layout,
                numbers: dual(),
            },
        );
        assert!((expected.value - loss.mean()).abs() < 0.02 * expected.value);
        (expected.value - loss.mean()).abs() < 1e-5
    });
    assert!(all.len() > 6, "{} of 12 windows agree", all.len());

    let (_, gradient) = step(&model, &adapter, &all, AMPLE);
    let all: Vec<&[u32]> = all.iter().map(Vec::as_slice).collect();
    for pair in layout.pairs() {
        for range in [pair.a(), pair.b()] {
            let own = &gradient[range.clone()];
            let norm = own
                .iter()
                .map(|g| f64::from(*g) * f64::from(*g))
                .sum::<f64>()
                .sqrt();
            assert!(norm > 1e-6, "{pair:?} has a gradient");
            let mut numbers = dual();
            for (number, g) in numbers[range].iter_mut().zip(own) {
                number.slope = f64::from(*g) / norm;
            }
            let along = reference.loss(&all, &DualAdapter { layout, numbers });
            let error = (along.slope - norm).abs() / norm;
            assert!(error < 5e-3, "{pair:?}: {} against {norm}", along.slope);
        }
    }
}

#[test]
fn gradients_of_a_llama_agree_with_an_independent_implementation() {
    agrees_with_reference(PLAIN);
}

#[test]
fn gradients_of_a_bitnet_agree_with_an_independent_implementation() {
    agrees_with_reference(BITNET);
}

#[test]
fn the_reference_without_quantizers_agrees_with_finite_differences() {
    for shape in [PLAIN, BITNET] {
        let model = shape.model(7, 1);
        let tensors = shape.tensors(7, Storage::TernaryInt8);
        let reference = Reference::new(shape, &tensors, true);
        let adapter = loaded(&model, LORA, 3);
        let layout = adapter.layout();
        let numbers = adapter.download(model.device()).unwrap().into_numbers();
        let windows = windows(&shape, &[10]);
        let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
        for index in (0..layout.len()).step_by(layout.len() / 23) {
            let at = |shift: f64, slope: f64| {
                let mut dual: Vec<Dual> = numbers.iter().map(|&n| f64::from(n).into()).collect();
                dual[index].value += shift;
                dual[index].slope = slope;
                reference.loss(
                    &windows,
                    &DualAdapter {
                        layout,
                        numbers: dual,
                    },
                )
            };
            let (h, slope) = (1e-5, at(0.0, 1.0).slope);
            let difference = (at(h, 0.0).value - at(-h, 0.0).value) / (2.0 * h);
            assert!(
                (difference - slope).abs() < 1e-6 + 1e-4 * slope.abs(),
                "{index}"
            );
        }
    }
}

#[test]
fn memory_decides_the_micro_batch_and_never_the_result() {
    for shape in [PLAIN, BITNET] {
        let model = shape.model(7, 1);
        let adapter = loaded(&model, LORA, 3);
        let windows = windows(&shape, &[30, 7, 19, 30, 2, 25]);
        let batch =
            Batch::new(model.config(), windows.iter().map(Vec::as_slice).collect()).unwrap();
        let (expected, gradient) = step(&model, &adapter, &windows, AMPLE);
        let mut plans = Vec::new();
        for bytes in (0..4_000_000).step_by(20_000) {
            let limit = MemoryLimit { bytes };
            let Ok(plan) = StepPlan::new(model.config(), adapter.layout(), &batch, limit) else {
                continue;
            };
            if plans.last() == Some(&plan) {
                continue;
            }
            plans.push(plan);
            let (loss, own) = step(&model, &adapter, &windows, limit);
            assert_eq!(loss, expected, "{plan:?}");
            assert!(bits(&own) == bits(&gradient), "{plan:?}");
        }
        assert!(
            plans
                .iter()
                .any(|plan| plan.checkpoint && plan.rows < batch.targets())
        );
        assert!(
            plans
                .iter()
                .any(|plan| !plan.checkpoint && plan.rows < batch.targets())
        );
        assert!(plans.iter().any(|plan| plan.rows == batch.targets()));
    }
}

#[test]
fn any_number_of_threads_and_a_used_workspace_give_the_same_step() {
    let windows = windows(&PLAIN, &[40, 33, 70]);
    let one = PLAIN.model(7, 1);
    let adapter = loaded(&one, LORA, 3);
    let (loss, gradient) = step(&one, &adapter, &windows, AMPLE);
    for threads in [2, 3] {
        let model = PLAIN.model(7, threads);
        let adapter = loaded(&model, LORA, 3);
        let (other, own) = step(&model, &adapter, &windows, AMPLE);
        assert_eq!(other, loss);
        assert!(bits(&own) == bits(&gradient), "{threads} threads");
    }
    let batch = |windows: &'static [u32]| Batch::new(one.config(), vec![windows]).unwrap();
    let mut workspace = TrainingWorkspace::new(AMPLE);
    let mut used = one.device().zeros(adapter.layout().len());
    for tokens in [&[5, 4, 3, 2, 1, 2, 3][..], &[1, 2]] {
        one.loss_and_gradients(&adapter, &batch(tokens), &mut workspace, &mut used)
            .unwrap();
    }
    let all = Batch::new(one.config(), windows.iter().map(Vec::as_slice).collect()).unwrap();
    assert_eq!(
        one.loss(Some(&adapter), &all, &mut workspace).unwrap(),
        loss
    );
    one.loss_and_gradients(&adapter, &all, &mut workspace, &mut used)
        .unwrap();
    let mut own = vec![0.0; gradient.len()];
    one.device().read(&used, 0, &mut own);
    assert!(bits(&own) == bits(&gradient));
}

#[test]
fn pairs_on_some_linears_get_the_gradients_that_pairs_on_all_would_with_the_others_at_zero() {
    let model = PLAIN.model(7, 1);
    let windows = windows(&PLAIN, &[20]);
    let targets: LinearSet = [Linear::Value, Linear::Down].into_iter().collect();
    let some = loaded(&model, LoraConfig { targets, ..LORA }, 3);
    let all_layout = r3mes_model::AdapterLayout::new(model.config(), LORA).unwrap();
    let own = some.download(model.device()).unwrap().into_numbers();
    let mut numbers = vec![0.0; all_layout.len()];
    for pair in some.layout().pairs() {
        let whole = all_layout.pair(pair.layer, pair.linear).unwrap();
        numbers[whole.a()].copy_from_slice(&own[pair.a()]);
        numbers[whole.b()].copy_from_slice(&own[pair.b()]);
    }
    let all = r3mes_model::Adapter::from_numbers(&all_layout, numbers).unwrap();
    let all = LoadedAdapter::new(model.device(), &all_layout, &all).unwrap();
    let (loss, gradient) = step(&model, &some, &windows, AMPLE);
    let (whole_loss, whole_gradient) = step(&model, &all, &windows, AMPLE);
    assert_eq!(loss, whole_loss);
    for pair in some.layout().pairs() {
        let whole = all_layout.pair(pair.layer, pair.linear).unwrap();
        assert_eq!(gradient[pair.a()], whole_gradient[whole.a()]);
        assert_eq!(gradient[pair.b()], whole_gradient[whole.b()]);
    }
}

#[test]
fn batches_that_do_not_fit_the_model_or_the_memory_are_refused_with_the_reason() {
    let model = PLAIN.model(7, 1);
    let adapter = loaded(&model, LORA, 3);
    for (windows, word) in [
        (vec![], "windows"),
        (vec![&[1][..]], "between 2"),
        (vec![&[1, 2, 100][..]], "token 100"),
    ] {
        let error = Batch::new(model.config(), windows).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let batch = Batch::new(model.config(), vec![&[1, 2, 3]]).unwrap();
    let mut workspace = TrainingWorkspace::new(MemoryLimit { bytes: 1000 });
    let mut gradient = model.device().zeros(adapter.layout().len());
    let error = model
        .loss_and_gradients(&adapter, &batch, &mut workspace, &mut gradient)
        .unwrap_err();
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("raise the limit")
    );
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}
