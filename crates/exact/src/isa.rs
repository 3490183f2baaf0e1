//! Instruction sets: which kernels a processor can run.

use std::fmt;
use std::str::FromStr;

/// A family of kernels. All give the same bits; [`Isa::Scalar`] is the definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, one element at a time. Runs everywhere.
    Scalar,
    /// x86-64 with AVX2 (no fused multiply-add is used).
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// x86-64 with AVX-512 as above and AMX int8 tiles, which the system lets the process use.
    Amx,
    /// aarch64 NEON.
    Neon,
}

/// Why a back end cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// The processor lacks the instructions, or the system does not let the process use them.
    #[error(
        "this machine cannot run the {wanted} kernels; it has: {}",
        names(available)
    )]
    Unavailable {
        /// What was asked for.
        wanted: Isa,
        /// What would work.
        available: Vec<Isa>,
    },
    /// No back end has this name.
    #[error("no kernels are named {name:?}; use one of: scalar, avx2, avx512, amx, neon")]
    Unknown {
        /// The name given.
        name: String,
    },
}

impl Isa {
    const ALL: [Self; 5] = [
        Self::Scalar,
        Self::Avx2,
        Self::Avx512,
        Self::Amx,
        Self::Neon,
    ];

    /// The back ends this machine can run, slowest first.
    pub fn available() -> Vec<Self> {
        Self::ALL
            .into_iter()
            .filter(|isa| isa.is_available())
            .collect()
    }

    /// The fastest back end of this machine.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar)
    }

    /// Whether this machine can run this back end.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512.is_available() && crate::integer::amx::available(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            _ => false,
        }
    }

    /// `wanted` if this machine can run it; the fastest one for `None`.
    ///
    /// # Errors
    /// [`IsaError::Unavailable`] when the machine lacks the instructions.
    pub fn choose(wanted: Option<Self>) -> Result<Self, IsaError> {
        match wanted {
            None => Ok(Self::best()),
            Some(isa) if isa.is_available() => Ok(isa),
            Some(wanted) => Err(IsaError::Unavailable {
                wanted,
                available: Self::available(),
            }),
        }
    }

    /// The name used in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
            Self::Neon => "neon",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, IsaError> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| IsaError::Unknown {
                name: name.to_owned(),
            })
    }
}

fn names(all: &[Isa]) -> String {
    let names: Vec<_> = all.iter().map(|isa| isa.name()).collect();
    names.join(", ")
}
