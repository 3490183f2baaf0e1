//! The floating-point environment of a thread: round to nearest even, keep subnormals.
//!
//! Some other library in the process may have switched on flush-to-zero; every job of the kernels
//! therefore runs inside an [`Environment`], which sets the control register when it differs and
//! puts back what it found.

/// Guard under which kernels run; restores what it replaced when dropped.
#[must_use]
pub(crate) struct Environment {
    replaced: Option<Control>,
}

#[cfg(target_arch = "x86_64")]
mod register {
    /// MXCSR: all exceptions masked, round to nearest, no flush-to-zero, no denormals-are-zero.
    pub(super) const WANTED: u32 = 0x1F80;
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
        // SAFETY: ldmxcsr reads four bytes; the value is one that was read before or WANTED, which
        // has no reserved bit.
        unsafe {
            core::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, readonly))
        };
    }
}

#[cfg(target_arch = "aarch64")]
mod register {
    /// FPCR: round to nearest, no flush-to-zero, no default NaN.
    pub(super) const WANTED: u64 = 0;
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
        // SAFETY: writes a register that user code may write, with a value read before or WANTED.
        unsafe { core::arch::asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod register {
    pub(super) const WANTED: u32 = 0;
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
    pub(crate) fn enter() -> Self {
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::{Cpu, CpuOptions, GOLDEN, Isa, golden};
    use std::hint::black_box;

    /// Flush-to-zero, denormals-are-zero, and rounding towards zero: as badly as a library may leave
    /// a thread. Threads begin as their maker is.
    const DISTURBED: u32 = WANTED | 0xE040;

    #[test]
    fn no_operation_of_a_device_depends_on_what_other_libraries_left() {
        for isa in Isa::available() {
            for threads in [1, 3] {
                let before = register::get();
                register::set(DISTURBED);
                let options = CpuOptions {
                    isa: Some(isa),
                    threads,
                };
                let found = Cpu::new(options).map(|device| golden(&device));
                register::set(before);
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
    fn subnormals_survive_although_the_caller_flushes_them() {
        let before = register::get();
        register::set(WANTED | 0x8040);
        let flushed = black_box(f32::MIN_POSITIVE) * black_box(0.5);
        let kept = {
            let _environment = Environment::enter();
            black_box(f32::MIN_POSITIVE) * black_box(0.5)
        };
        let restored = register::get() & CONTROL;
        register::set(before);
        assert_eq!(flushed, 0.0);
        assert_eq!(kept.to_bits(), 0x0040_0000);
        assert_eq!(restored, 0x9FC0);
    }
}
