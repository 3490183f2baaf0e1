//! Memory that is fetched by parts while other memory is computed with.

use std::arch::x86_64::*;

/// Most panels that are fetched.
const PANELS: usize = 4;

/// Panels that go by parts to the cache, before they are used.
pub(crate) struct Ahead<'a> {
    panels: [&'a [u8]; PANELS],
    part: usize,
}

impl<'a> Ahead<'a> {
    /// In `parts` parts. Of more than four panels, the first ones.
    #[inline]
    pub(crate) fn new(panels: impl Iterator<Item = &'a [u8]>, parts: usize) -> Self {
        let mut all = [&[][..]; PANELS];
        for (place, panel) in all.iter_mut().zip(panels) {
            *place = panel;
        }
        let part = all[0].len().div_ceil(parts).next_multiple_of(64);
        Self { panels: all, part }
    }

    /// The next part.
    #[inline]
    pub(crate) fn fetch(&mut self) {
        for panel in &mut self.panels {
            let (part, rest) = panel.split_at(self.part.min(panel.len()));
            *panel = rest;
            for line in part.chunks(64) {
                // SAFETY: prefetching never faults.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
            }
        }
    }
}
