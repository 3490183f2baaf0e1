//! The seam between those who ask and those who generate.

use r3mes_types::Hash;
use tokio::sync::mpsc;

use crate::receipt::{FinishReason, Receipt};
use crate::request::{Request, RequestError};

/// Something that continues prompts: the exact engine of this crate, or a proxy to another.
pub trait Engine: Send + Sync {
    /// What is served now.
    fn models(&self) -> Vec<ServedModel>;

    /// How busy the engine is, and what it has done since it started.
    fn load(&self) -> Load;

    /// Checks `request` and queues it. Never waits; dropping the [`Generation`] cancels it.
    ///
    /// # Errors
    /// When the request is refused, too many wait already, or the engine has stopped.
    fn submit(&self, request: Request) -> Result<Generation, RequestError>;
}

/// A model as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedModel {
    /// Name to ask for it.
    pub name: String,
    /// Id of the base model: BLAKE3 of its packed file.
    pub model: Hash,
    /// Hash of the adapter on it, if there is one.
    pub adapter: Option<Hash>,
    /// Round whose close gave the adapter, if it came from training.
    pub round: Option<u64>,
    /// Positions for prompt and answer together.
    pub context: usize,
}

/// How busy an engine is, and what it has done since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Load {
    /// Requests being generated.
    pub running: usize,
    /// Requests waiting.
    pub waiting: usize,
    /// Requests generated at once at most.
    pub slots: usize,
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Requests that ended, for whatever reason.
    pub finished: u64,
}

/// The stream of one request's answer.
///
/// Ends with exactly one [`Event::Finished`] or [`Event::Failed`]. Dropping it cancels the
/// request.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<Event>,
    prompt_tokens: usize,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Event {
    /// More of the answer.
    Piece(Piece),
    /// The answer is complete.
    Finished(Box<Completion>),
    /// The answer could not be completed.
    Failed(GenerationError),
}

/// A part of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Text that has become certain; may be empty.
    pub text: String,
    /// The tokens that became certain with it.
    pub tokens: Vec<TokenInfo>,
}

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenInfo {
    /// Its id.
    pub id: u32,
    /// What it adds to the text, unfinished characters replaced.
    pub text: String,
    /// Its log-probability under the model, before temperature and cuts, if it was asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens at its place, likeliest first, as many as were asked for.
    pub top: Vec<Alternative>,
}

/// A token that could have been chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Its id.
    pub id: u32,
    /// What it would add to the text.
    pub text: String,
    /// Its log-probability.
    pub logprob: f32,
}

/// How an answer ended, and the proof of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Why it ended.
    pub finish: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, those cut by a stop string included.
    pub completion_tokens: usize,
    /// Signed account of the whole computation; none from engines that cannot give one.
    pub receipt: Option<Receipt>,
}

/// Why an answer could not be completed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerationError {
    /// The computation failed.
    #[error("the model could not compute this answer: {reason}")]
    Computation {
        /// What went wrong.
        reason: String,
    },
    /// The engine stopped before the answer was complete.
    #[error("the engine stopped before the answer was complete: ask again")]
    Stopped,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// The tokens of the text.
    pub tokens: Vec<TokenInfo>,
    /// How it ended.
    pub completion: Completion,
}

impl Generation {
    /// A stream that is fed through the returned sender; for implementations of [`Engine`].
    pub fn channel(prompt_tokens: usize, capacity: usize) -> (mpsc::Sender<Event>, Self) {
        let (sender, events) = mpsc::channel(capacity);
        (
            sender,
            Self {
                events,
                prompt_tokens,
            },
        )
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The next event, or `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The next event, waiting on the calling thread; not for asynchronous code.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// When the answer could not be completed.
    pub async fn answer(mut self) -> Result<Answer, GenerationError> {
        let mut gathered = Piece::default();
        while let Some(event) = self.next().await {
            if let Some(ended) = gather(event, &mut gathered) {
                return ended;
            }
        }
        Err(GenerationError::Stopped)
    }

    /// Waits for the whole answer on the calling thread; not for asynchronous code.
    ///
    /// # Errors
    /// When the answer could not be completed.
    pub fn blocking_answer(mut self) -> Result<Answer, GenerationError> {
        let mut gathered = Piece::default();
        while let Some(event) = self.blocking_next() {
            if let Some(ended) = gather(event, &mut gathered) {
                return ended;
            }
        }
        Err(GenerationError::Stopped)
    }
}

/// Adds `event` to what has been gathered; the answer when it was the last.
fn gather(event: Event, gathered: &mut Piece) -> Option<Result<Answer, GenerationError>> {
    match event {
        Event::Piece(piece) => {
            gathered.text.push_str(&piece.text);
            gathered.tokens.extend(piece.tokens);
            None
        }
        Event::Finished(completion) => {
            let Piece { text, tokens } = std::mem::take(gathered);
            Some(Ok(Answer {
                text,
                tokens,
                completion: *completion,
            }))
        }
        Event::Failed(error) => Some(Err(error)),
    }
}
