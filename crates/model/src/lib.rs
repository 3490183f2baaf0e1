//! BitNet b1.58 transformer and LoRA: checkpoints, tokenizer, forward, backward, KV cache.
