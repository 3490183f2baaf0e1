use std::collections::BTreeMap;

use r3mes_inference::ServedModel;
use serde_json::{Value, json};

use super::shape;

/// Other names for models.
#[derive(Clone, Debug, Default)]
pub(super) struct Aliases(pub(super) BTreeMap<String, String>);

impl Aliases {
    /// The model that `name` means: by its name, an alias of it, or the hash of its base model or
    /// of its adapter.
    pub(super) fn find<'m>(
        &self,
        models: &'m [ServedModel],
        name: &str,
    ) -> Option<&'m ServedModel> {
        let real = self.0.get(name).map_or(name, String::as_str);
        let named = models.iter().find(|model| model.name == real);
        let adapted = |model: &&ServedModel| {
            let adapter = model.adapter.map(|adapter| adapter.to_string());
            adapter.as_deref() == Some(real)
        };
        let base =
            |model: &&ServedModel| model.adapter.is_none() && model.model.to_string() == real;
        named
            .or_else(|| models.iter().find(adapted))
            .or_else(|| models.iter().find(base))
    }

    /// A model as `/v1/models` lists it.
    pub(super) fn json(&self, model: &ServedModel) -> Value {
        let aliases = self.0.iter().filter(|(_, real)| **real == model.name);
        let aliases: Vec<_> = aliases.map(|(alias, _)| alias).collect();
        json!({
            "id": model.name,
            "object": "model",
            "created": shape::now(),
            "owned_by": "r3mes",
            "aliases": aliases,
            "context_length": model.context,
            "base_model": model.model.to_string(),
            "adapter": model.adapter.map(|adapter| adapter.to_string()),
            "round": model.round,
        })
    }
}

/// What answers of this model are computed with: equal fingerprints and equal seeds give equal
/// answers.
pub(super) fn fingerprint(model: &ServedModel) -> String {
    let short = |hash: String| hash[..16].to_owned();
    let base = short(model.model.to_string());
    match model.adapter {
        Some(adapter) => format!("{base}-{}", short(adapter.to_string())),
        None => base,
    }
}
