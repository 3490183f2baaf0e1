//! An answer with the proofs of what it was made of.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use r3mes_ledger::block::QueryResult;
use r3mes_ledger::{Fault, Ledger};
use r3mes_state::{CommitmentProof, Read, ReadError, Witness};
use serde::{Deserialize, Serialize};

use super::error::LightError;

/// Most proofs that are looked at in one answer.
const MAX_PROOFS: usize = 8192;

/// A question, what a node answered, and its proofs, as files have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvedAnswer {
    /// The question's path.
    pub path: String,
    /// The question, encoded, in hexadecimal digits.
    pub question: String,
    /// Height of the state that it is about.
    pub height: u64,
    /// 0, or the number of the ledger's refusal.
    pub code: u32,
    /// The answer, encoded, in base64.
    pub answer: String,
    /// ICS-23 proofs of every key that was read, encoded, in base64.
    pub proofs: Vec<String>,
}

/// What the ledger answers: an encoded answer, or why it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The encoded answer.
    Value(Vec<u8>),
    /// It refuses.
    Refused {
        /// Its list of errors.
        codespace: String,
        /// The error's number.
        code: u32,
        /// What is wrong.
        log: String,
    },
}

impl ProvedAnswer {
    /// The answer, computed from the proved entries of the state with root `app_hash`.
    ///
    /// # Errors
    /// [`LightError`] if a proof does not hold, one is missing, or the node answered something else.
    pub fn verify(&self, app_hash: &[u8; 32]) -> Result<Answered, LightError> {
        let (path, height) = (self.path.clone(), self.height);
        let malformed = |why: &str| self.unproved(why);
        if self.proofs.len() > MAX_PROOFS {
            return Err(malformed("it has too many proofs"));
        }
        let mut proofs = Vec::with_capacity(self.proofs.len());
        for text in &self.proofs {
            let bytes = STANDARD.decode(text);
            let bytes = bytes.map_err(|_| malformed("a proof is not base64"))?;
            let proof = CommitmentProof::decode(bytes.as_slice());
            let proof = proof.map_err(|_| malformed("a proof does not parse"))?;
            if proof.encode_to_vec() != bytes {
                return Err(malformed("a proof is not encoded as it should be"));
            }
            proofs.push(proof);
        }
        let witness = Witness::verify(app_hash, &proofs).map_err(|source| LightError::Proof {
            path: path.clone(),
            height,
            source,
        })?;
        let found = self.compute(&witness)?;
        let question_answered = STANDARD.decode(&self.answer);
        if found.code != self.code || question_answered.ok().as_ref() != Some(&found.value) {
            return Err(LightError::Value { path, height });
        }
        Ok(answered(found))
    }

    fn compute(&self, state: &dyn Read) -> Result<QueryResult, LightError> {
        let question = hex::decode(&self.question);
        let question = question.map_err(|_| self.unproved("the question is not hexadecimal"))?;
        Ledger::query(state, &self.path, &question).map_err(|fault| match fault {
            Fault::Read(ReadError::Unproved { key }) => {
                self.unproved(&format!("there is no proof for the key {key}"))
            }
            other => self.unproved(&other.to_string()),
        })
    }

    fn unproved(&self, why: &str) -> LightError {
        LightError::Unproved {
            path: self.path.clone(),
            height: self.height,
            why: why.to_owned(),
        }
    }
}

/// What the ledger answers about a state that is here.
pub(super) fn ask(state: &dyn Read, path: &str, question: &[u8]) -> Result<Answered, LightError> {
    let found = Ledger::query(state, path, question);
    let found = found.map_err(|fault| LightError::Genesis {
        why: fault.to_string(),
    })?;
    Ok(answered(found))
}

fn answered(found: QueryResult) -> Answered {
    match found.code {
        0 => Answered::Value(found.value),
        code => Answered::Refused {
            codespace: found.codespace,
            code,
            log: found.log,
        },
    }
}
