//! Protobuf as JSON, the way grpc-gateway writes it for the Cosmos SDK: names with underscores, 64-bit
//! numbers as text, bytes in base64, defaults written out.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, ReflectMessage,
    SerializeOptions, Value as Field,
};
use serde_json::Value;
use tonic::Status;

use super::proto;

/// All types that the ledger knows.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::from_file_descriptor_set(proto::descriptors())
        .expect("a test puts the descriptions together")
});

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Base64 in either alphabet: what stands in an address line has the second.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE.decode(text))
        .ok()
}

/// The type of the question and of the answer of a method.
pub(super) fn method(
    service: &str,
    method: &str,
) -> Option<(MessageDescriptor, MessageDescriptor)> {
    let service = POOL.get_service_by_name(service)?;
    let mut methods = service.methods();
    let method = methods.find(|known| known.name() == method)?;
    Some((method.input(), method.output()))
}

/// Whether a field, or one of a message in it as `message.field`, is true or false.
pub(super) fn is_flag(of: &MessageDescriptor, name: &str) -> bool {
    let field = match name.split_once('.') {
        Some((outer, inner)) => {
            let outer = of.get_field_by_name(outer).map(|field| field.kind());
            let message = outer.as_ref().and_then(Kind::as_message);
            message.and_then(|message| message.get_field_by_name(inner))
        }
        None => of.get_field_by_name(name),
    };
    field.is_some_and(|field| field.kind() == Kind::Bool)
}

/// A message of the type `name` as JSON.
pub(super) fn named(name: &str, bytes: &[u8]) -> Result<Value, Status> {
    let unknown = || Status::internal(format!("{name} is not described"));
    let descriptor = POOL.get_message_by_name(name).ok_or_else(unknown)?;
    read(descriptor, bytes)
}

/// Bytes as JSON.
pub(super) fn read(descriptor: MessageDescriptor, bytes: &[u8]) -> Result<Value, Status> {
    let unreadable = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
    let mut message = DynamicMessage::decode(descriptor, bytes).map_err(|e| unreadable(&e))?;
    name_hosts(&mut message);
    let options = SerializeOptions::new()
        .skip_default_fields(false)
        .use_proto_field_name(true)
        .stringify_64_bit_integers(true);
    let mut json = message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| unreadable(&error))?;
    drop_hosts(&mut json);
    Ok(json)
}

/// Host of type URLs in Google's libraries. The SDK leaves it out, and ours asks for it.
const HOST: &str = "type.googleapis.com";

fn name_hosts(message: &mut DynamicMessage) {
    let is_any = message.descriptor().full_name() == "google.protobuf.Any";
    for (field, value) in message.fields_mut() {
        match value {
            Field::String(url) if is_any && field.name() == "type_url" => {
                url.insert_str(0, HOST);
            }
            Field::Message(inner) => name_hosts(inner),
            Field::List(values) => values.iter_mut().for_each(|value| {
                if let Field::Message(inner) = value {
                    name_hosts(inner);
                }
            }),
            _ => (),
        }
    }
}

fn drop_hosts(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            if let Some(Value::String(url)) = fields.get_mut("@type")
                && let Some(bare) = url.strip_prefix(HOST)
            {
                *url = bare.to_owned();
            }
            fields.values_mut().for_each(drop_hosts);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_hosts),
        _ => (),
    }
}

/// JSON as bytes.
pub(super) fn write(descriptor: MessageDescriptor, json: &Value) -> Result<Vec<u8>, Status> {
    let options = DeserializeOptions::new();
    let message = DynamicMessage::deserialize_with_options(descriptor, json, &options)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(message.encode_to_vec())
}
