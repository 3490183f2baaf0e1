//! What a client may have done besides reading and writing.

use arrow_flight::{Action, ActionType};
use flight_tonic::Status;
use r3mes_blobs::{BlobStore, Cid, PinName};
use serde_json::{Value, json};

use super::get::broken;

/// Pin of everything that came in over Flight.
const PIN: &str = "flight";

pub(super) fn pin() -> PinName {
    PinName::new(PIN).expect("the name is a constant")
}

/// Every action with what it does.
pub(super) fn types() -> Vec<ActionType> {
    [
        ("stats", "Tells how much is stored, as JSON"),
        (
            "delete",
            "Lets go of a blob that was written here; the body is its CID",
        ),
        (
            "cleanup",
            "Removes what nothing keeps; tells what was removed and is left, as JSON",
        ),
    ]
    .map(|(name, description)| ActionType {
        r#type: name.to_owned(),
        description: description.to_owned(),
    })
    .to_vec()
}

/// Does an action and returns its result.
pub(super) fn run(store: &dyn BlobStore, action: &Action) -> Result<Value, Status> {
    match action.r#type.as_str() {
        "stats" => {
            let usage = store.usage().map_err(|error| broken(&error))?;
            let pins = store.pins().map_err(|error| broken(&error))?;
            let written = pins.iter().filter(|pin| pin.name == self::pin()).count();
            Ok(json!({
                "blocks": usage.blocks,
                "bytes": usage.bytes,
                "pins": pins.len(),
                "written": written,
            }))
        }
        "delete" => {
            let cid: Option<Cid> = std::str::from_utf8(&action.body)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            let cid = cid.ok_or_else(|| Status::invalid_argument("the body must be a CID"))?;
            let unpinned = store.unpin(&cid, &pin());
            if !unpinned.map_err(|error| broken(&error))? {
                return Err(Status::not_found(format!(
                    "{cid} was not written over Flight, or is deleted already"
                )));
            }
            Ok(json!({ "deleted": cid.to_string() }))
        }
        "cleanup" => {
            let done = store.collect_garbage(0).map_err(|error| broken(&error))?;
            Ok(json!({
                "removed_blocks": done.removed.blocks,
                "removed_bytes": done.removed.bytes,
                "blocks": done.kept.blocks,
                "bytes": done.kept.bytes,
            }))
        }
        other => Err(Status::invalid_argument(format!(
            "there is no action {other:?}: there are stats, delete and cleanup"
        ))),
    }
}
