//! The words of a query, in CometBFT's grammar (`libs/pubsub/query/syntax`), and its complaints.

use std::fmt;

use tendermint::Time;

use super::query::{Condition, Operand, Sign, Test, date, time};

/// What a query is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Invalid,
    Tag,
    Text,
    Number,
    Time,
    Date,
    And,
    Contains,
    Exists,
    Sign(Sign),
}

/// What may follow a key, in CometBFT's order.
const OPERATORS: [Token; 7] = [
    Token::Sign(Sign::LessOrEqual),
    Token::Sign(Sign::GreaterOrEqual),
    Token::Sign(Sign::Less),
    Token::Sign(Sign::Greater),
    Token::Sign(Sign::Equal),
    Token::Contains,
    Token::Exists,
];

/// What may follow an operator: all of these `=`, all but the last the other signs.
const OPERANDS: [Token; 4] = [Token::Number, Token::Time, Token::Date, Token::Text];

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid token",
            Self::Tag => "tag",
            Self::Text => "string",
            Self::Number => "number",
            Self::Time => "timestamp",
            Self::Date => "datestamp",
            Self::And => "AND operator",
            Self::Contains => "CONTAINS operator",
            Self::Exists => "EXISTS operator",
            Self::Sign(sign) => return write!(f, "{sign} operator"),
        })
    }
}

/// What CometBFT says when a query ends too soon.
const END: &str = "EOF";

/// Reads a query from its beginning.
pub(super) struct Scanner<'t> {
    text: &'t str,
    /// Where the newest token begins, and where it ends.
    begin: usize,
    end: usize,
}

impl<'t> Scanner<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            begin: 0,
            end: 0,
        }
    }

    /// The conditions of a whole query.
    ///
    /// # Errors
    /// What is not understood, and at which byte.
    pub(super) fn conditions(mut self) -> Result<Vec<Condition>, String> {
        let mut conditions = vec![self.condition()?];
        loop {
            let token = match self.next() {
                Ok((token, _)) => token,
                Err(why) if why == END => return Ok(conditions),
                Err(_) => Token::Invalid,
            };
            if token != Token::And {
                let begin = self.begin;
                return Err(format!("offset {begin}: got {token}, want {}", Token::And));
            }
            conditions.push(self.condition()?);
        }
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let (_, key) = self.require(&[Token::Tag])?;
        let (operator, _) = self.require(&OPERATORS)?;
        let test = match operator {
            Token::Contains => Test::Contains(self.require(&[Token::Text])?.1.to_owned()),
            Token::Sign(sign) => {
                let among = match sign {
                    Sign::Equal => &OPERANDS[..],
                    _ => &OPERANDS[..3],
                };
                let (operand, text) = self.require(among)?;
                let text = text.to_owned();
                match operand {
                    Token::Number => Test::Compares(sign, Operand::Number(text)),
                    Token::Time => Test::Compares(sign, Operand::Time(text)),
                    Token::Date => Test::Compares(sign, Operand::Date(text)),
                    _ => Test::Is(text),
                }
            }
            _ => Test::Exists,
        };
        Ok(Condition {
            key: key.to_owned(),
            test,
        })
    }

    fn require(&mut self, wanted: &[Token]) -> Result<(Token, &'t str), String> {
        let found = self.next();
        let begin = self.begin;
        let (token, text) = found.map_err(|why| format!("offset {begin}: {why}"))?;
        if wanted.contains(&token) {
            return Ok((token, text));
        }
        let wanted: Vec<String> = wanted.iter().map(Token::to_string).collect();
        let wanted = match wanted.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, before)) => format!("{} or {last}", before.join(", ")),
            None => String::new(),
        };
        Err(format!("offset {begin}: got {token}, wanted {wanted}"))
    }

    /// The next token and its text.
    fn next(&mut self) -> Result<(Token, &'t str), String> {
        let rest = &self.text[self.end..];
        self.end += rest.len() - rest.trim_start().len();
        self.begin = self.end;
        let Some(first) = self.rest().chars().next() else {
            return Err(END.to_owned());
        };
        match first {
            '0'..='9' => Ok((Token::Number, self.number())),
            '\'' => self.quoted(),
            '=' => Ok(self.taken(Token::Sign(Sign::Equal), 1)),
            '<' | '>' => Ok(self.compared(first)),
            _ if first == '_' || first.is_alphabetic() => self.word(),
            _ => {
                self.end += first.len_utf8();
                Err(format!("invalid input {first} at offset {}", self.end))
            }
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.end..]
    }

    fn taken(&mut self, token: Token, length: usize) -> (Token, &'t str) {
        let text = &self.rest()[..length];
        self.end += length;
        (token, text)
    }

    /// Takes letters while they fit.
    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let length = rest.find(|letter| !fits(letter)).unwrap_or(rest.len());
        self.taken(Token::Tag, length).1
    }

    /// Digits, and after a dot perhaps more.
    fn number(&mut self) -> &'t str {
        self.take_while(|letter| letter.is_ascii_digit());
        if self.rest().starts_with('.') {
            self.end += 1;
            self.take_while(|letter| letter.is_ascii_digit());
        }
        &self.text[self.begin..self.end]
    }

    fn quoted(&mut self) -> Result<(Token, &'t str), String> {
        self.end += 1;
        let text = self.take_while(|letter| letter != '\'');
        if self.rest().is_empty() {
            return Err(END.to_owned());
        }
        self.end += 1;
        Ok((Token::Text, text))
    }

    fn compared(&mut self, first: char) -> (Token, &'t str) {
        let or_equal = self.rest()[1..].starts_with('=');
        let (sign, length) = match (first, or_equal) {
            ('<', false) => (Sign::Less, 1),
            ('<', true) => (Sign::LessOrEqual, 2),
            (_, false) => (Sign::Greater, 1),
            (_, true) => (Sign::GreaterOrEqual, 2),
        };
        self.taken(Token::Sign(sign), length)
    }

    /// A key, or a word of the language.
    fn word(&mut self) -> Result<(Token, &'t str), String> {
        let fits = |letter: char| matches!(letter, '.' | '_' | '-') || letter.is_alphanumeric();
        let word = self.take_while(fits);
        let (name, read): (_, fn(&str) -> Option<Time>) = match word {
            "AND" => return Ok((Token::And, word)),
            "EXISTS" => return Ok((Token::Exists, word)),
            "CONTAINS" => return Ok((Token::Contains, word)),
            "TIME" => ("TIME", time),
            "DATE" => ("DATE", date),
            _ => return Ok((Token::Tag, word)),
        };
        if !self.rest().starts_with(' ') {
            return Ok((Token::Tag, word));
        }
        self.end += 1;
        let is_time = name == "TIME";
        let text = self.take_while(|letter| {
            let sign = if is_time { "-T:+Z" } else { "-" };
            letter.is_ascii_digit() || sign.contains(letter)
        });
        match read(text) {
            Some(_) if is_time => Ok((Token::Time, text)),
            Some(_) => Ok((Token::Date, text)),
            None => Err(format!("invalid {name} value: cannot parse {text:?}")),
        }
    }
}
