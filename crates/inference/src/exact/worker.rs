//! The worker: advances all running requests, one forward pass at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};

use r3mes_exact::Device;
use r3mes_model::{AdvanceError, Cache, InferenceWorkspace, LogitRows, Model, Segment, Tokenizer};
use r3mes_types::wire::{Blob, List};
use r3mes_types::{Hash, SecretKey};
use tokio::sync::mpsc::Sender;
use tracing::Span;

use super::handle::{Command, Job, Shared, Variant};
use super::{EXACT_VERSION, Limits};
use crate::answer::Growing;
use crate::engine::{Completion, Event, GenerationError};
use crate::receipt::{Claim, FinishReason, Receipt, Transcript};

/// The part of the exact engine that computes. Run it on a thread of its own.
pub struct Worker<D: Device> {
    shared: Arc<Shared<D>>,
    inbox: Receiver<Command<D>>,
    key: SecretKey,
    limits: Limits,
}

/// One running request.
struct Slot<'a, D: Device> {
    variant: Arc<Variant<D>>,
    growing: Growing<'a>,
    transcript: Transcript,
    cache: Cache<D>,
    /// Prompt tokens computed so far.
    prefilled: usize,
    /// Positions that the cache may come to hold.
    reserved: usize,
    ignore_eos: bool,
    nonce: Hash,
    events: Sender<Event>,
    span: Span,
    done: bool,
}

impl<D: Device> Worker<D> {
    pub(super) fn new(
        shared: Arc<Shared<D>>,
        inbox: Receiver<Command<D>>,
        key: SecretKey,
        limits: Limits,
    ) -> Self {
        Self {
            shared,
            inbox,
            key,
            limits,
        }
    }

    /// Works until the engine is stopped or all its handles are gone and their requests done.
    pub fn run(self) {
        let (shared, key) = (Arc::clone(&self.shared), self.key.clone());
        let (model, tokenizer) = (&*shared.model, &*shared.tokenizer);
        let mut running: Vec<Slot<'_, D>> = Vec::new();
        let mut waiting: VecDeque<Box<Job<D>>> = VecDeque::new();
        let mut workspace = InferenceWorkspace::new();
        let mut connected = true;
        loop {
            connected = connected && self.collect(&mut waiting, running.len());
            if shared.stopping.load(Ordering::Acquire) {
                break;
            }
            self.admit(&mut waiting, &mut running, model, tokenizer);
            if running.is_empty() && waiting.is_empty() {
                if connected {
                    continue;
                }
                break;
            }
            self.pass(model, &mut running, &mut workspace);
            for slot in running
                .iter_mut()
                .filter(|slot| slot.growing.finish().is_some())
            {
                slot.complete(model, &key);
            }
            running.retain(|slot| !slot.done && !slot.events.is_closed());
            let ended = shared
                .counters
                .running
                .swap(running.len(), Ordering::Relaxed);
            let ended = ended.saturating_sub(running.len()) as u64;
            shared.counters.finished.fetch_add(ended, Ordering::Relaxed);
        }
        for events in running
            .iter()
            .map(|slot| &slot.events)
            .chain(waiting.iter().map(|job| &job.events))
        {
            let _ = events.try_send(Event::Failed(GenerationError::Stopped));
        }
        shared.counters.running.store(0, Ordering::Relaxed);
        shared.counters.waiting.store(0, Ordering::Relaxed);
    }

    /// Takes as many requests into `waiting` as there are slots for beside the `running` ones,
    /// waiting for one when there is nothing else to do; false once no handle is left.
    fn collect(&self, waiting: &mut VecDeque<Box<Job<D>>>, running: usize) -> bool {
        if running == 0 && waiting.is_empty() {
            match self.inbox.recv() {
                Ok(Command::Answer(job)) => waiting.push_back(job),
                Ok(Command::Wake) => {}
                Err(_) => return false,
            }
        }
        while running + waiting.len() < self.limits.slots {
            match self.inbox.try_recv() {
                Ok(Command::Answer(job)) => waiting.push_back(job),
                Ok(Command::Wake) => {}
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    /// Moves requests from `waiting` to `running` while slots and memory allow, in their order.
    fn admit<'a>(
        &self,
        waiting: &mut VecDeque<Box<Job<D>>>,
        running: &mut Vec<Slot<'a, D>>,
        model: &Model<D>,
        tokenizer: &'a Tokenizer,
    ) {
        let positions = self.limits.cache_bytes / model.cache_bytes_per_position();
        let mut held: usize = running.iter().map(|slot| slot.reserved).sum();
        while running.len() < self.limits.slots {
            let fits = |job: &mut Box<Job<D>>| held + job.terms.positions() <= positions;
            let Some(job) = waiting.pop_front_if(fits) else {
                break;
            };
            self.shared.counters.waiting.fetch_sub(1, Ordering::Relaxed);
            if !job.events.is_closed() {
                held += job.terms.positions();
                running.push(Slot::new(*job, model, tokenizer));
            }
        }
        let running = running.len();
        self.shared
            .counters
            .running
            .store(running, Ordering::Relaxed);
    }

    /// One forward pass for each variant that is being answered with.
    fn pass(
        &self,
        model: &Model<D>,
        running: &mut [Slot<'_, D>],
        workspace: &mut InferenceWorkspace<D>,
    ) {
        // Requests with the same adapter become neighbours; the sort keeps their order.
        running.sort_by_key(|slot| Arc::as_ptr(&slot.variant).addr());
        let mut prefill = self.limits.prefill;
        for group in running.chunk_by_mut(|a, b| Arc::ptr_eq(&a.variant, &b.variant)) {
            let counts: Vec<usize> = group.iter().map(|slot| slot.take(&mut prefill)).collect();
            match advance(model, group, &counts, workspace) {
                Ok(()) => self.read_results(group, &counts, workspace),
                // A value of one request was not finite; the others go on alone this once.
                Err(_) => {
                    for (slot, count) in group.iter_mut().zip(&counts) {
                        let whole = slot.cache.len();
                        model.truncate(&mut slot.cache, whole);
                        let (slot, count) = (std::slice::from_mut(slot), &[*count]);
                        match advance(model, slot, count, workspace) {
                            Ok(()) => self.read_results(slot, count, workspace),
                            Err(error) => slot[0].fail(&error),
                        }
                    }
                }
            }
        }
    }

    /// Takes up what a pass has computed: states into transcripts, logits into tokens.
    fn read_results(
        &self,
        group: &mut [Slot<'_, D>],
        counts: &[usize],
        workspace: &InferenceWorkspace<D>,
    ) {
        let (mut row, mut index) = (0, 0);
        for (slot, &count) in group.iter_mut().zip(counts) {
            for _ in 0..count {
                let (codes, scale) = workspace.final_state(row);
                slot.transcript.push(codes, scale);
                row += 1;
            }
            if count == 0 {
                continue;
            }
            let prompt = slot.growing.terms().prompt.len();
            if slot.prefilled < prompt {
                slot.prefilled += count;
                let counter = &self.shared.counters.prompt_tokens;
                counter.fetch_add(count as u64, Ordering::Relaxed);
            }
            if slot.prefilled == prompt {
                slot.grow(workspace.logits(index));
                self.shared
                    .counters
                    .generated_tokens
                    .fetch_add(1, Ordering::Relaxed);
                index += 1;
            }
        }
    }
}

impl<'a, D: Device> Slot<'a, D> {
    fn new(job: Job<D>, model: &Model<D>, tokenizer: &'a Tokenizer) -> Self {
        let Job {
            variant,
            terms,
            ignore_eos,
            nonce,
            events,
            span,
        } = job;
        let adapter = variant.adapter.as_ref().map(|adapter| &adapter.terms.hash);
        let reserved = terms.positions();
        Self {
            transcript: Transcript::new(EXACT_VERSION, &model.id(), adapter),
            growing: Growing::new(tokenizer, model.device().host_isa(), terms),
            cache: model.cache(),
            prefilled: 0,
            reserved,
            variant,
            ignore_eos,
            nonce,
            events,
            span,
            done: false,
        }
    }

    /// Tokens of the next pass; those of prompts come out of `prefill`.
    fn take(&self, prefill: &mut usize) -> usize {
        let left = self.growing.terms().prompt.len() - self.prefilled;
        if left == 0 {
            return 1;
        }
        let count = left.min(*prefill);
        *prefill -= count;
        count
    }

    /// Chooses the next token from `logits`.
    fn grow(&mut self, logits: &[f32]) {
        let grown = self.growing.choose(logits).map_err(Into::into);
        match grown.and_then(|token| self.growing.push(token, logits)) {
            Ok(piece) => {
                if !piece.text.is_empty() || !piece.tokens.is_empty() {
                    // The channel has room for everything; if it is closed, the slot is dropped.
                    let _ = self.events.try_send(Event::Piece(piece));
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.span
            .in_scope(|| tracing::warn!(error, "an answer could not be computed"));
        let reason = error.to_string();
        let _ = self
            .events
            .try_send(Event::Failed(GenerationError::Computation { reason }));
        self.done = true;
    }

    /// Signs the receipt and ends the stream.
    fn complete(&mut self, model: &Model<D>, key: &SecretKey) {
        let Some(finish) = self.growing.finish().filter(|_| !self.done) else {
            return;
        };
        let receipt = Receipt::sign(self.claim(model, finish), key);
        let completion = Completion {
            finish,
            prompt_tokens: self.growing.terms().prompt.len(),
            completion_tokens: self.growing.output().len(),
            receipt: Some(receipt),
        };
        self.span.in_scope(|| {
            tracing::debug!(
                completion_tokens = completion.completion_tokens,
                ?finish,
                "inference.request.answered"
            );
        });
        let _ = self.events.try_send(Event::Finished(Box::new(completion)));
        self.done = true;
    }

    fn claim(&self, model: &Model<D>, finish: FinishReason) -> Claim {
        const BOUNDED: &str = "a request's sizes were checked when it was accepted";
        let terms = self.growing.terms();
        let stop = terms
            .stop
            .iter()
            .map(|stop| Blob::new(stop.as_bytes().to_vec()).expect(BOUNDED));
        Claim {
            exact_version: EXACT_VERSION,
            model: model.id(),
            adapter: self
                .variant
                .adapter
                .as_ref()
                .map(|adapter| adapter.terms.clone()),
            prompt: List::new(terms.prompt.clone()).expect(BOUNDED),
            sampling: terms.sampling.clone(),
            max_tokens: terms.max_tokens as u32,
            stop: List::new(stop.collect()).expect(BOUNDED),
            ignore_eos: self.ignore_eos,
            nonce: self.nonce,
            output: List::new(self.growing.output().to_vec()).expect(BOUNDED),
            finish,
            transcript: self.transcript.link(),
            marks: Blob::new(self.transcript.marks().to_vec()).expect(BOUNDED),
        }
    }
}

/// One forward pass over the next `counts` tokens of the slots of one variant.
fn advance<D: Device>(
    model: &Model<D>,
    group: &mut [Slot<'_, D>],
    counts: &[usize],
    workspace: &mut InferenceWorkspace<D>,
) -> Result<(), AdvanceError> {
    let variant = Arc::clone(&group[0].variant);
    let adapter = variant.adapter.as_ref().map(|adapter| &adapter.loaded);
    let mut segments: Vec<Segment<'_, D>> = Vec::with_capacity(group.len());
    for (slot, &count) in group.iter_mut().zip(counts) {
        if count == 0 {
            continue;
        }
        let Slot {
            growing,
            cache,
            prefilled,
            ..
        } = slot;
        let prompt = &growing.terms().prompt;
        let end = *prefilled + count;
        let (tokens, logits) = if *prefilled == prompt.len() {
            let output = growing.output();
            (&output[output.len() - 1..], LogitRows::Last)
        } else if end == prompt.len() {
            (&prompt[*prefilled..], LogitRows::Last)
        } else {
            (&prompt[*prefilled..end], LogitRows::None)
        };
        segments.push(Segment {
            tokens,
            cache,
            logits,
        });
    }
    if segments.is_empty() {
        return Ok(());
    }
    model.advance(adapter, &mut segments, workspace)
}
