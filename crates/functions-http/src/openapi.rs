//! `GET /openapi.json`: every function that the caller may call, as OpenAPI 3.1 has it.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State, http::HeaderMap};
use r3mes_functions::{
    broker::FunctionView,
    registry::{Access, FunctionInfo},
};
use serde_json::{Map, Value, json};

use super::{Shared, call::caller, problem::Problem, values};

/// The document of the moment: what nodes offer now.
pub(super) async fn document(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = caller(&shared, &headers)?;
    let functions = shared
        .hub
        .with(|broker, now| broker.function_views(&caller.user, &caller.groups, now));
    Ok(Json(describe(&functions)))
}

fn describe(functions: &[FunctionView]) -> Value {
    let mut paths = Map::new();
    let mut anywhere: BTreeMap<&str, &FunctionInfo> = BTreeMap::new();
    for view in functions {
        let path = format!("/api/{}.{}", view.node, view.info.name);
        let id = format!("{}.{}", view.node, view.info.name);
        paths.insert(
            path,
            json!({ "post": operation(&view.info, &id, &view.node) }),
        );
        anywhere.entry(&view.info.name).or_insert(&view.info);
    }
    for (name, info) in anywhere {
        let post = operation(info, &format!("fn.{name}"), "any node");
        paths.insert(format!("/api/fn/{name}"), json!({ "post": post }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "R3MES remote functions",
            "description": "Functions that nodes offer now. The list changes as nodes come and go.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": { "Problem": problem_schema() },
        },
    })
}

fn operation(info: &FunctionInfo, id: &str, tag: &str) -> Value {
    let summary = info.description.lines().next().unwrap_or_default();
    let result = schema(&info.returns);
    let content = match info.streams {
        false => json!({ "application/json": { "schema": result } }),
        true => json!({
            "application/jsonl": { "schema": {
                "type": "object",
                "properties": { "item": result, "error": problem() },
            }},
            "text/event-stream": { "schema": { "type": "string" } },
        }),
    };
    let mut post = json!({
        "operationId": id,
        "summary": summary,
        "description": info.description,
        "tags": [tag],
        "parameters": wishes(),
        "requestBody": {
            "content": { "application/json": { "schema": arguments(&info.parameters) } },
        },
        "responses": {
            "200": { "description": "What the function returns", "content": content },
            "202": { "description": "With Prefer: respond-async; Location says where its result will be" },
            "default": {
                "description": "What was wrong",
                "content": { "application/problem+json": { "schema": problem() } },
            },
        },
    });
    if info.access != Access::Public {
        post["security"] = json!([{ "token": [] }]);
    }
    post
}

/// A schema as its node gave it; anything at all where it gave none.
fn schema(given: &rmpv::Value) -> Value {
    match values::show(given.clone()) {
        Ok(Value::Object(schema)) => schema.into(),
        _ => json!({}),
    }
}

fn arguments(given: &rmpv::Value) -> Value {
    let mut schema = schema(given);
    if let Some(fields) = schema.as_object_mut() {
        fields.entry("type").or_insert("object".into());
    }
    schema
}

fn wishes() -> Value {
    let wish = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    json!([
        wish(
            "capability",
            "Only on a node that can do this",
            json!({ "type": "string" })
        ),
        wish(
            "requirements",
            "Only on a node that has this: a JSON object such as {\"gpu_memory\": \"16GB\"}",
            json!({ "type": "string" }),
        ),
        wish(
            "strategy",
            "How a node is chosen among several",
            json!({ "enum": ["score", "round_robin", "least_loaded", "random", "soonest"] }),
        ),
        wish(
            "deadline_ms",
            "Milliseconds in which the call must end",
            json!({ "type": "integer", "minimum": 1 }),
        ),
        wish(
            "max_price",
            "The most that the call may cost, in uremes",
            json!({ "type": "integer", "minimum": 0 }),
        ),
        wish(
            "max_age_ms",
            "How old a kept result of a cacheable function may be, in milliseconds",
            json!({ "type": "integer", "minimum": 0 }),
        ),
        json!({
            "name": "Callback-URL",
            "in": "header",
            "description": "Whom to tell that the call is over, with Prefer: respond-async",
            "schema": { "type": "string", "format": "uri" },
        }),
    ])
}

fn problem() -> Value {
    json!({ "$ref": "#/components/schemas/Problem" })
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "reason"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "reason": { "type": "string" },
            "exception": { "type": "string" },
            "traceback": { "type": "string" },
            "retry_after_ms": { "type": "integer" },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(node: &str, info: FunctionInfo) -> FunctionView {
        FunctionView {
            node: node.into(),
            info,
            running: 0,
            succeeded: 0,
            failed: 0,
            busy_s: 0.0,
            healthy: true,
            expected_wait_s: None,
        }
    }

    #[test]
    fn a_function_is_described_by_node_and_for_any() {
        let info = FunctionInfo {
            description: "Adds.\n\nMore words.".into(),
            parameters: values::pack(json!({ "properties": { "a": { "type": "integer" } } }))
                .unwrap(),
            returns: values::pack(json!({ "type": "integer" })).unwrap(),
            access: "academic".parse().unwrap(),
            ..FunctionInfo::new("add")
        };
        let document = describe(&[view("gpu.1", info.clone()), view("b", info)]);
        let post = &document["paths"]["/api/gpu.1.add"]["post"];
        assert_eq!(
            (&post["summary"], &post["tags"][0]),
            (&"Adds.".into(), &"gpu.1".into())
        );
        let asked = &post["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(
            (&asked["type"], &asked["properties"]["a"]["type"]),
            (&"object".into(), &"integer".into())
        );
        assert_eq!(post["security"][0]["token"], json!([]));
        let result = &post["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(result, &json!({ "type": "integer" }));
        assert_eq!(document["paths"].as_object().unwrap().len(), 3);
    }
}
