//! What a client asks.

use serde::{Deserialize, Serialize};

/// A client's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Which nodes are there? The answer's body is a list of `broker::NodeView`, by their ids.
    Nodes,
    /// Which functions may I call? The answer's body is a list of `broker::FunctionView`, by nodes and names.
    Functions,
}

/// The head of an `Ask` frame. An answer that does not end the stream is a page: what comes after its last
/// entry is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The question.
    pub question: Question,
    /// Only what comes after this node, or after a function of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_node: Option<String>,
    /// After this function of that node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_function: Option<String>,
}

impl Ask {
    /// Asks from the beginning.
    pub const fn new(question: Question) -> Self {
        Self {
            question,
            after_node: None,
            after_function: None,
        }
    }
}
