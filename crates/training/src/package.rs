//! The package: a miner's round, compressed.
//!
//! The update of a round is added to what earlier rounds could not send
//! (`e = decay * e + delta`), and of every chunk only the `top_k` largest
//! entries are sent, as int8 with one power-of-two scale per chunk; what was
//! sent is subtracted again. Powers of two make every division and every
//! subtraction here exact, so the remainder is the same everywhere.
//!
//! See `docs/spec/training.md`, "Package", and SparseLoCo (arXiv 2508.15706).

use r3mes_exact::undisturbed;
use r3mes_types::Hash;

mod chunk;

pub use chunk::Chunk;

/// The smallest exponent of a chunk's scale, and the unit of the fixed point
/// in which packages are aggregated: 2^-40.
pub const MIN_SCALE_EXPONENT: i8 = -40;
/// The largest exponent of a chunk's scale: no entry of an update passes 127.
pub const MAX_SCALE_EXPONENT: i8 = 0;
/// The most parameters that a package may describe.
pub const MAX_PARAMETERS: usize = 1 << 30;
/// The longest chunk: positions and counts fit 16 bits.
pub const MAX_CHUNK: usize = 1 << 15;

const MAGIC: [u8; 4] = *b"R3PK";
const VERSION: u16 = 1;
const HEADER: usize = 4 + 2 + 4 + 8;

/// What a task says about the form of its packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Entries of the flat adapter.
    pub parameters: usize,
    /// Entries of a chunk; the last may be shorter.
    pub chunk: usize,
    /// The most entries sent of one chunk.
    pub top_k: usize,
}

/// Why a [`Shape`] is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// No parameters, or more than [`MAX_PARAMETERS`].
    #[error("a package of {parameters} parameters is outside 1..={MAX_PARAMETERS}")]
    Parameters {
        /// What was asked for.
        parameters: usize,
    },
    /// A chunk of no entries, or longer than [`MAX_CHUNK`].
    #[error("a chunk of {chunk} entries is outside 1..={MAX_CHUNK}")]
    Chunk {
        /// What was asked for.
        chunk: usize,
    },
    /// A top-k of zero, or more than a chunk has.
    #[error("top-k of {top_k} is outside 1..={chunk}, the length of a chunk")]
    TopK {
        /// What was asked for.
        top_k: usize,
        /// Entries of a chunk.
        chunk: usize,
    },
}

impl Shape {
    /// Checks the bounds and returns the shape.
    ///
    /// # Errors
    /// [`ShapeError`] names the first figure out of bounds.
    pub fn new(parameters: usize, chunk: usize, top_k: usize) -> Result<Self, ShapeError> {
        if parameters == 0 || parameters > MAX_PARAMETERS {
            return Err(ShapeError::Parameters { parameters });
        }
        if chunk == 0 || chunk > MAX_CHUNK {
            return Err(ShapeError::Chunk { chunk });
        }
        if top_k == 0 || top_k > chunk {
            return Err(ShapeError::TopK { top_k, chunk });
        }
        Ok(Self {
            parameters,
            chunk,
            top_k,
        })
    }

    /// The length of each chunk, in order.
    fn chunk_lengths(self) -> impl Iterator<Item = usize> {
        (0..self.parameters)
            .step_by(self.chunk)
            .map(move |from| self.chunk.min(self.parameters - from))
    }

    /// No package of this shape encodes to more bytes: the bound for whoever
    /// fetches one.
    #[must_use]
    pub fn max_encoded_len(self) -> usize {
        let per_chunk = |length: usize| {
            // At worst: every entry sent, one bit of stop and all low bits each,
            // and the gaps' quotients, which together never pass the length.
            let count = self.top_k.min(length);
            3 + count + (count * 16 + length).div_ceil(8)
        };
        HEADER + self.chunk_lengths().map(per_chunk).sum::<usize>()
    }
}

/// A compressed adapter update in its checked, canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    shape: Shape,
    chunks: Vec<Chunk>,
}

/// Why an update cannot be compressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressError {
    /// Feedback or update does not have the shape's length.
    #[error("{what} has {got} entries, the adapter has {expected}")]
    Length {
        /// Which of the two.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The shape's.
        expected: usize,
    },
    /// Training diverged: an entry is not finite or above 127.
    #[error("the update diverged: entry {index} is not finite or its magnitude passes 127")]
    Diverged {
        /// Position in the flat adapter.
        index: usize,
    },
}

/// Why bytes are not a package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodePackageError {
    /// The bytes end before the package does.
    #[error("the package ends early, in chunk {chunk}")]
    Truncated {
        /// Chunk being read.
        chunk: usize,
    },
    /// Bytes follow the package.
    #[error("{bytes} bytes follow the package's end")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// Not a package, or of another version.
    #[error("not a version {VERSION} package")]
    Header,
    /// A header whose figures no package may have.
    #[error(
        "the package declares {parameters} parameters in chunks of {chunk}, which is out of bounds"
    )]
    Bounds {
        /// Parameters in the header.
        parameters: u64,
        /// Chunk length in the header.
        chunk: u32,
    },
    /// More chunks than the parameters have.
    #[error("{got} chunks were given, the package has {expected}")]
    Chunks {
        /// How many it has.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// A package for other parameters or chunks than the task's.
    #[error("the package has {parameters} parameters in chunks of {chunk}, the task {expected:?}")]
    Shape {
        /// Parameters in the header.
        parameters: u64,
        /// Chunk length in the header.
        chunk: u32,
        /// The task's.
        expected: Shape,
    },
    /// More entries than the task's top-k, or than the chunk has.
    #[error("chunk {chunk} sends {count} entries, at most {limit} are allowed")]
    Count {
        /// Chunk being read.
        chunk: usize,
        /// Entries it claims.
        count: usize,
        /// Entries it may have.
        limit: usize,
    },
    /// A scale outside the allowed exponents, or twice as large as needed.
    #[error(
        "chunk {chunk} has a scale that is not the smallest power of two (exponent {exponent})"
    )]
    Scale {
        /// Chunk being read.
        chunk: usize,
        /// Its exponent.
        exponent: i8,
    },
    /// A code of zero or -128.
    #[error("chunk {chunk} holds the code {code}, which no encoder writes")]
    Code {
        /// Chunk being read.
        chunk: usize,
        /// The code.
        code: i8,
    },
    /// A position outside the chunk or not after the one before, not one position for each code, or
    /// bits set in the padding.
    #[error(
        "chunk {chunk} has positions outside it or out of order, another number of them than of codes, or padding that is not zero"
    )]
    Positions {
        /// Chunk being read.
        chunk: usize,
    },
}

impl Package {
    /// Compresses the update `delta`, given the error feedback of the round
    /// before, and leaves the new error feedback in `feedback`.
    ///
    /// Both slices have `shape.parameters` entries. On an error `feedback` is
    /// unspecified.
    ///
    /// # Errors
    /// [`CompressError`] when a length is wrong or training diverged.
    pub fn compress(
        shape: Shape,
        decay: f32,
        feedback: &mut [f32],
        delta: &[f32],
    ) -> Result<Self, CompressError> {
        for (what, got) in [
            ("the error feedback", feedback.len()),
            ("the update", delta.len()),
        ] {
            if got != shape.parameters {
                return Err(CompressError::Length {
                    what,
                    got,
                    expected: shape.parameters,
                });
            }
        }
        let mut keys = Vec::with_capacity(shape.chunk);
        let mut chunks = Vec::with_capacity(shape.parameters.div_ceil(shape.chunk));
        let parts = feedback
            .chunks_mut(shape.chunk)
            .zip(delta.chunks(shape.chunk));
        for (number, (feedback, delta)) in parts.enumerate() {
            let chunk = undisturbed(|| {
                for (e, d) in feedback.iter_mut().zip(delta) {
                    *e = decay * *e + *d;
                }
                Chunk::compress(feedback, shape.top_k, &mut keys)
            });
            let chunk = chunk.map_err(|index| CompressError::Diverged {
                index: number * shape.chunk + index,
            })?;
            chunks.push(chunk);
        }
        Ok(Self { shape, chunks })
    }

    /// The shape this package was checked against.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What is sent of each chunk, in order.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// A package from (scale exponent, positions, codes) of each chunk, in order, as
    /// [`chunks`](Self::chunks) shows them.
    ///
    /// # Errors
    /// [`DecodePackageError`] names the first chunk that no encoder would write, or that is missing
    /// or too many.
    pub fn from_chunks(
        shape: Shape,
        parts: impl IntoIterator<Item = (i8, Vec<u16>, Vec<i8>)>,
    ) -> Result<Self, DecodePackageError> {
        let mut parts = parts.into_iter();
        let mut chunks = Vec::new();
        for (chunk, length) in shape.chunk_lengths().enumerate() {
            let part = parts
                .next()
                .ok_or(DecodePackageError::Truncated { chunk })?;
            chunks.push(Chunk::new(chunk, length, shape.top_k.min(length), part)?);
        }
        match parts.count() {
            0 => Ok(Self { shape, chunks }),
            more => Err(DecodePackageError::Chunks {
                expected: chunks.len(),
                got: chunks.len() + more,
            }),
        }
    }

    /// The shape that the header of canonical bytes declares, with the widest top-k: what there is to
    /// decode a package with whose task is not known.
    ///
    /// # Errors
    /// When there is no header, or it is out of bounds.
    pub fn declared_shape(bytes: &[u8]) -> Result<Shape, DecodePackageError> {
        let (chunk, parameters, _) = read_header(bytes)?;
        let outside = DecodePackageError::Bounds { parameters, chunk };
        let parameters = usize::try_from(parameters).map_err(|_| outside.clone())?;
        Shape::new(parameters, chunk as usize, chunk as usize).map_err(|_| outside)
    }

    /// Number of entries sent.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.chunks
            .iter()
            .map(|chunk| chunk.codes().len())
            .sum::<usize>()
    }

    /// Every entry sent as (position in the flat adapter, value in units of
    /// 2^-40), positions ascending. Values lie within ±127 * 2^40.
    pub fn fixed_point(&self) -> impl Iterator<Item = (usize, i64)> {
        self.chunks.iter().enumerate().flat_map(|(number, chunk)| {
            let base = number * self.shape.chunk;
            let shift = (chunk.exponent() - MIN_SCALE_EXPONENT) as u32;
            let entries = chunk.positions().iter().zip(chunk.codes());
            entries.map(move |(&at, &code)| (base + usize::from(at), i64::from(code) << shift))
        })
    }

    /// The sum of squares of all entries, in units of 2^-80; exact.
    #[must_use]
    pub fn squared_norm(&self) -> u128 {
        let mut total = 0u128;
        for chunk in &self.chunks {
            let squares = chunk
                .codes()
                .iter()
                .map(|&c| u64::from(c.unsigned_abs()).pow(2));
            let shift = 2 * (chunk.exponent() - MIN_SCALE_EXPONENT) as u32;
            total += u128::from(squares.sum::<u64>()) << shift;
        }
        total
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + 3 * self.chunks.len() + 2 * self.entries());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.shape.chunk as u32).to_le_bytes());
        out.extend_from_slice(&(self.shape.parameters as u64).to_le_bytes());
        for (chunk, length) in self.chunks.iter().zip(self.shape.chunk_lengths()) {
            chunk.encode(length, &mut out);
        }
        out
    }

    /// Parses canonical bytes; every other byte string is refused, so that two
    /// different byte strings never mean the same package.
    ///
    /// # Errors
    /// [`DecodePackageError`] names the chunk and what is wrong with it.
    pub fn decode(bytes: &[u8], shape: Shape) -> Result<Self, DecodePackageError> {
        let mut rest = check_header(bytes, shape)?;
        // Each chunk takes at least two bytes, so that a header alone takes no memory.
        let count = shape.parameters.div_ceil(shape.chunk).min(rest.len() / 2);
        let mut chunks = Vec::with_capacity(count);
        for (number, length) in shape.chunk_lengths().enumerate() {
            let limit = shape.top_k.min(length);
            chunks.push(Chunk::decode(&mut rest, number, length, limit)?);
        }
        if !rest.is_empty() {
            return Err(DecodePackageError::Trailing { bytes: rest.len() });
        }
        Ok(Self { shape, chunks })
    }

    /// BLAKE3 of the canonical bytes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&self.encode())
    }
}

/// Chunk length and parameters of the header, and what follows it.
fn read_header(bytes: &[u8]) -> Result<(u32, u64, &[u8]), DecodePackageError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(DecodePackageError::Truncated { chunk: 0 });
    };
    let [a, b, c, d, v0, v1, c0, c1, c2, c3, parameters @ ..] = *header;
    if [a, b, c, d] != MAGIC || u16::from_le_bytes([v0, v1]) != VERSION {
        return Err(DecodePackageError::Header);
    }
    let chunk = u32::from_le_bytes([c0, c1, c2, c3]);
    Ok((chunk, u64::from_le_bytes(parameters), rest))
}

fn check_header(bytes: &[u8], expected: Shape) -> Result<&[u8], DecodePackageError> {
    let (chunk, parameters, rest) = read_header(bytes)?;
    if chunk as usize != expected.chunk || parameters != expected.parameters as u64 {
        return Err(DecodePackageError::Shape {
            parameters,
            chunk,
            expected,
        });
    }
    Ok(rest)
}
