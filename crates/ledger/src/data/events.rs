//! What is told about datasets.

use r3mes_types::data::Dataset;
use r3mes_types::{Address, Event};

pub(super) fn dataset(dataset: &Dataset) -> Event {
    Event::new("data.dataset")
        .with("dataset", dataset.id)
        .with("status", dataset.status)
}

pub(super) fn voted(dataset: u64, voter: &Address, approve: bool) -> Event {
    Event::new("data.voted")
        .with("dataset", dataset)
        .with("voter", voter)
        .with("approve", approve)
}
