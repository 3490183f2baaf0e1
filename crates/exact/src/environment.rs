//! The floating-point environment of a thread: round to nearest even, keep subnormals.
//!
//! Some other library in the process may have switched on flush-to-zero; every job of the kernels
//! therefore runs [`undisturbed`]: the control register is set when it differs, and what was found is
//! put back. So does what other crates compute beside the kernels.

use std::sync::atomic::{Ordering, compiler_fence};

/// Guard under which kernels run; restores what it replaced when dropped.
#[must_use]
struct Environment {
    replaced: Option<Control>,
}

/// Runs `work` as rule 8 of docs/spec/exact.md has it, rounding to nearest and keeping subnormals,
/// whatever another library left in this thread; what was found is put back afterwards.
///
/// For floating-point arithmetic that decides bits and is no operation of a
/// [`Device`](crate::Device): those guard themselves.
///
/// ```
/// use std::hint::black_box;
///
/// let third = || black_box(1.0f32) / black_box(3.0);
/// assert_ne!(r3mes_exact::disturbed(third), third());
/// assert_eq!(r3mes_exact::disturbed(|| r3mes_exact::undisturbed(third)), third());
/// ```
pub fn undisturbed<R>(work: impl FnOnce() -> R) -> R {
    let _environment = Environment::enter();
    apart(work)
}

/// Runs `work` as badly off as a library may leave a thread: subnormals are flushed to zero, and
/// results rounded towards zero.
///
/// For tests that exact results do not depend on it. On Linux, threads that `work` starts begin in
/// the same way.
pub fn disturbed<R>(work: impl FnOnce() -> R) -> R {
    let _restored = Environment {
        replaced: Some(register::get()),
    };
    register::set(register::DISTURBED);
    apart(work)
}

/// Calls `work` where the compiler cannot move its arithmetic past a change of the environment, which
/// it knows nothing of: not by itself, as this is not inlined, nor all of it, as the fence is an effect.
#[inline(never)]
fn apart<R>(work: impl FnOnce() -> R) -> R {
    let result = work();
    compiler_fence(Ordering::SeqCst);
    result
}

#[cfg(target_arch = "x86_64")]
mod register {
    /// MXCSR: all exceptions masked, round to nearest, no flush-to-zero, no denormals-are-zero.
    pub(super) const WANTED: u32 = 0x1F80;
    /// Flush-to-zero, denormals-are-zero, round towards zero.
    pub(super) const DISTURBED: u32 = WANTED | 0xE040;
    /// The bits that control arithmetic; the rest are sticky flags.
    pub(super) const CONTROL: u32 = 0xFFC0;
    pub(super) type Control = u32;

    pub(super) fn get() -> Control {
        let mut value = 0u32;
        // SAFETY: stmxcsr writes four bytes to the pointer, which is a live local variable.
        unsafe { core::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack)) };
        value
    }

    pub(super) fn set(value: Control) {
        // SAFETY: ldmxcsr reads four bytes; the value is one that was read before, WANTED or
        // DISTURBED, which have no reserved bit.
        unsafe {
            core::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, readonly))
        };
    }
}

#[cfg(target_arch = "aarch64")]
mod register {
    /// FPCR: round to nearest, no flush-to-zero, no default NaN.
    pub(super) const WANTED: u64 = 0;
    /// Flush-to-zero, round towards zero.
    pub(super) const DISTURBED: u64 = 0x01C0_0000;
    /// RMode, FZ, DN, FZ16, AH and FIZ.
    pub(super) const CONTROL: u64 = 0x07C8_0003;
    pub(super) type Control = u64;

    pub(super) fn get() -> Control {
        let value: u64;
        // SAFETY: reads a register that user code may read.
        unsafe { core::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack)) };
        value
    }

    pub(super) fn set(value: Control) {
        // SAFETY: writes a register that user code may write, with a value read before, WANTED or
        // DISTURBED.
        unsafe { core::arch::asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod register {
    pub(super) const WANTED: u32 = 0;
    pub(super) const DISTURBED: u32 = 0;
    pub(super) const CONTROL: u32 = 0;
    pub(super) type Control = u32;
    pub(super) fn get() -> Control {
        0
    }
    pub(super) fn set(_: Control) {}
}

use register::{CONTROL, Control, WANTED};

impl Environment {
    /// Checks this thread's environment, and sets it for the life of the guard if it differs.
    fn enter() -> Self {
        let found = register::get();
        if found & CONTROL == WANTED & CONTROL {
            return Self { replaced: None };
        }
        register::set(WANTED);
        Self {
            replaced: Some(found),
        }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if let Some(found) = self.replaced {
            register::set(found);
        }
    }
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;
    use crate::{Cpu, CpuOptions, GOLDEN, Isa, golden};
    use std::hint::black_box;

    #[test]
    fn no_operation_of_a_device_depends_on_what_other_libraries_left() {
        for isa in Isa::available() {
            for threads in [1, 3] {
                let options = CpuOptions {
                    isa: Some(isa),
                    threads,
                };
                let found = disturbed(|| Cpu::new(options).map(|device| golden(&device)));
                let found = found.unwrap().unwrap();
                assert_eq!(found.len(), GOLDEN.len());
                for (found, (name, hash)) in found.iter().zip(GOLDEN) {
                    assert_eq!(found.name, name);
                    assert_eq!(found.hex(), hash, "{name}, {isa}, {threads} threads");
                }
            }
        }
    }

    #[test]
    fn subnormals_and_roundings_survive_although_the_caller_disturbs_them() {
        let computed = || {
            (
                black_box(f32::MIN_POSITIVE) * black_box(0.5),
                black_box(1.0f32) / black_box(1.5),
            )
        };
        let [before, kept, after] = disturbed(|| {
            let before = apart(computed);
            let kept = undisturbed(|| undisturbed(computed));
            [before, kept, apart(computed)]
        });
        assert_eq!(before, (0.0, 0.666_666_6));
        assert_eq!(kept, (f32::from_bits(0x0040_0000), 0.666_666_7));
        assert_eq!(after, before, "what was found is put back");
        assert_eq!(computed(), kept);
    }
}
