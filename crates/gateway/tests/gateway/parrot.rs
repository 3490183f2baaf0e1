//! An engine of a few lines, whose answers tests can foresee and hold back: it says the words of
//! the prompt again, one per token. What the exact engine does is tested with that engine.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use r3mes_inference::{
    Alternative, Claim, Completion, Engine, Event, FinishReason, Generation, GenerationError, Load,
    Piece, Prompt, Receipt, Request, RequestError, SamplingTerms, ServedModel, TokenInfo,
};
use r3mes_types::{
    Hash, SecretKey,
    wire::{Blob, List},
};
use tokio::sync::Semaphore;

/// A prompt that fails.
const FAILS: &str = "fail";

pub(crate) struct Parrot {
    models: Vec<ServedModel>,
    /// One permit lets one token out; the first of an answer needs none.
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) cancelled: Arc<Semaphore>,
    pub(crate) asked: AtomicUsize,
    pub(crate) full: bool,
}

impl Parrot {
    /// One that says everything at once.
    pub(crate) fn new(models: &[&str]) -> Self {
        let parrot = Self::held(models);
        parrot.gate.add_permits(1_000_000);
        parrot
    }

    /// One that says the first word at once and another for each permit of its gate.
    pub(crate) fn held(models: &[&str]) -> Self {
        let model = |name: &&str| ServedModel {
            name: (*name).to_owned(),
            model: Hash::of(b"base"),
            adapter: Some(Hash::of(name.as_bytes())),
            round: Some(7),
            context: 100,
        };
        Self {
            models: models.iter().map(model).collect(),
            gate: Arc::new(Semaphore::new(0)),
            cancelled: Arc::new(Semaphore::new(0)),
            asked: AtomicUsize::new(0),
            full: false,
        }
    }
}

impl Engine for Parrot {
    fn models(&self) -> Vec<ServedModel> {
        self.models.clone()
    }

    fn load(&self) -> Load {
        Load {
            slots: 4,
            generated_tokens: 42,
            ..Load::default()
        }
    }

    fn submit(&self, request: Request) -> Result<Generation, RequestError> {
        request.check()?;
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.full {
            return Err(RequestError::Busy { waiting: 9 });
        }
        let text = match &request.prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Tokens(tokens) => format!("{tokens:?}"),
            Prompt::Chat(messages) => messages
                .iter()
                .map(|message| message.content.clone())
                .collect::<Vec<_>>()
                .join(" "),
        };
        let words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        if words.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        let (sender, generation) = Generation::channel(words.len(), 4);
        let (gate, cancelled) = (Arc::clone(&self.gate), Arc::clone(&self.cancelled));
        tokio::spawn(async move {
            if text == FAILS {
                let reason = "it was asked to".to_owned();
                let failed = Event::Failed(GenerationError::Computation { reason });
                return drop(sender.send(failed).await);
            }
            let limit = request.max_tokens.unwrap_or(words.len()).min(words.len());
            for (index, word) in words[..limit].iter().enumerate() {
                if index > 0 {
                    tokio::select! {
                        permit = gate.acquire() => permit.unwrap().forget(),
                        () = sender.closed() => return cancelled.add_permits(1),
                    }
                }
                let piece = Event::Piece(piece(&request, index, word));
                if sender.send(piece).await.is_err() {
                    return cancelled.add_permits(1);
                }
            }
            let finished = Event::Finished(Box::new(completion(&request, &words, limit)));
            let _ = sender.send(finished).await;
        });
        Ok(generation)
    }
}

fn piece(request: &Request, index: usize, word: &str) -> Piece {
    let top = request.logprobs.unwrap_or(0);
    let alternative = |place| Alternative {
        id: place as u32,
        text: format!("{word}{place}"),
        logprob: -(place as f32),
    };
    Piece {
        text: word.to_owned(),
        tokens: vec![TokenInfo {
            id: index as u32,
            text: word.to_owned(),
            logprob: request.logprobs.map(|_| -0.5),
            top: (0..top).map(alternative).collect(),
        }],
    }
}

fn completion(request: &Request, words: &[String], limit: usize) -> Completion {
    let finish = if limit < words.len() {
        FinishReason::Length
    } else {
        FinishReason::Stop
    };
    let claim = Claim {
        exact_version: 1,
        model: Hash::of(b"base"),
        adapter: None,
        prompt: List::new((0..words.len() as u32).collect()).unwrap(),
        sampling: SamplingTerms {
            inverse_temperature: None,
            top_p: 1 << 32,
            top_k: 0,
            repetition_penalty: 1f32.to_bits(),
            frequency_penalty: 0f32.to_bits(),
            presence_penalty: 0f32.to_bits(),
            seed: request.sampling.seed,
        },
        max_tokens: limit as u32,
        stop: List::new(Vec::new()).unwrap(),
        ignore_eos: false,
        nonce: Hash::from(request.nonce),
        output: List::new((0..limit as u32).collect()).unwrap(),
        finish,
        transcript: Hash::of(b"transcript"),
        marks: Blob::new(Vec::new()).unwrap(),
    };
    let key = SecretKey::from_bytes(&[7; 32]).unwrap();
    Completion {
        finish,
        prompt_tokens: words.len(),
        completion_tokens: limit,
        receipt: Some(Receipt::sign(claim, &key)),
    }
}
