"""Writes one model of random ternary weights twice: as GGUF (TQ2_0, Q8_0 embedding) for llama.cpp,
and as a Hugging Face checkpoint in the layout of published BitNet models for this project.

usage: make_model.py SHAPE DIRECTORY, with llama.cpp's gguf-py on PYTHONPATH
"""

import json
import os
import struct
import sys

import gguf
import numpy as np

SHAPES = {
    # name: hidden, layers, feed-forward, heads, key and value heads, vocabulary, activation, and
    # llama.cpp's architecture. Its `bitnet` has the norms before the output and down projections,
    # as BitNet b1.58 2B-4T has, but SiLU where that has a squared ReLU.
    "d768": (768, 12, 2048, 12, 12, 32000, "silu", "llama"),
    "2B-4T": (2560, 30, 6912, 20, 5, 128256, "relu2", "bitnet"),
}
CONTEXT, EPSILON, THETA = 1024, 1e-5, 10_000.0


def tq2_0(codes, scale):
    """GGUF's blocks: 256 weights in 64 bytes, 128 weights to 32 bytes, and a half-precision scale."""
    rows, columns = codes.shape
    groups = (codes + 1).astype(np.uint8).reshape(rows, columns // 256, 2, 4, 32)
    packed = groups[..., 0, :] | groups[..., 1, :] << 2 | groups[..., 2, :] << 4 | groups[..., 3, :] << 6
    blocks = np.empty((rows, columns // 256, 66), np.uint8)
    blocks[..., :64] = packed.reshape(rows, columns // 256, 64)
    blocks[..., 64:] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    return blocks.reshape(rows, -1)


def q8_0(codes, scale):
    """GGUF's blocks: a half-precision scale and 32 weights."""
    rows, columns = codes.shape
    blocks = np.empty((rows, columns // 32, 34), np.uint8)
    blocks[..., :2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    blocks[..., 2:] = codes.reshape(rows, columns // 32, 32).view(np.uint8)
    return blocks.reshape(rows, -1)


def published(codes):
    """Four weights to a byte: bits 2g.. of row r hold row g * rows / 4 + r."""
    quarters = (codes + 1).astype(np.uint8).reshape(4, codes.shape[0] // 4, codes.shape[1])
    return quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6


class Checkpoint:
    """A safetensors file in memory-saving order: sizes first, then tensor after tensor."""

    TYPES = {"uint8": "U8", "int8": "I8", "float32": "F32"}

    def __init__(self, path, sizes):
        header, at = {}, 0
        for name, shape, kind in sizes:
            end = at + int(np.prod(shape)) * np.dtype(kind).itemsize
            header[name] = {"dtype": self.TYPES[kind], "shape": list(shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self.file = open(path, "wb")
        self.file.write(struct.pack("<Q", len(text)) + text)

    def write(self, array):
        self.file.write(np.ascontiguousarray(array).tobytes())


def main():
    name, folder = sys.argv[1:]
    hidden, layers, feed_forward, heads, kv_heads, vocabulary, activation, architecture = SHAPES[name]
    os.makedirs(folder, exist_ok=True)
    random = np.random.default_rng(1)
    key = hidden // heads * kv_heads
    linears = [
        ("self_attn.q_proj", "attn_q", hidden, hidden),
        ("self_attn.k_proj", "attn_k", key, hidden),
        ("self_attn.v_proj", "attn_v", key, hidden),
        ("self_attn.o_proj", "attn_output", hidden, hidden),
        ("mlp.gate_proj", "ffn_gate", feed_forward, hidden),
        ("mlp.up_proj", "ffn_up", feed_forward, hidden),
        ("mlp.down_proj", "ffn_down", hidden, feed_forward),
    ]
    norms = [
        ("input_layernorm", "attn_norm", hidden),
        ("post_attention_layernorm", "ffn_norm", hidden),
    ]
    if architecture == "bitnet":
        norms += [
            ("self_attn.attn_sub_norm", "attn_sub_norm", hidden),
            ("mlp.ffn_sub_norm", "ffn_sub_norm", feed_forward),
        ]

    sizes = [("model.embed_tokens.weight", (vocabulary, hidden), "int8")]
    sizes += [("model.embed_tokens.weight_scale", (vocabulary,), "float32")]
    sizes += [("model.norm.weight", (hidden,), "float32")]
    for layer in range(layers):
        base = f"model.layers.{layer}"
        sizes += [(f"{base}.{norm}.weight", (width,), "float32") for norm, _, width in norms]
        for linear, _, outputs, inputs in linears:
            sizes += [(f"{base}.{linear}.weight", (outputs // 4, inputs), "uint8")]
            sizes += [(f"{base}.{linear}.weight_scale", (1,), "float32")]
    ours = Checkpoint(f"{folder}/model.safetensors", sizes)
    with open(f"{folder}/config.json", "w") as config:
        json.dump(
            {
                "model_type": "bitnet", "hidden_size": hidden, "intermediate_size": feed_forward,
                "num_hidden_layers": layers, "num_attention_heads": heads,
                "num_key_value_heads": kv_heads, "vocab_size": vocabulary,
                "max_position_embeddings": CONTEXT, "rms_norm_eps": EPSILON, "rope_theta": THETA,
                "rope_interleaved": architecture == "llama", "hidden_act": activation, "tie_word_embeddings": True,
                "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"},
            },
            config,
        )

    theirs = gguf.GGUFWriter(f"{folder}/model.gguf", architecture, use_temp_file=True)
    theirs.add_block_count(layers)
    theirs.add_context_length(CONTEXT)
    theirs.add_embedding_length(hidden)
    theirs.add_feed_forward_length(feed_forward)
    theirs.add_head_count(heads)
    theirs.add_head_count_kv(kv_heads)
    theirs.add_layer_norm_rms_eps(EPSILON)
    theirs.add_rope_freq_base(THETA)
    theirs.add_rope_dimension_count(hidden // heads)
    theirs.add_vocab_size(vocabulary)
    theirs.add_tokenizer_model("none")
    ones = np.ones(hidden, np.float32)

    # Half-precision scales, so that both sides have the same weights.
    scale = float(np.float16(1 / (16 * hidden**0.5)))
    codes = random.integers(-127, 128, (vocabulary, hidden), np.int8)
    ours.write(codes)
    ours.write(np.full(vocabulary, scale, np.float32))
    ours.write(ones)
    theirs.add_tensor("token_embd.weight", q8_0(codes, scale), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    theirs.add_tensor("output_norm.weight", ones)
    for layer in range(layers):
        for _, norm, width in norms:
            gains = np.ones(width, np.float32)
            ours.write(gains)
            theirs.add_tensor(f"blk.{layer}.{norm}.weight", gains)
        for _, linear, outputs, inputs in linears:
            scale = float(np.float16((1.5 / inputs) ** 0.5))
            codes = random.integers(-1, 2, (outputs, inputs), np.int8)
            ours.write(published(codes))
            ours.write(np.full(1, scale, np.float32))
            blocks = tq2_0(codes, scale)
            theirs.add_tensor(f"blk.{layer}.{linear}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.TQ2_0)
    ours.file.close()
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()


main()
