//! What types look like in a `.proto` file, so that clients in other languages can be given one.

/// What a value is in protobuf.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `uint64`.
    Uint64,
    /// `uint32`.
    Uint32,
    /// `sint64`.
    Sint64,
    /// `bool`.
    Bool,
    /// `string`.
    String,
    /// `bytes`.
    Bytes,
    /// An enum.
    Enum(fn() -> EnumType),
    /// A message.
    Message(fn() -> MessageType),
}

/// How often a field may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Once; absence means the default.
    Single,
    /// Once or not at all.
    Optional,
    /// Any number of times; numbers are packed.
    Repeated,
}

/// A message as declared with [`schema!`](crate::schema) or [`wire_oneof!`](crate::wire_oneof).
#[derive(Clone, Debug)]
pub struct MessageType {
    /// Path of the Rust module that declares it.
    pub module: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// Lines of its documentation.
    pub docs: &'static [&'static str],
    /// Its fields, ascending by number.
    pub fields: Vec<FieldType>,
    /// Whether exactly one of the fields is there.
    pub oneof: bool,
}

/// A field of a [`MessageType`].
#[derive(Clone, Debug)]
pub struct FieldType {
    /// Its number.
    pub number: u32,
    /// Its name, or the variant's if the message is a choice.
    pub name: &'static str,
    /// Lines of its documentation.
    pub docs: &'static [&'static str],
    /// How often it may be there.
    pub label: Label,
    /// What its values are.
    pub kind: Kind,
}

/// An enum as declared with [`wire_enum!`](crate::wire_enum).
#[derive(Clone, Debug)]
pub struct EnumType {
    /// Path of the Rust module that declares it.
    pub module: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// Lines of its documentation.
    pub docs: &'static [&'static str],
    /// Numbers and labels, ascending. None has the number 0.
    pub values: Vec<(u32, &'static str)>,
}
