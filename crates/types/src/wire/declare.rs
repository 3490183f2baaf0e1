//! Macros that declare types with their encoding.

/// Declares structs with their protobuf field numbers and implements [`Wire`](crate::wire::Wire).
///
/// Fields must be listed in ascending order of their numbers.
#[macro_export]
macro_rules! schema {
    ($(
        $(#[doc = $doc:literal])*
        $(#[derive($($derived:ident),*)])?
        pub struct $name:ident {
            $( $(#[doc = $field_doc:literal])* $tag:literal => $field:ident : $type:ty ),* $(,)?
        }
    )*) => { $(
        $(#[doc = $doc])*
        $(#[derive($($derived),*)])?
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $field_doc])* pub $field: $type, )*
        }

        impl $crate::wire::Wire for $name {
            fn shown(&self) -> $crate::wire::Shown {
                $crate::wire::Shown::Record(vec![
                    $( (stringify!($field), $crate::wire::Field::shown(&self.$field)), )*
                ])
            }

            fn described() -> $crate::wire::MessageType {
                $crate::wire::MessageType {
                    module: module_path!(),
                    name: stringify!($name),
                    docs: &[$($doc),*],
                    fields: vec![$({
                        let (label, kind) = <$type as $crate::wire::Field>::described();
                        $crate::wire::FieldType {
                            number: $tag,
                            name: stringify!($field),
                            docs: &[$($field_doc),*],
                            label,
                            kind,
                        }
                    }),*],
                    oneof: false,
                }
            }

            fn write_fields(&self, _out: &mut Vec<u8>) {
                $( $crate::wire::Field::write(&self.$field, $tag, _out); )*
            }

            fn read_fields(
                _reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                Ok(Self {
                    $( $field: <$type as $crate::wire::Field>::read($tag, _reader)
                        .map_err(|error| error.within(stringify!($field)))?, )*
                })
            }
        }

        $crate::message_value!($name);
    )* };
}

/// Makes a [`Wire`](crate::wire::Wire) type usable as a field of another.
#[macro_export]
macro_rules! message_value {
    ($name:ty) => {
        impl $crate::wire::Value for $name {
            const WIRE_TYPE: u8 = $crate::wire::DELIMITED;
            fn kind() -> $crate::wire::Kind {
                $crate::wire::Kind::Message(<Self as $crate::wire::Wire>::described)
            }
            fn shown(&self) -> $crate::wire::Shown {
                $crate::wire::Wire::shown(self)
            }
            fn put(&self, out: &mut Vec<u8>) {
                $crate::wire::put_delimited(&$crate::wire::Wire::encode(self), out);
            }
            fn take(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                <Self as $crate::wire::Wire>::decode(reader.delimited()?)
            }
        }
    };
}

/// Declares an enum carried as a number. Zero is never a valid value, so absence is an error.
#[macro_export]
macro_rules! wire_enum {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $number:literal => $label:literal ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant = $number, )*
        }

        impl $name {
            /// Every value, ascending by number.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// The number that stands for this value.
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// The value a number stands for.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$variant), )*
                    _ => None,
                }
            }

            /// Lower-case name.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $label, )*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl $crate::wire::Value for $name {
            const WIRE_TYPE: u8 = $crate::wire::VARINT;
            fn kind() -> $crate::wire::Kind {
                $crate::wire::Kind::Enum(|| $crate::wire::EnumType {
                    module: module_path!(),
                    name: stringify!($name),
                    docs: &[$($doc),*],
                    values: vec![$(($number, $label)),*],
                })
            }
            fn shown(&self) -> $crate::wire::Shown {
                $crate::wire::Shown::Text(self.name().to_owned())
            }
            fn put(&self, out: &mut Vec<u8>) {
                $crate::wire::put_varint(u64::from(self.number()), out);
            }
            fn take(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                let number = <u32 as $crate::wire::Value>::take(reader)?;
                Self::from_number(number).ok_or_else(|| {
                    $crate::wire::DecodeError::invalid(format!(
                        "{number} is not a {}", stringify!($name)
                    ))
                })
            }
        }
    };
}

/// Declares an enum of messages: exactly one numbered field is present.
#[macro_export]
macro_rules! wire_oneof {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident {
            $( $(#[doc = $variant_doc:literal])* $tag:literal => $variant:ident($type:ty) ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[doc = $variant_doc])* $variant($type), )*
        }

        impl $crate::wire::Wire for $name {
            fn shown(&self) -> $crate::wire::Shown {
                match self {
                    $( Self::$variant(value) => $crate::wire::Shown::Record(vec![(
                        stringify!($variant),
                        $crate::wire::Value::shown(value),
                    )]), )*
                }
            }

            fn described() -> $crate::wire::MessageType {
                $crate::wire::MessageType {
                    module: module_path!(),
                    name: stringify!($name),
                    docs: &[$($doc),*],
                    fields: vec![$($crate::wire::FieldType {
                        number: $tag,
                        name: stringify!($variant),
                        docs: &[$($variant_doc),*],
                        label: $crate::wire::Label::Single,
                        kind: <$type as $crate::wire::Value>::kind(),
                    }),*],
                    oneof: true,
                }
            }

            fn write_fields(&self, out: &mut Vec<u8>) {
                match self {
                    $( Self::$variant(value) => {
                        $crate::wire::put_key($tag, $crate::wire::DELIMITED, out);
                        $crate::wire::Value::put(value, out);
                    } )*
                }
            }

            fn read_fields(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                $(
                    if reader.take_key($tag, $crate::wire::DELIMITED)? {
                        return <$type as $crate::wire::Value>::take(reader)
                            .map(Self::$variant)
                            .map_err(|error| error.within(stringify!($variant)));
                    }
                )*
                Err($crate::wire::DecodeError::invalid(concat!("no known ", stringify!($name))))
            }
        }

        $crate::message_value!($name);
    };
}
