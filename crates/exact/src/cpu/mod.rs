//! The processor as a [`Device`].

mod attention;
mod buffer;
mod device;
mod head;
mod linear;
mod lora;
mod pool;
pub(crate) mod scratch;
mod weights;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use buffer::CpuBuffer;
pub use pool::MAX_THREADS;
pub use weights::{CpuCodes, CpuInt8, CpuKvCache, CpuRope, CpuTernary};

use crate::{Isa, IsaError, NotFinite};
use pool::Pool;

/// How a [`Cpu`] runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuOptions {
    /// The kernels to use; `None` for the fastest this machine has.
    pub isa: Option<Isa>,
    /// Threads, the caller's among them; with 1 nothing else is started. At most [`MAX_THREADS`].
    pub threads: usize,
}

impl Default for CpuOptions {
    fn default() -> Self {
        Self {
            isa: None,
            threads: 1,
        }
    }
}

/// The processor: kernels of one instruction set on a pool of threads.
///
/// ```
/// use r3mes_exact::{Cpu, CpuOptions, Device};
///
/// let cpu = Cpu::new(CpuOptions::default())?;
/// let x = cpu.upload(&[3.0, 4.0]);
/// let gain = cpu.upload(&[1.0, 1.0]);
/// let mut y = cpu.zeros(2);
/// cpu.rms_norm(&x, &gain, 0.0, 1, &mut y);
/// assert_eq!(y[0], 3.0 * (1.0 / 12.5f32.sqrt()));
/// # Ok::<(), r3mes_exact::IsaError>(())
/// ```
#[derive(Clone)]
pub struct Cpu {
    isa: Isa,
    pool: Arc<Pool>,
}

impl Cpu {
    /// Starts the pool.
    ///
    /// # Errors
    /// [`IsaError::Unavailable`] when the machine cannot run the kernels asked for.
    pub fn new(options: CpuOptions) -> Result<Self, IsaError> {
        Ok(Self {
            isa: Isa::choose(options.isa)?,
            pool: Arc::new(Pool::new(options.threads)),
        })
    }

    /// The kernels in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Size of the chunks in which `n` equal pieces of work go over the threads: several for each
    /// thread, as a thread may be slower than its neighbour, and all at once for one thread.
    fn chunk(&self, n: usize, smallest: usize) -> usize {
        let threads = self.threads();
        if threads == 1 {
            return n.max(1);
        }
        n.div_ceil(4 * threads).max(smallest).max(1)
    }

    /// Calls `f` with ranges that cover `rows`, over the threads; `f` has the chunk of each output
    /// row by row.
    fn each_row_chunk<T: Send>(
        &self,
        rows: usize,
        cols: usize,
        out: &mut [T],
        f: impl Fn(Range<usize>, &mut [T]) + Sync,
    ) {
        let chunk = self.chunk(rows, 1);
        let chunks = out[..rows * cols].chunks_mut(chunk * cols).enumerate();
        self.pool.each(chunks, |(i, out)| {
            let start = i * chunk;
            f(start..start + out.len() / cols, out);
        });
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cpu({}, {} threads)", self.isa, self.threads())
    }
}

/// The first row, over all threads, that held a value which is not finite.
struct FirstBadRow(AtomicUsize);

impl FirstBadRow {
    fn new() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }

    fn report(&self, row: usize) {
        self.0.fetch_min(row, Ordering::Relaxed);
    }

    fn result(self) -> Result<(), NotFinite> {
        match self.0.into_inner() {
            usize::MAX => Ok(()),
            row => Err(NotFinite { row }),
        }
    }
}
