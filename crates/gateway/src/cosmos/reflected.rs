//! What gRPC reflection tells: the services that are answered, with their types.
//!
//! The Cosmos SDK's come from the SDK's own files, which a test compiles into one that lies beside them;
//! ours from [`proto`]. Methods of the SDK that nothing here answers are left out.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use r3mes_types::query::QueryType;

use super::{node, proto, tendermint, tx};

/// Compiled from `proto/third_party`.
const SDK: &[u8] = include_bytes!("../../../../proto/third_party/descriptors.binpb");

/// Our descriptions do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// The compiled file is not what it should be.
    #[error("proto/third_party/descriptors.binpb does not parse: compile it again")]
    Compiled(#[from] prost::DecodeError),
    /// A type of ours leans on one that nobody describes.
    #[error("{file} uses {name}, which no file of proto/third_party describes")]
    Unknown {
        /// The file.
        file: String,
        /// The type.
        name: String,
    },
    /// Reflection cannot be served.
    #[error("the descriptions cannot be served")]
    Served(#[from] tonic_reflection::server::Error),
}

/// Every service that is answered, with all types that it leans on.
///
/// # Errors
/// [`DescriptionError`], which a test rules out.
pub(super) fn descriptors() -> Result<FileDescriptorSet, DescriptionError> {
    let mut sdk = FileDescriptorSet::decode(SDK)?;
    let places = places(&sdk);
    let answered = answered();
    for file in &mut sdk.file {
        let package = file.package().to_owned();
        for service in &mut file.service {
            let service_name = format!("{package}.{}", service.name());
            let is_answered = |method: &prost_types::MethodDescriptorProto| {
                answered.contains(&(service_name.clone(), method.name().to_owned()))
            };
            service.method.retain(is_answered);
        }
        file.service.retain(|service| !service.method.is_empty());
    }
    let ours = proto::descriptors().file.into_iter();
    for mut file in ours.filter(|file| file.package().starts_with("r3mes.")) {
        file.dependency = dependencies(&file, &places)?;
        sdk.file.push(file);
    }
    Ok(sdk)
}

/// Services and methods that are answered.
fn answered() -> BTreeSet<(String, String)> {
    let state = QueryType::all()
        .into_iter()
        .map(|query| query.path.to_owned());
    let named = [tx::METHODS, tendermint::METHODS].into_iter();
    let named = named.chain(node::METHODS).flat_map(|(service, methods)| {
        methods
            .iter()
            .map(move |method| format!("/{service}/{method}"))
    });
    let paths = state.chain(named);
    let split = paths.filter_map(|path| {
        let (service, method) = path.trim_start_matches('/').split_once('/')?;
        Some((service.to_owned(), method.to_owned()))
    });
    split.collect()
}

/// The file that each type stands in.
fn places(set: &FileDescriptorSet) -> BTreeMap<String, String> {
    let mut places = BTreeMap::new();
    for file in &set.file {
        let messages = file.message_type.iter().map(|message| message.name());
        let enums = file.enum_type.iter().map(|described| described.name());
        for name in messages.chain(enums) {
            places.insert(
                format!(".{}.{name}", file.package()),
                file.name().to_owned(),
            );
        }
    }
    places
}

/// The files that a file of ours leans on: ours, or the SDK's.
fn dependencies(
    file: &FileDescriptorProto,
    places: &BTreeMap<String, String>,
) -> Result<Vec<String>, DescriptionError> {
    let ours = file
        .dependency
        .iter()
        .filter(|name| name.starts_with("r3mes/"));
    let mut needed: BTreeSet<String> = ours.cloned().collect();
    let fields = file.message_type.iter().flat_map(|message| &message.field);
    let of_fields = fields.filter_map(|field| field.type_name.as_ref());
    let methods = file.service.iter().flat_map(|service| &service.method);
    let of_methods = methods.flat_map(|method| method.input_type.iter().chain(&method.output_type));
    for name in of_fields.chain(of_methods) {
        if name.starts_with(".r3mes.") {
            continue;
        }
        let place = places.get(name).ok_or_else(|| DescriptionError::Unknown {
            file: file.name().to_owned(),
            name: name.clone(),
        })?;
        needed.insert(place.clone());
    }
    Ok(needed.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// Files whose services and types are told of, with those that they lean on.
    const ROOTS: [&str; 8] = [
        "cosmos/auth/v1beta1/query.proto",
        "cosmos/bank/v1beta1/query.proto",
        "cosmos/bank/v1beta1/tx.proto",
        "cosmos/base/node/v1beta1/query.proto",
        "cosmos/consensus/v1/query.proto",
        "cosmos/crypto/secp256k1/keys.proto",
        "cosmos/tx/v1beta1/service.proto",
        // After the others: from here on `tendermint` inside of `cosmos.base` is this package.
        "cosmos/base/tendermint/v1beta1/query.proto",
    ];

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/third_party")
    }

    /// What the files describe, without annotations for other languages and what these lean on.
    fn compiled() -> Vec<u8> {
        let mut compiler = protox::Compiler::new([folder()]).unwrap();
        compiler.include_imports(true);
        compiler
            .open_files(ROOTS.map(|root| folder().join(root)))
            .unwrap();
        let set = compiler.encode_file_descriptor_set();
        // Decoding leaves annotations out.
        let mut set = FileDescriptorSet::decode(set.as_slice()).unwrap();
        let unneeded = |name: &str| {
            let only_annotates = ["amino/", "cosmos_proto/", "gogoproto/", "google/api/"];
            only_annotates.iter().any(|prefix| name.starts_with(prefix))
                || ["cosmos/msg/v1/msg.proto", "cosmos/query/v1/query.proto"].contains(&name)
                || name == "google/protobuf/descriptor.proto"
        };
        set.file.retain(|file| !unneeded(file.name()));
        for file in &mut set.file {
            file.dependency.retain(|name| !unneeded(name));
            file.source_code_info = None;
        }
        set.encode_to_vec()
    }

    #[test]
    fn what_reflection_tells_is_compiled_from_the_files_beside_it() {
        let compiled = compiled();
        if std::env::var_os("R3MES_WRITE_PROTO").is_some() {
            std::fs::write(folder().join("descriptors.binpb"), &compiled).unwrap();
        }
        assert!(
            compiled == SDK,
            "proto/third_party/descriptors.binpb is not up to date: run this test with R3MES_WRITE_PROTO=1"
        );
    }

    #[test]
    fn descriptions_fit_together_and_tell_of_every_service() {
        let set = descriptors().unwrap();
        let pool = prost_reflect::DescriptorPool::from_file_descriptor_set(set).unwrap();
        let told = pool.services().flat_map(|service| {
            let name = service.full_name().to_owned();
            let methods = service.methods().map(|method| method.name().to_owned());
            methods
                .map(|method| (name.clone(), method))
                .collect::<Vec<_>>()
        });
        assert_eq!(told.collect::<BTreeSet<_>>(), answered());
    }
}
