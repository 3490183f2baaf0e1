//! Chat templates: from a conversation to the prompt that a model was trained on.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};
use serde::{Deserialize, Serialize};

/// Longest template that is compiled, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// Longest text of the token that a template begins or ends sequences with, in bytes.
pub const MAX_SEQUENCE_TOKEN_BYTES: usize = 256;
/// Work that rendering one prompt may cost: instructions, of which each pays for 64 bytes of strings
/// that are made or read. So a prompt takes at most 64 MB while it is rendered.
const RENDER_FUEL: u64 = 1_000_000;
/// The name under which the template is compiled.
const NAME: &str = "chat_template";

/// The template of models that bring none, as they only continue text: the contents, one after another.
pub const PLAIN_TEMPLATE: &str = "{% for message in messages %}{{ message.content }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}";

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// The chat template that a model brings, with the texts it knows as `bos_token` and `eos_token`. It is
/// part of what the model id binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatFormat {
    /// The template, in Jinja as Hugging Face renders it.
    pub template: String,
    /// The token that sequences begin with; empty without one.
    pub bos: String,
    /// The token that sequences end with; empty without one.
    pub eos: String,
}

impl ChatFormat {
    /// Compiles the template, and renders one message with it: a template that refuses the shortest
    /// conversation would refuse every one.
    ///
    /// # Errors
    /// When the template or a token is too large, does not compile, or does not render.
    pub fn compile(&self) -> Result<ChatTemplate, ChatError> {
        self.check_sizes()?;
        let template = ChatTemplate::new(&self.template, &self.bos, &self.eos)?;
        let shortest = Message {
            role: "user".to_owned(),
            content: "Hello".to_owned(),
        };
        template.render(&[shortest])?;
        Ok(template)
    }

    /// # Errors
    /// When the template or a token is too large.
    pub(crate) fn check_sizes(&self) -> Result<(), ChatError> {
        let bytes = self.template.len();
        if bytes > MAX_TEMPLATE_BYTES {
            return Err(ChatError::TooLarge { bytes });
        }
        for (name, token) in [("bos_token", &self.bos), ("eos_token", &self.eos)] {
            let bytes = token.len();
            if bytes > MAX_SEQUENCE_TOKEN_BYTES {
                return Err(ChatError::TokenTooLarge { name, bytes });
            }
        }
        Ok(())
    }
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
    /// A token that the template names is longer than any sensible one.
    #[error("the {name} has {bytes} bytes, more than the {MAX_SEQUENCE_TOKEN_BYTES} accepted")]
    TokenTooLarge {
        /// Which of the two.
        name: &'static str,
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
    fn a_model_that_brings_no_template_continues_the_texts() {
        let template = ChatTemplate::new(PLAIN_TEMPLATE, "", "").unwrap();
        let prompt = template.render(&conversation()).unwrap();
        assert_eq!(prompt, " Be brief. \nWho ran?");
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
    fn a_template_that_takes_too_much_time_or_memory_is_stopped() {
        for source in [
            "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}\
            {% endfor %}{% endfor %}",
            "{% set n = namespace(x='0123456789abcdef') %}\
            {% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
            "{{ 'x' * 90000000 }}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        ] {
            let template = ChatTemplate::new(source, "", "").unwrap();
            assert!(template.render(&[]).is_err(), "{source}");
        }
    }

    #[test]
    fn a_format_is_refused_before_anybody_converses() {
        let format = |template: &str, bos: &str| ChatFormat {
            template: template.to_owned(),
            bos: bos.to_owned(),
            eos: String::new(),
        };
        let (long, longer) = (
            "x".repeat(MAX_SEQUENCE_TOKEN_BYTES + 1),
            "x".repeat(MAX_TEMPLATE_BYTES + 1),
        );
        for (template, bos, said) in [
            ("{% if %}", "", "does not compile"),
            ("{{ raise_exception('no') }}", "", "refuses"),
            ("{{ messages[3].content.strip() }}", "", "refuses"),
            (&longer, "", "more than"),
            ("", &long, "bos_token has 257 bytes"),
        ] {
            let refusal = format(template, bos).compile().unwrap_err().to_string();
            assert!(refusal.contains(said), "{refusal}");
        }
        let template = format("{{ bos_token }}{{ messages[0].content }}", "<s>");
        let prompt = template.compile().unwrap().render(&conversation());
        assert_eq!(prompt.unwrap(), "<s> Be brief. ");
    }
}
