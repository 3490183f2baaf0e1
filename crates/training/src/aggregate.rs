//! Aggregation: the accepted packages of a round become the next adapter.
//!
//! Everything up to the last rounding is integer arithmetic in units of
//! 2^-40, so the result does not depend on the order in which packages are
//! added, nor on the machine. A package whose norm is above the median norm
//! is scaled down to it: no single miner decides a round.
//!
//! See `docs/spec/training.md`, "Aggregation".

use r3mes_exact::undisturbed;

use crate::package::{Package, Shape};

/// The most packages that one round aggregates: sums stay within 63 bits.
pub const MAX_PACKAGES: usize = 1 << 15;

/// 2^-40, the unit of the fixed point.
const UNIT: f32 = f32::from_bits((127 - 40) << 23);

/// What became of the packages of a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The next adapter, flat.
    pub adapter: Vec<f32>,
    /// The norm of each package, in the order given, in units of 2^-40,
    /// rounded down.
    pub norms: Vec<u64>,
    /// The norm to which larger packages were scaled down; zero without any.
    pub median_norm: u64,
}

/// Why packages cannot be aggregated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// A package describes another number of parameters than the adapter has.
    #[error("package {index} is for {got:?}, the adapter has {parameters} parameters")]
    Shape {
        /// Position of the package in the list given.
        index: usize,
        /// Its shape.
        got: Shape,
        /// Entries of the start adapter.
        parameters: usize,
    },
    /// More than [`MAX_PACKAGES`].
    #[error("{packages} packages in one round, at most {MAX_PACKAGES} are summed exactly")]
    TooMany {
        /// How many were given.
        packages: usize,
    },
}

/// Adds the mean of all packages, each clipped to the median norm, to the
/// start adapter. Without packages the adapter stays as it is.
///
/// # Errors
/// [`AggregateError`] when a package is for another adapter.
pub fn aggregate(start: &[f32], packages: &[Package]) -> Result<Aggregate, AggregateError> {
    if packages.len() > MAX_PACKAGES {
        return Err(AggregateError::TooMany {
            packages: packages.len(),
        });
    }
    let parameters = start.len();
    for (index, package) in packages.iter().enumerate() {
        if package.shape().parameters != parameters {
            return Err(AggregateError::Shape {
                index,
                got: package.shape(),
                parameters,
            });
        }
    }
    let norms: Vec<u64> = packages.iter().map(norm).collect();
    let median_norm = lower_median(&norms);
    let mut sums = vec![0i64; parameters];
    for (package, &norm) in packages.iter().zip(&norms) {
        for (index, value) in package.fixed_point() {
            sums[index] += clip(value, norm, median_norm);
        }
    }
    let adapter = undisturbed(|| {
        let weights = start.iter().zip(&sums);
        weights
            .map(|(&weight, &sum)| apply(weight, sum, packages.len()))
            .collect()
    });
    Ok(Aggregate {
        adapter,
        norms,
        median_norm,
    })
}

/// The norm in units of 2^-40, rounded down. With at most 2^30 entries of at
/// most 2^47 it is below 2^62.
fn norm(package: &Package) -> u64 {
    u64::try_from(package.squared_norm().isqrt()).expect("bounds of shape and scale hold it")
}

/// The median; of an even count the lower of the two in the middle.
fn lower_median(norms: &[u64]) -> u64 {
    let mut sorted = norms.to_vec();
    sorted.sort_unstable();
    sorted
        .len()
        .checked_sub(1)
        .map_or(0, |last| sorted[last / 2])
}

fn clip(value: i64, norm: u64, limit: u64) -> i64 {
    if norm <= limit {
        return value;
    }
    let scaled = divide_rounding(i128::from(value) * i128::from(limit), u128::from(norm));
    i64::try_from(scaled).expect("scaling down keeps it in range")
}

/// One weight plus the mean update. A sum of zero keeps the weight's bits,
/// the sign of a zero included.
fn apply(weight: f32, sum: i64, packages: usize) -> f32 {
    if sum == 0 {
        return weight;
    }
    let mean = divide_rounding(i128::from(sum), packages as u128);
    let mean = i64::try_from(mean).expect("a mean is no larger than the sum");
    weight + mean as f32 * UNIT
}

/// Integer division rounded to nearest, halves away from zero.
fn divide_rounding(numerator: i128, denominator: u128) -> i128 {
    let magnitude = (numerator.unsigned_abs() + denominator / 2) / denominator;
    if numerator < 0 {
        -(magnitude as i128)
    } else {
        magnitude as i128
    }
}
