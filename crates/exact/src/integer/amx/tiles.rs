//! The tile registers: whether the machine has them, their configuration, and the one product.
//!
//! The intrinsics are not stable Rust; the mnemonics are, since an assembler needs no feature.
//! Tile registers are the state of a thread that the compiler knows nothing of. It never touches
//! them, so what a [`Tiles`] has configured stays until it is dropped, and nothing that happens in
//! between needs them. Each product begins with zeros or loads and ends with stores inside one
//! `asm!`: only the configuration outlives it.

use std::arch::asm;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Most rows of a tile.
pub(super) const ROWS: usize = 16;
/// Columns of one step: the bytes in a row of a tile.
pub(super) const COLUMNS: usize = 64;
/// Bytes of a panel's weights for one step: a whole tile.
pub(super) const STEP: usize = ROWS * COLUMNS;
/// Sums of two times sixteen rows with two panels: 32 rows of 32.
pub(super) const SUMS: usize = 32 * 32;

/// Whether the processor multiplies int8 tiles and the system lets this process use them.
///
/// The permission is asked for once and holds for all threads of the process.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && is_permitted())
}

/// AMX-TILE and AMX-INT8 in the processor, with both tile states enabled by the system.
fn has_instructions() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// Reads the states that the system saves.
    #[target_feature(enable = "xsave")]
    fn enabled() -> u64 {
        // SAFETY: the function is compiled for the instruction.
        unsafe { _xgetbv(0) }
    }
    const OSXSAVE: u32 = 1 << 27;
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const TILE_STATES: u64 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: OSXSAVE tells that the instruction is there.
    let states = unsafe { enabled() };
    __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8 && states & TILE_STATES == TILE_STATES
}

/// Asks Linux for the tile state, which it gives no process unasked.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: the call reads and writes no memory of this process; the kernel overwrites rcx and
    // r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Other systems have other ways, which nobody has tried here.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes in a row of each tile.
    widths: [u16; 16],
    /// Rows of each tile.
    rows: [u8; 16],
}

/// This thread's tile registers, configured: 0 to 3 for sums, 4 and 5 for codes, 6 and 7 for
/// weights. Dropping it, also by a panic, leaves them as they were, unused.
pub(super) struct Tiles {
    /// Rows of the tiles of sums and codes.
    rows: usize,
    /// Registers belong to a thread.
    thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Tiles for `rows` rows of codes, sixteen at most.
    ///
    /// # Safety
    /// [`available`] holds, and this thread has no other `Tiles`.
    pub(super) unsafe fn new(rows: usize) -> Self {
        let rows = rows.min(ROWS);
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            widths: [0; 16],
            rows: [0; 16],
        };
        for tile in 0..8 {
            configuration.widths[tile] = COLUMNS as u16;
            configuration.rows[tile] = if tile < 6 { rows } else { ROWS } as u8;
        }
        // SAFETY: the instruction is available and reads the 64 bytes of a valid configuration.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly));
        }
        Self {
            rows,
            thread: PhantomData,
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: as for `new`; no tile is in use outside a product.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// Rows of int8 codes for a block of columns: whole steps, and perhaps a last one that overlaps
/// them, in which the codes of columns that the block has already are zero.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    /// The rows, `stride` from one to the next, from the block's first column on.
    pub(super) codes: &'a [i8],
    pub(super) stride: usize,
    /// Whole steps, at least one.
    pub(super) steps: usize,
    /// The last step of each row, and the distance from one row's to the next.
    pub(super) tail: Option<(&'a [i8], usize)>,
}

/// Where the last step reads.
#[repr(C)]
struct Tail {
    codes: [*const i8; 2],
    stride: usize,
    weights: [*const u8; 2],
}

/// One step with one tile of codes.
macro_rules! one_step {
    () => {
        concat!(
            "tileloadd tmm4, [{a0} + {lda}]\n",
            "tileloadd tmm6, [{b0} + {ldb}]\n",
            "tileloadd tmm7, [{b1} + {ldb}]\n",
            "tdpbssd tmm0, tmm4, tmm6\n",
            "tdpbssd tmm1, tmm4, tmm7\n",
        )
    };
}

/// One step with two tiles of codes.
macro_rules! two_steps {
    () => {
        concat!(
            one_step!(),
            "tileloadd tmm5, [{a1} + {lda}]\n",
            "tdpbssd tmm2, tmm5, tmm6\n",
            "tdpbssd tmm3, tmm5, tmm7\n",
        )
    };
}

/// The product's loop. `$load`, `$zero` and `$store` move the sums, `$step` adds to them.
macro_rules! product {
    ($load:expr, $zero:expr, $step:expr, $store:expr,
     $codes:expr, $left:expr, $weights:expr, $tail:expr, $add:expr, $sums:expr) => {
        asm!(
            "test {add:e}, {add:e}",
            "jz 2f",
            $load,
            "jmp 3f",
            "2:",
            $zero,
            "3:",
            $step,
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {steps}",
            "jnz 3b",
            "test {tail}, {tail}",
            "jz 4f",
            "mov {a0}, [{tail}]",
            "mov {a1}, [{tail} + 8]",
            "mov {lda}, [{tail} + 16]",
            "mov {b0}, [{tail} + 24]",
            "mov {b1}, [{tail} + 32]",
            $step,
            "4:",
            $store,
            a0 = inout(reg) $codes[0] => _,
            a1 = inout(reg) $codes[1] => _,
            lda = inout(reg) $left.stride => _,
            b0 = inout(reg) $weights[0] => _,
            b1 = inout(reg) $weights[1] => _,
            ldb = in(reg) COLUMNS,
            steps = inout(reg) $left.steps => _,
            tail = in(reg) $tail,
            add = in(reg) u32::from($add),
            c = in(reg) $sums,
            ldc = in(reg) 4 * 32usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

impl Tiles {
    /// The sums of the rows from `rows[0]` on, and from `rows[1]` on if `both`, with two panels.
    ///
    /// A panel has the weights of the block's columns. Row r and lane l of panel p are
    /// `sums[32 * r + 16 * p + l]`, the second rows following from r = 16 on. `add` adds to what
    /// is there, modulo 2^32.
    #[inline]
    pub(super) fn product(
        &self,
        left: &Left<'_>,
        rows: [usize; 2],
        both: bool,
        panels: [&[u8]; 2],
        add: bool,
        sums: &mut [i32],
    ) {
        let last = rows[0].max(rows[1]) + self.rows - 1;
        let end = last * left.stride + left.steps * COLUMNS;
        assert!(
            left.steps > 0 && end <= left.codes.len(),
            "codes of the tiles"
        );
        let weights = panels[0].len().min(panels[1].len());
        assert!(left.steps * STEP <= weights, "weights of the tiles");
        assert!(sums.len() >= SUMS, "sums of the tiles");
        // wrapping_add: what is read through these pointers is asserted, above and below.
        let codes = rows.map(|row| left.codes.as_ptr().wrapping_add(row * left.stride));
        let tail = left.tail.map(|(codes, stride)| {
            assert!(last * stride + COLUMNS <= codes.len(), "last step of codes");
            Tail {
                codes: rows.map(|row| codes.as_ptr().wrapping_add(row * stride)),
                stride,
                weights: panels.map(|panel| panel[panel.len() - STEP..].as_ptr()),
            }
        });
        let tail = tail.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let (weights, sums) = (panels.map(<[u8]>::as_ptr), sums.as_mut_ptr());
        // SAFETY: tiles are configured while `self` lives. They read `self.rows` rows of codes
        // `steps` steps long and as many whole tiles of weights, and the last step of each; they
        // write 32 rows of 128 bytes. All that lies in the slices, as asserted.
        unsafe {
            if both {
                product!(
                    "tileloadd tmm0, [{c} + {ldc}]\n\
                     tileloadd tmm1, [{c} + {ldc} + 64]\n\
                     tileloadd tmm2, [{c} + {ldc} + 2048]\n\
                     tileloadd tmm3, [{c} + {ldc} + 2112]",
                    "tilezero tmm0\ntilezero tmm1\ntilezero tmm2\ntilezero tmm3",
                    two_steps!(),
                    "tilestored [{c} + {ldc}], tmm0\n\
                     tilestored [{c} + {ldc} + 64], tmm1\n\
                     tilestored [{c} + {ldc} + 2048], tmm2\n\
                     tilestored [{c} + {ldc} + 2112], tmm3",
                    codes,
                    left,
                    weights,
                    tail,
                    add,
                    sums
                );
            } else {
                product!(
                    "tileloadd tmm0, [{c} + {ldc}]\n\
                     tileloadd tmm1, [{c} + {ldc} + 64]",
                    "tilezero tmm0\ntilezero tmm1",
                    one_step!(),
                    "tilestored [{c} + {ldc}], tmm0\n\
                     tilestored [{c} + {ldc} + 64], tmm1",
                    codes,
                    left,
                    weights,
                    tail,
                    add,
                    sums
                );
            }
        }
    }
}
