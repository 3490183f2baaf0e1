//! Parameters of data.

use r3mes_types::data::DataParams;
use r3mes_types::{MIN_WINDOW, Millis};

/// Longest vote.
const MAX_VOTING: Millis = Millis::seconds(30 * 24 * 3600);

/// What a network has that says nothing else.
pub const fn defaults() -> DataParams {
    DataParams {
        voting: Millis::seconds(3 * 24 * 3600),
    }
}

/// Checks parameters.
///
/// # Errors
/// When votes would have too little time, or never end.
pub fn check(params: &DataParams) -> Result<(), String> {
    if params.voting < MIN_WINDOW || params.voting > MAX_VOTING {
        return Err(format!(
            "data.voting must be between {MIN_WINDOW}, in which four blocks are made, and {MAX_VOTING}"
        ));
    }
    Ok(())
}
