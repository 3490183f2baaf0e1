//! A receipt proves its answer; every falsehood in it is found and placed.

use proptest::prelude::*;
use r3mes_exact::Cpu;
use r3mes_inference::exact::Limits;
use r3mes_inference::{Claim, Evidence, FinishReason, Receipt, Request, VerifyError, verify};
use r3mes_model::{Adapter, AdapterLayout, LoadedAdapter, LoraConfig};
use r3mes_types::Hash;
use r3mes_types::wire::{List, Wire};

use crate::setup::{adapter, greedy, key, model, request, running, tokenizer};

fn check(receipt: &Receipt, adapter: Option<&Adapter>) -> Result<(), VerifyError> {
    let (model, tokenizer) = (model(), tokenizer());
    let layout = AdapterLayout::new(model.config(), LoraConfig::DEFAULT).unwrap();
    let loaded: Option<LoadedAdapter<Cpu>> =
        adapter.map(|adapter| LoadedAdapter::new(model.device(), &layout, adapter).unwrap());
    let adapter = loaded.as_ref().zip(adapter.map(Adapter::hash));
    verify(
        receipt,
        &Evidence {
            model: &model,
            adapter,
            tokenizer: &tokenizer,
        },
    )
}

/// The receipt after a lie, signed by the liar.
fn forged(receipt: &Receipt, lie: impl FnOnce(&mut Claim)) -> Receipt {
    let mut claim = receipt.claim.clone();
    lie(&mut claim);
    Receipt::sign(claim, &key())
}

fn flip<const MAX: usize>(tokens: &mut List<u32, MAX>, at: usize) {
    let mut changed = tokens.to_vec();
    changed[at] ^= 1;
    *tokens = List::new(changed).unwrap();
}

fn answered(request: Request) -> Receipt {
    running(Limits::default())
        .answer(request)
        .completion
        .receipt
        .unwrap()
}

#[test]
fn honest_answers_of_every_kind_verify() {
    let running = running(Limits {
        prefill: 4,
        ..Limits::default()
    });
    let long = "There was a cat. ".repeat(20);
    let stopped = Request {
        stop: vec![".".into()],
        ..greedy("Once upon a time", 40)
    };
    let requests = [
        request("The big dog", 30, 3),
        greedy("He", 1),
        request(&long, 20, 4),
        stopped,
    ];
    for request in requests {
        let receipt = running.answer(request).completion.receipt.unwrap();
        check(&receipt, None).unwrap();
        assert_eq!(Receipt::from_bytes(&receipt.encode()).unwrap(), receipt);
        assert_eq!(receipt.key, key().public_key());
    }
}

#[test]
fn one_flipped_token_is_found_and_its_position_named() {
    let receipt = answered(request("The big dog", 24, 3));
    let prompt = receipt.claim.prompt.len();
    for at in [0, 7, 23] {
        let false_receipt = forged(&receipt, |claim| flip(&mut claim.output, at));
        let error = check(&false_receipt, None).unwrap_err();
        assert!(matches!(error, VerifyError::Token { position, .. } if position == prompt + at));
    }
    for at in 0..prompt {
        let false_receipt = forged(&receipt, |claim| flip(&mut claim.prompt, at));
        let error = check(&false_receipt, None).unwrap_err();
        assert!(
            matches!(error, VerifyError::State { position } if position == at),
            "{error}"
        );
    }
}

#[test]
fn one_flipped_seed_bit_is_found_and_a_position_named() {
    let receipt = answered(request("The big dog", 24, 3));
    let prompt = receipt.claim.prompt.len();
    for bit in [0, 1, 40, 63] {
        let false_receipt = forged(&receipt, |claim| claim.sampling.seed ^= 1 << bit);
        let error = check(&false_receipt, None).unwrap_err();
        assert!(matches!(error, VerifyError::Token { .. }), "{error}");
        assert!((prompt..prompt + 24).contains(&error.position().unwrap()));
    }
}

#[test]
fn one_flipped_adapter_byte_is_found_by_its_hash_and_by_recomputing() {
    let running = running(Limits::default());
    let honest = adapter(1);
    running
        .engine
        .serve_adapter("tuned", LoraConfig::DEFAULT, &honest, None)
        .unwrap();
    let asked = Request {
        model: "tuned".into(),
        ..request("The big dog", 24, 3)
    };
    let receipt = running.answer(asked).completion.receipt.unwrap();
    check(&receipt, Some(&honest)).unwrap();

    let layout = AdapterLayout::new(model().config(), LoraConfig::DEFAULT).unwrap();
    let mut bytes = honest.to_bytes();
    bytes[2] ^= 0x20;
    let changed = Adapter::from_bytes(&layout, &bytes).unwrap();
    let error = check(&receipt, Some(&changed)).unwrap_err();
    assert!(matches!(error, VerifyError::Adapter { .. }), "{error}");
    assert!(matches!(
        check(&receipt, None).unwrap_err(),
        VerifyError::Adapter { .. }
    ));

    // A server that computed with another adapter than it names.
    let false_receipt = forged(&receipt, |claim| {
        claim.adapter.as_mut().unwrap().hash = changed.hash();
    });
    let error = check(&false_receipt, Some(&changed)).unwrap_err();
    assert_eq!(error.position(), Some(0));
}

#[test]
fn every_other_falsehood_is_found() {
    let stop = vec![" named".to_owned()];
    let receipt = answered(Request {
        stop,
        ..greedy("Once upon a time, there was", 40)
    });
    assert_eq!(receipt.claim.finish, FinishReason::Stop);
    let end = receipt.claim.prompt.len() + receipt.claim.output.len();
    let lie = |lie: &dyn Fn(&mut Claim)| check(&forged(&receipt, lie), None).unwrap_err();

    let mut altered = receipt.clone();
    altered.claim.nonce = Hash::of(b"another request's");
    assert!(matches!(
        check(&altered, None).unwrap_err(),
        VerifyError::Signature
    ));
    assert!(matches!(
        lie(&|c| c.exact_version = 2),
        VerifyError::Version { found: 2 }
    ));
    assert!(matches!(
        lie(&|c| c.model = Hash::ZERO),
        VerifyError::Model { .. }
    ));
    assert!(matches!(
        lie(&|c| c.max_tokens = 1),
        VerifyError::Malformed { .. }
    ));
    assert!(matches!(
        lie(&|c| c.transcript = Hash::ZERO),
        VerifyError::State { .. }
    ));
    let shorter = lie(&|c| {
        c.output = List::new(c.output[..c.output.len() - 1].to_vec()).unwrap();
        let marks = c.marks.to_vec();
        c.marks = r3mes_types::wire::Blob::new(marks[..marks.len() - 8].to_vec()).unwrap();
    });
    // The last position that the shorter answer still has is where the transcripts part.
    assert_eq!(shorter.position(), Some(end - 3), "{shorter}");
    let without_stop = lie(&|c| c.stop = List::default());
    assert!(
        matches!(without_stop, VerifyError::Finish { .. }),
        "{without_stop}"
    );
    let other_reason = lie(&|c| c.finish = FinishReason::Length);
    assert!(
        matches!(other_reason, VerifyError::Finish { .. }),
        "{other_reason}"
    );
}

proptest! {
    #[test]
    fn damaged_receipts_are_refused_without_a_panic(at in any::<usize>(), bit in 0..8_u8) {
        static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let good = GOOD.get_or_init(|| answered(request("The big dog", 6, 3)).encode());
        let mut bytes = good.clone();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(receipt) = Receipt::from_bytes(&bytes) {
            prop_assert!(!receipt.is_signed());
        }
    }
}
