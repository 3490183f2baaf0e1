//! What is told about models.

use r3mes_types::Event;
use r3mes_types::models::{ModelSpec, Version};

pub(super) fn registered(spec: &ModelSpec) -> Event {
    Event::new("models.registered")
        .with("model", spec.id)
        .with("name", &spec.name)
}

pub(super) fn version(version: &Version) -> Event {
    Event::new("models.version")
        .with("model", version.model)
        .with("number", version.number)
        .with("adapter", version.adapter)
}
