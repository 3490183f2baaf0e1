//! [`Device`] for the processor: shapes are checked here, work is done in the sibling modules.

use super::{Cpu, CpuBuffer, CpuCodes, CpuInt8, CpuKvCache, CpuRope, CpuTernary, FirstBadRow};
use crate::environment::undisturbed;
use crate::scalar::elementwise::AdamWStep;
use crate::{
    Activation, AdamW, AttentionBackward, AttentionShape, Bytes, Device, Element, GatedBackward,
    Isa, LoraBackward, LoraSite, NotFinite, RopeDirection, RopeShape, Write, int8, kernels,
};

/// Elements that a thread takes at once in operations on single elements.
const SMALLEST_CHUNK: usize = 4096;

impl Device for Cpu {
    type Buffer<T: Element> = CpuBuffer<T>;
    type Ternary = CpuTernary;
    type Int8 = CpuInt8;
    type Codes = CpuCodes;
    type Rope = CpuRope;
    type KvCache = CpuKvCache;

    fn host_isa(&self) -> Isa {
        self.isa
    }

    fn zeros<T: Element>(&self, len: usize) -> CpuBuffer<T> {
        CpuBuffer::zeros(len)
    }

    fn upload<T: Element>(&self, values: &[T]) -> CpuBuffer<T> {
        values.into()
    }

    fn write<T: Element>(&self, buffer: &mut CpuBuffer<T>, offset: usize, values: &[T]) {
        buffer[offset..offset + values.len()].copy_from_slice(values);
    }

    fn read<T: Element>(&self, buffer: &CpuBuffer<T>, offset: usize, values: &mut [T]) {
        values.copy_from_slice(&buffer[offset..offset + values.len()]);
    }

    fn len<T: Element>(&self, buffer: &CpuBuffer<T>) -> usize {
        buffer.len()
    }

    fn copy<T: Element>(&self, from: &CpuBuffer<T>, to: &mut CpuBuffer<T>, len: usize) {
        to[..len].copy_from_slice(&from[..len]);
    }

    fn clear<T: Element>(&self, buffer: &mut CpuBuffer<T>, len: usize) {
        buffer[..len].fill(T::default());
    }

    fn gather_rows(
        &self,
        x: &CpuBuffer<f32>,
        indices: &[u32],
        cols: usize,
        out: &mut CpuBuffer<f32>,
    ) {
        let rows = out[..indices.len() * cols].chunks_exact_mut(cols);
        for (index, out) in indices.iter().zip(rows) {
            out.copy_from_slice(&x[*index as usize * cols..][..cols]);
        }
    }

    fn synchronize(&self) -> Result<(), NotFinite> {
        Ok(())
    }

    fn ternary(&self, panels: Bytes, rows: usize, cols: usize, scale: f32) -> CpuTernary {
        CpuTernary::new(panels, rows, cols, scale)
    }

    fn int8(&self, panels: Bytes, rows: usize, cols: usize, row_scales: &[f32]) -> CpuInt8 {
        assert_eq!(row_scales.len(), rows, "one scale for each row");
        CpuInt8::new(panels, rows, cols, row_scales)
    }

    fn codes(&self, rows: usize, cols: usize) -> CpuCodes {
        CpuCodes::new(rows, cols)
    }

    fn embed(&self, table: &CpuInt8, tokens: &[u32], out: &mut CpuBuffer<f32>) {
        let cols = table.cols;
        let panels = table.panels();
        self.each_row_chunk(tokens.len(), cols, out, |rows, out| {
            let mut codes = vec![0; cols];
            for (row, out) in rows.zip(out.chunks_exact_mut(cols)) {
                let token = tokens[row] as usize;
                int8::row(panels, token, &mut codes);
                kernels::dequantize(self.isa, &codes, table.row_scales[token], out);
            }
        });
    }

    fn rms_norm(
        &self,
        x: &CpuBuffer<f32>,
        gain: &CpuBuffer<f32>,
        epsilon: f32,
        rows: usize,
        out: &mut CpuBuffer<f32>,
    ) {
        let cols = gain.len();
        self.each_row_chunk(rows, cols, out, |rows, out| {
            for (row, out) in rows.zip(out.chunks_exact_mut(cols)) {
                kernels::rms_norm(self.isa, &x[row * cols..][..cols], gain, epsilon, out);
            }
        });
    }

    fn quantize(
        &self,
        x: &CpuBuffer<f32>,
        rows: usize,
        out: &mut CpuCodes,
    ) -> Result<(), NotFinite> {
        self.quantize_rows(x, rows, out)
    }

    fn read_codes(&self, x: &CpuCodes, row: usize, values: &mut [i8]) -> f32 {
        values.copy_from_slice(x.row(row));
        x.scales[row]
    }

    fn ternary_forward(&self, w: &CpuTernary, x: &CpuCodes, y: &mut CpuBuffer<f32>) {
        self.ternary_product(w, x, y);
    }

    fn int8_forward(&self, w: &CpuInt8, x: &CpuCodes, y: &mut CpuBuffer<f32>) {
        self.int8_product(w, x, y);
    }

    fn lora_forward(
        &self,
        site: &LoraSite,
        adapter: &CpuBuffer<f32>,
        x: &CpuCodes,
        hidden: &mut CpuBuffer<f32>,
        y: &mut CpuBuffer<f32>,
    ) {
        self.lora(site, adapter, x, hidden, y);
    }

    fn ternary_lora_forward(
        &self,
        w: &CpuTernary,
        site: &LoraSite,
        adapter: &CpuBuffer<f32>,
        x: &CpuCodes,
        hidden: &mut CpuBuffer<f32>,
        y: &mut CpuBuffer<f32>,
    ) {
        self.ternary_lora(w, site, adapter, x, (hidden, y));
    }

    fn rope(&self, shape: &RopeShape) -> CpuRope {
        CpuRope::new(shape)
    }

    fn rotate(
        &self,
        rope: &CpuRope,
        direction: RopeDirection,
        heads: usize,
        positions: &[u32],
        x: &mut CpuBuffer<f32>,
    ) {
        let cols = heads * rope.head_dim;
        let backward = direction == RopeDirection::Backward;
        self.each_row_chunk(positions.len(), cols, x, |rows, x| {
            for (row, x) in rows.zip(x.chunks_exact_mut(cols)) {
                let (cos, sin) = rope.at(positions[row]);
                for head in x.chunks_exact_mut(rope.head_dim) {
                    kernels::rotate(self.isa, rope.pairs, cos, sin, backward, head);
                }
            }
        });
    }

    fn attention(
        &self,
        shape: &AttentionShape,
        qkv: [&CpuBuffer<f32>; 3],
        sequences: &[usize],
        out: &mut CpuBuffer<f32>,
    ) {
        self.attend_sequences(shape, qkv.map(|b| &**b), sequences, out);
    }

    fn kv_cache(&self, shape: &AttentionShape) -> CpuKvCache {
        CpuKvCache::new(*shape)
    }

    fn cached(&self, cache: &CpuKvCache) -> usize {
        cache.len()
    }

    fn truncate(&self, cache: &mut CpuKvCache, len: usize) {
        cache.truncate(len);
    }

    fn attention_cached(
        &self,
        shape: &AttentionShape,
        qkv: [&CpuBuffer<f32>; 3],
        segments: &[usize],
        caches: &mut [&mut CpuKvCache],
        out: &mut CpuBuffer<f32>,
    ) {
        self.attend_caches(shape, qkv.map(|b| &**b), segments, caches, out);
    }

    fn gated(
        &self,
        activation: Activation,
        gate: &CpuBuffer<f32>,
        up: &CpuBuffer<f32>,
        len: usize,
        out: &mut CpuBuffer<f32>,
    ) {
        let chunk = self.chunk(len, SMALLEST_CHUNK);
        let inputs = gate[..len].chunks(chunk).zip(up[..len].chunks(chunk));
        let parts = inputs.zip(out[..len].chunks_mut(chunk));
        self.pool.each(parts, |((gate, up), out)| {
            kernels::gated(self.isa, activation, gate, up, out);
        });
    }

    fn add(&self, x: &CpuBuffer<f32>, len: usize, y: &mut CpuBuffer<f32>) {
        let chunk = self.chunk(len, SMALLEST_CHUNK);
        let parts = x[..len].chunks(chunk).zip(y[..len].chunks_mut(chunk));
        self.pool.each(parts, |(x, y)| kernels::add(self.isa, x, y));
    }

    fn check_finite(&self, x: &CpuBuffer<f32>, len: usize, cols: usize) -> Result<(), NotFinite> {
        let bad = FirstBadRow::new();
        let chunk = self.chunk(len / cols, 1);
        let parts = x[..len].chunks(chunk * cols).enumerate();
        self.pool.each(parts, |(i, x)| {
            for (row, x) in (i * chunk..).zip(x.chunks(cols)) {
                if kernels::absmax_bits(self.isa, x) >= f32::INFINITY.to_bits() {
                    bad.report(row);
                }
            }
        });
        bad.result()
    }

    fn head_loss(
        &self,
        head: &CpuInt8,
        x: &CpuCodes,
        targets: &[u32],
        count: usize,
        dx: Option<&mut CpuBuffer<f32>>,
    ) -> Result<i64, NotFinite> {
        self.head_loss_rows(head, x, targets, count, dx.map(|dx| &mut **dx))
    }

    fn ternary_backward(
        &self,
        w: &CpuTernary,
        dy: &CpuBuffer<f32>,
        rows: usize,
        write: Write,
        dx: &mut CpuBuffer<f32>,
    ) -> Result<(), NotFinite> {
        self.ternary_gradient(w, dy, rows, write, dx)
    }

    fn int8_backward(
        &self,
        w: &CpuInt8,
        dy: &CpuBuffer<f32>,
        rows: usize,
        write: Write,
        dx: &mut CpuBuffer<f32>,
    ) -> Result<(), NotFinite> {
        self.int8_gradient(w, dy, rows, write, dx)
    }

    fn lora_backward(&self, site: &LoraSite, pass: LoraBackward<'_, Self>) {
        self.lora_gradients(site, pass, 1, |_, _| {});
    }

    fn ternary_lora_backward(
        &self,
        w: &CpuTernary,
        site: &LoraSite,
        write: Write,
        pass: LoraBackward<'_, Self>,
    ) -> Result<(), NotFinite> {
        self.ternary_lora_gradients(w, site, write, pass)
    }

    fn attention_backward(
        &self,
        shape: &AttentionShape,
        pass: AttentionBackward<'_, Self>,
        sequences: &[usize],
    ) {
        self.attend_gradients(shape, pass, sequences);
    }

    fn rms_norm_backward(
        &self,
        x: &CpuBuffer<f32>,
        gain: &CpuBuffer<f32>,
        epsilon: f32,
        dy: &CpuBuffer<f32>,
        rows: usize,
        dx: &mut CpuBuffer<f32>,
    ) {
        let cols = gain.len();
        self.each_row_chunk(rows, cols, dx, |rows, dx| {
            for (row, dx) in rows.zip(dx.chunks_exact_mut(cols)) {
                let part = row * cols..(row + 1) * cols;
                let (x, dy) = (&x[part.clone()], &dy[part]);
                kernels::rms_norm_backward(self.isa, x, gain, epsilon, dy, dx);
            }
        });
    }

    fn gated_backward(&self, activation: Activation, pass: GatedBackward<'_, Self>, len: usize) {
        let chunk = self.chunk(len, SMALLEST_CHUNK);
        let gate = pass.gate[..len].chunks(chunk);
        let inputs = gate
            .zip(pass.up[..len].chunks(chunk))
            .zip(pass.dout[..len].chunks(chunk));
        let dgate = pass.dgate[..len].chunks_mut(chunk);
        let outputs = dgate.zip(pass.dup[..len].chunks_mut(chunk));
        self.pool
            .each(inputs.zip(outputs), |(((gate, up), dout), (dgate, dup))| {
                kernels::gated_backward(self.isa, activation, [gate, up, dout], dgate, dup);
            });
    }

    fn adamw(
        &self,
        step: &AdamW,
        gradient: &CpuBuffer<f32>,
        weights: &mut CpuBuffer<f32>,
        moments: [&mut CpuBuffer<f32>; 2],
    ) {
        let [first, second] = moments;
        let len = weights.len();
        assert!(
            gradient.len() == len && first.len() == len && second.len() == len,
            "a gradient and two moments for each weight"
        );
        let step = undisturbed(|| AdamWStep::new(*step));
        let chunk = self.chunk(len, SMALLEST_CHUNK);
        let moments = first.chunks_mut(chunk).zip(second.chunks_mut(chunk));
        let parts = weights
            .chunks_mut(chunk)
            .zip(gradient.chunks(chunk))
            .zip(moments);
        self.pool
            .each(parts, |((weights, gradient), (first, second))| {
                kernels::adamw(self.isa, &step, gradient, weights, first, second);
            });
    }
}
