//! What comes with the binary: the base model, its tokenizer and the demonstration texts.
//!
//! Provenance and licences stand beside the files in `assets/`. These are statics: of a constant, each
//! codegen unit that uses it may put a copy into the binary.

/// The packed base model, `stories15m-b158` (about 11 MB).
pub static BASE_MODEL: &[u8] = include_bytes!("../../../assets/stories15m-b158/model.r3mes");

/// The base model's tokenizer, in Hugging Face form.
pub static BASE_TOKENIZER: &[u8] = include_bytes!("../../../assets/stories15m-b158/tokenizer.json");

/// Name the base model is registered and served under.
pub const BASE_MODEL_NAME: &str = "stories15m-b158";

/// Public-domain texts the demonstration trains on: name and text.
pub static TEXTS: [(&str, &str); 3] = [
    (
        "bryant-stories",
        include_str!("../../../assets/texts/bryant-stories.txt"),
    ),
    (
        "burgess-busterbrown",
        include_str!("../../../assets/texts/burgess-busterbrown.txt"),
    ),
    (
        "carroll-alice",
        include_str!("../../../assets/texts/carroll-alice.txt"),
    ),
];
