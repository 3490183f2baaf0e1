//! Chat templates: from a conversation to the prompt that a model was trained on.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};
use serde::{Deserialize, Serialize};

/// Longest template that is compiled, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Work that rendering one prompt may cost, in the template engine's units.
const RENDER_FUEL: u64 = 10_000_000;
/// The name under which the template is compiled.
const NAME: &str = "chat_template";

/// The template of models that bring none: each message on a line of its own after its role.
pub const DEFAULT_TEMPLATE: &str = "{% for message in messages %}{{ message.role }}: \
    {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

/// The template of a model that only continues text: the contents, one after another.
pub const PLAIN_TEMPLATE: &str = "{% for message in messages %}{{ message.content }}{% if not loop.last %}\n{% endif %}{% endfor %}";

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A compiled chat template in Jinja, as `tokenizer_config.json` carries it.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// Why a conversation could not be turned into a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template is larger than any sensible one.
    #[error("the chat template has {bytes} bytes, more than the {MAX_TEMPLATE_BYTES} accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The template is not valid Jinja.
    #[error("the chat template does not compile")]
    Compile(#[source] minijinja::Error),
    /// The template refused the conversation.
    #[error("the chat template refuses this conversation")]
    Render(#[source] minijinja::Error),
}

impl ChatTemplate {
    /// Compiles `source`; `bos` and `eos` are the texts that the template knows as `bos_token`
    /// and `eos_token`.
    ///
    /// # Errors
    /// When the template is too large or not valid.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(ChatError::TooLarge {
                bytes: source.len(),
            });
        }
        let mut environment = Environment::new();
        environment.set_fuel(Some(RENDER_FUEL));
        // As Hugging Face renders templates.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(ChatError::Compile)?);
        environment.add_function("raise_exception", raise_exception);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(ChatError::Compile)?;
        Ok(Self {
            environment,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    /// The prompt that asks a model to answer `messages`.
    ///
    /// # Errors
    /// When the template refuses the conversation or costs too much to render.
    pub fn render(&self, messages: &[Message]) -> Result<String, ChatError> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(ChatError::Render)?;
        let messages: Vec<Value> = messages
            .iter()
            .map(|Message { role, content }| {
                Value::from_pairs([("role", role.as_str()), ("content", content.as_str())])
            })
            .collect();
        let values = context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
        };
        template.render(values).map_err(ChatError::Render)
    }
}

/// Lets a template refuse a conversation with a reason, as Hugging Face's templates do.
fn raise_exception(reason: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(
        minijinja::ErrorKind::InvalidOperation,
        reason,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Vec<Message> {
        [("system", " Be brief. "), ("user", "Who ran?")]
            .map(|(role, content)| Message {
                role: role.into(),
                content: content.into(),
            })
            .to_vec()
    }

    #[test]
    fn templates_use_python_methods_and_the_sequence_tokens() {
        let source = "{{ bos_token }}{% for m in messages %}\
            [{{ m['role'].upper() }}] {{ m['content'].strip() }}{{ eos_token }}{% endfor %}";
        let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
        let prompt = template.render(&conversation()).unwrap();
        assert_eq!(prompt, "<s>[SYSTEM] Be brief.</s>[USER] Who ran?</s>");
    }

    #[test]
    fn the_default_template_asks_for_the_assistant() {
        let template = ChatTemplate::new(DEFAULT_TEMPLATE, "", "").unwrap();
        let prompt = template.render(&conversation()).unwrap();
        assert_eq!(prompt, "system:  Be brief. \nuser: Who ran?\nassistant:");
    }

    #[test]
    fn a_template_may_refuse_with_its_reason() {
        let source = "{{ raise_exception('roles must alternate') }}";
        let error = ChatTemplate::new(source, "", "")
            .unwrap()
            .render(&[])
            .unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("roles must alternate"), "{source}");
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let source = "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}\
            {% endfor %}{% endfor %}";
        let template = ChatTemplate::new(source, "", "").unwrap();
        assert!(template.render(&[]).is_err());
    }
}
