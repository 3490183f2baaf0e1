//! Our messages, questions and answers as `.proto` files, from the types that encode them.
//!
//! The folder `proto/` of the repository holds [`texts`], and a test compares them: the files and the
//! encoding cannot come apart. [`descriptors`] is the same for programs. What stands there in packages
//! `cosmos.*` and `tendermint.*` are other people's types, as far as the ledger reads and writes them.

use std::collections::BTreeMap;
use std::fmt::Write;

use prost_types::field_descriptor_proto::{Label as ProtoLabel, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, OneofDescriptorProto,
    ServiceDescriptorProto,
};
use r3mes_types::query::QueryType;
use r3mes_types::wire::{EnumType, FieldType, Kind, Label, MessageType, Wire};
use r3mes_types::{Message, tx};

/// Google's own file with `Any`.
const ANY_FILE: &str = "google/protobuf/any.proto";

/// Types of the Cosmos SDK that have another name here: module and name here, package and name there.
const ELSEWHERE: &[(&str, &str, &str, &str)] = &[
    ("tx", "Any", "google.protobuf", "Any"),
    ("tx", "PublicKeyValue", "cosmos.crypto.secp256k1", "PubKey"),
    ("tx", "SignMode", "cosmos.tx.signing.v1beta1", "SignMode"),
    ("amount", "Coin", "cosmos.base.v1beta1", "Coin"),
    ("bank", "MsgSend", "cosmos.bank.v1beta1", "MsgSend"),
    ("cosmos", "DenomAmount", "cosmos.base.v1beta1", "Coin"),
    (
        "cosmos",
        "PageRequest",
        "cosmos.base.query.v1beta1",
        "PageRequest",
    ),
    (
        "cosmos",
        "PageResponse",
        "cosmos.base.query.v1beta1",
        "PageResponse",
    ),
    (
        "cosmos::tx",
        "GasInfo",
        "cosmos.base.abci.v1beta1",
        "GasInfo",
    ),
    (
        "cosmos::tx",
        "SimulationResult",
        "cosmos.base.abci.v1beta1",
        "Result",
    ),
    ("cosmos::tx", "Event", "tendermint.abci", "Event"),
    (
        "cosmos::tx",
        "EventAttribute",
        "tendermint.abci",
        "EventAttribute",
    ),
];

/// Package and name of a type in protobuf.
fn place(module: &str, name: &'static str) -> (String, &'static str) {
    let module = module.trim_start_matches("r3mes_types::");
    let elsewhere = ELSEWHERE
        .iter()
        .find(|(there, known, ..)| *there == module && *known == name);
    if let Some((_, _, package, name)) = elsewhere {
        return ((*package).to_owned(), name);
    }
    let package = match module.split("::").collect::<Vec<_>>()[..] {
        ["tx"] => "cosmos.tx.v1beta1".to_owned(),
        ["cosmos", domain] => format!("cosmos.{domain}.v1beta1"),
        // Types that several domains use.
        [
            "address" | "amount" | "cid" | "hash" | "key" | "resources" | "role" | "time" | "query"
            | "commitment" | "task",
            ..,
        ] => "r3mes.types.v1".to_owned(),
        [domain, ..] => format!("r3mes.{domain}.v1"),
        [] => "r3mes.types.v1".to_owned(),
    };
    (package, name)
}

/// One package: its types and service.
#[derive(Default)]
struct Package {
    messages: BTreeMap<&'static str, MessageType>,
    enums: BTreeMap<&'static str, EnumType>,
    methods: Vec<(String, String, String)>,
    service: &'static str,
}

/// Every package, by name.
fn packages() -> BTreeMap<String, Package> {
    let mut packages = BTreeMap::new();
    for (_, message) in Message::described() {
        collect(&mut packages, message);
    }
    for described in [
        tx::TxBody::described(),
        tx::AuthInfo::described(),
        tx::PublicKeyValue::described(),
        r3mes_types::beacon::MsgReveal::described(),
        r3mes_types::cosmos::auth::BaseAccount::described(),
        r3mes_types::cosmos::auth::ModuleAccount::described(),
    ] {
        collect(&mut packages, described);
    }
    for QueryType {
        path,
        question,
        answer,
    } in QueryType::all()
    {
        let types = (full_name(&question), full_name(&answer));
        collect(&mut packages, question);
        collect(&mut packages, answer);
        let Some((service, method)) = path.trim_start_matches('/').split_once('/') else {
            continue;
        };
        let Some((package, service)) = service.rsplit_once('.') else {
            continue;
        };
        let package = packages.entry(package.to_owned()).or_default();
        package.service = service;
        package.methods.push((method.to_owned(), types.0, types.1));
    }
    packages
}

fn collect(packages: &mut BTreeMap<String, Package>, message: MessageType) {
    let (package, name) = place(message.module, message.name);
    if package.starts_with("google.") {
        return;
    }
    let fields = message.fields.clone();
    let messages = &mut packages.entry(package).or_default().messages;
    if messages.insert(name, message).is_some() {
        return;
    }
    for field in fields {
        match field.kind {
            Kind::Message(described) => collect(packages, described()),
            Kind::Enum(described) => {
                let described = described();
                let (package, name) = place(described.module, described.name);
                let package = packages.entry(package).or_default();
                package.enums.insert(name, described);
            }
            _ => (),
        }
    }
}

fn full_name(message: &MessageType) -> String {
    let (package, name) = place(message.module, message.name);
    format!("{package}.{name}")
}

/// Type name of a field, if its type has one.
fn type_name(kind: Kind) -> Option<String> {
    match kind {
        Kind::Message(described) => Some(full_name(&described())),
        Kind::Enum(described) => {
            let described = described();
            let (package, name) = place(described.module, described.name);
            Some(format!("{package}.{name}"))
        }
        _ => None,
    }
}

fn file_of(package: &str) -> String {
    match package {
        "google.protobuf" => ANY_FILE.to_owned(),
        package => format!("{}.proto", package.replace('.', "/")),
    }
}

fn imports(name: &str, package: &Package) -> Vec<String> {
    let fields = package.messages.values().flat_map(|m| &m.fields);
    let of_fields = fields.filter_map(|field| type_name(field.kind));
    let of_methods = package.methods.iter();
    let of_methods =
        of_methods.flat_map(|(_, question, answer)| [question.clone(), answer.clone()]);
    let mut files: Vec<String> = of_fields
        .chain(of_methods)
        .filter_map(|name| Some(file_of(name.rsplit_once('.')?.0)))
        .filter(|file| *file != file_of(name))
        .collect();
    files.sort();
    files.dedup();
    files
}

/// The name of a field or of a choice's variant, as protobuf writes names.
fn field_name(message: &MessageType, field: &FieldType) -> String {
    match (message.oneof, field.name) {
        (true, variant) => words(variant).join("_").to_lowercase(),
        // A word of Rust.
        (false, "kind") if message.name == "Event" => "type".to_owned(),
        (false, name) => name.trim_start_matches("r#").to_owned(),
    }
}

fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for character in name.chars() {
        match words.last_mut() {
            Some(word) if !character.is_uppercase() => word.push(character),
            _ => words.push(character.into()),
        }
    }
    words
}

fn enum_values(described: &EnumType) -> Vec<(u32, String)> {
    let prefix = words(described.name).join("_").to_uppercase();
    let values = described.values.iter().map(|(number, label)| {
        let label = label.to_uppercase().replace([' ', '-'], "_");
        (*number, format!("{prefix}_{label}"))
    });
    let none = (0, format!("{prefix}_UNSPECIFIED"));
    std::iter::once(none).chain(values).collect()
}

/// Everything as descriptors, without Google's own file.
fn our_files() -> Vec<FileDescriptorProto> {
    let packages = packages();
    let files = packages.iter().map(|(name, package)| FileDescriptorProto {
        name: Some(file_of(name)),
        package: Some(name.clone()),
        dependency: imports(name, package),
        message_type: package
            .messages
            .iter()
            .map(|(name, described)| message(name, described))
            .collect(),
        enum_type: package
            .enums
            .iter()
            .map(|(name, described)| enumeration(name, described))
            .collect(),
        service: service(package),
        syntax: Some("proto3".into()),
        ..FileDescriptorProto::default()
    });
    files.collect()
}

/// All types and services that the ledger knows, with what they lean on.
pub fn descriptors() -> FileDescriptorSet {
    let text = |number, name: &str, kind| FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(ProtoLabel::Optional.into()),
        r#type: Some(i32::from(kind)),
        ..FieldDescriptorProto::default()
    };
    let any = FileDescriptorProto {
        name: Some(ANY_FILE.into()),
        package: Some("google.protobuf".into()),
        message_type: vec![DescriptorProto {
            name: Some("Any".into()),
            field: vec![
                text(1, "type_url", Type::String),
                text(2, "value", Type::Bytes),
            ],
            ..DescriptorProto::default()
        }],
        syntax: Some("proto3".into()),
        ..FileDescriptorProto::default()
    };
    let mut file = vec![any];
    file.extend(our_files());
    FileDescriptorSet { file }
}

fn service(package: &Package) -> Vec<ServiceDescriptorProto> {
    if package.methods.is_empty() {
        return Vec::new();
    }
    let methods = package.methods.iter();
    let method = methods.map(|(name, question, answer)| MethodDescriptorProto {
        name: Some(name.clone()),
        input_type: Some(format!(".{question}")),
        output_type: Some(format!(".{answer}")),
        ..MethodDescriptorProto::default()
    });
    vec![ServiceDescriptorProto {
        name: Some(package.service.into()),
        method: method.collect(),
        ..ServiceDescriptorProto::default()
    }]
}

fn message(name: &str, described: &MessageType) -> DescriptorProto {
    let mut oneofs = Vec::new();
    if described.oneof {
        oneofs.push("choice".to_owned());
    }
    let mut fields = Vec::new();
    for field in &described.fields {
        let name = field_name(described, field);
        let optional = is_optional(field);
        let oneof_index = match (described.oneof, optional) {
            (true, _) => Some(0),
            (false, true) => {
                oneofs.push(format!("_{name}"));
                i32::try_from(oneofs.len() - 1).ok()
            }
            (false, false) => None,
        };
        let label = match field.label {
            Label::Repeated => ProtoLabel::Repeated,
            Label::Single | Label::Optional => ProtoLabel::Optional,
        };
        fields.push(FieldDescriptorProto {
            name: Some(name),
            number: i32::try_from(field.number).ok(),
            label: Some(label.into()),
            r#type: Some(proto_type(field.kind).into()),
            type_name: type_name(field.kind).map(|name| format!(".{name}")),
            oneof_index,
            proto3_optional: optional.then_some(true),
            ..FieldDescriptorProto::default()
        });
    }
    let oneof = |name| OneofDescriptorProto {
        name: Some(name),
        options: None,
    };
    DescriptorProto {
        name: Some(name.into()),
        field: fields,
        oneof_decl: oneofs.into_iter().map(oneof).collect(),
        ..DescriptorProto::default()
    }
}

/// Messages tell absence from their default anyway.
fn is_optional(field: &FieldType) -> bool {
    field.label == Label::Optional && !matches!(field.kind, Kind::Message(_))
}

fn proto_type(kind: Kind) -> Type {
    match kind {
        Kind::Uint64 => Type::Uint64,
        Kind::Uint32 => Type::Uint32,
        Kind::Sint64 => Type::Sint64,
        Kind::Bool => Type::Bool,
        Kind::String => Type::String,
        Kind::Bytes => Type::Bytes,
        Kind::Enum(_) => Type::Enum,
        Kind::Message(_) => Type::Message,
    }
}

fn enumeration(name: &str, described: &EnumType) -> EnumDescriptorProto {
    let value = |(number, name)| EnumValueDescriptorProto {
        name: Some(name),
        number: i32::try_from(number).ok(),
        options: None,
    };
    EnumDescriptorProto {
        name: Some(name.into()),
        value: enum_values(described).into_iter().map(value).collect(),
        ..EnumDescriptorProto::default()
    }
}

/// Our own files: path below `proto/`, and text.
pub fn texts() -> Vec<(String, String)> {
    let packages = packages();
    packages
        .iter()
        .map(|(name, package)| (file_of(name), text(name, package)))
        .collect()
}

fn text(name: &str, package: &Package) -> String {
    let mut out = String::from(
        "// Written from the types of crates/types by the test `proto_files_are_what_is_encoded`.\n// Encodings are canonical: fields ascending, defaults left out, nothing unknown.\nsyntax = \"proto3\";\n\n",
    );
    line(&mut out, format_args!("package {name};"));
    let imports = imports(name, package);
    if !imports.is_empty() {
        out.push('\n');
    }
    for file in imports {
        line(&mut out, format_args!("import \"{file}\";"));
    }
    if !package.methods.is_empty() {
        line(&mut out, format_args!("\nservice {} {{", package.service));
        for (method, question, answer) in &package.methods {
            line(
                &mut out,
                format_args!("  rpc {method}(.{question}) returns (.{answer});"),
            );
        }
        out.push_str("}\n");
    }
    for (name, described) in &package.messages {
        out.push('\n');
        docs(&mut out, "", described.docs);
        write_message(&mut out, name, described);
    }
    for (name, described) in &package.enums {
        out.push('\n');
        docs(&mut out, "", described.docs);
        line(&mut out, format_args!("enum {name} {{"));
        for (number, value) in enum_values(described) {
            line(&mut out, format_args!("  {value} = {number};"));
        }
        out.push_str("}\n");
    }
    out
}

fn write_message(out: &mut String, name: &str, described: &MessageType) {
    line(out, format_args!("message {name} {{"));
    let indent = match described.oneof {
        true => "    ",
        false => "  ",
    };
    if described.oneof {
        out.push_str("  oneof choice {\n");
    }
    for field in &described.fields {
        docs(out, indent, field.docs);
        let label = match field.label {
            Label::Repeated => "repeated ",
            Label::Optional if is_optional(field) => "optional ",
            Label::Single | Label::Optional => "",
        };
        let kind = match type_name(field.kind) {
            Some(name) => format!(".{name}"),
            None => proto_type(field.kind)
                .as_str_name()
                .trim_start_matches("TYPE_")
                .to_lowercase(),
        };
        let (name, number) = (field_name(described, field), field.number);
        line(
            out,
            format_args!("{indent}{label}{kind} {name} = {number};"),
        );
    }
    if described.oneof {
        out.push_str("  }\n");
    }
    out.push_str("}\n");
}

fn docs(out: &mut String, indent: &str, docs: &[&str]) {
    for text in docs {
        let text = text.replace("[`", "`").replace("`]", "`");
        line(out, format_args!("{indent}//{text}"));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}
