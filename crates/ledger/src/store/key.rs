//! Keys of tables.

use r3mes_types::{Address, ConsensusAddress, Hash, Role, Time};

/// A key of fixed length whose encoding sorts like itself.
pub trait Key: Sized {
    /// Appends the encoding.
    fn write(&self, out: &mut Vec<u8>);
    /// Takes the encoding off the front.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

impl Key for () {
    fn write(&self, _: &mut Vec<u8>) {}
    fn read(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl Key for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_be_bytes)
    }
}

impl Key for u32 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_be_bytes)
    }
}

impl Key for Time {
    fn write(&self, out: &mut Vec<u8>) {
        self.nanos().write(out);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        u64::read(bytes).map(Self::from_nanos)
    }
}

impl Key for Role {
    fn write(&self, out: &mut Vec<u8>) {
        self.number().write(out);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        u32::read(bytes).and_then(Self::from_number)
    }
}

macro_rules! byte_keys {
    ($($name:ident),*) => { $(
        impl Key for $name {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.as_bytes());
            }
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                take(bytes).map(Self::from)
            }
        }
    )* };
}

byte_keys!(Address, ConsensusAddress, Hash);

macro_rules! tuple_keys {
    ($( ($($name:ident . $index:tt),+) )*) => { $(
        impl<$($name: Key),+> Key for ($($name,)+) {
            fn write(&self, out: &mut Vec<u8>) {
                $( self.$index.write(out); )+
            }
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                Some(($( $name::read(bytes)?, )+))
            }
        }
    )* };
}

tuple_keys! { (A.0, B.1) (A.0, B.1, C.2) (A.0, B.1, C.2, D.3) }
