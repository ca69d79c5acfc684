"""Checkpoints in and out: the only rooms that know tensor names, on-disk layouts and number formats.

checkpoint opens the file that a path means (finding): config, tensors under Hugging Face's names, all checked.

    reading     source: what the reader of any format hands on
                mapped, magic: files that are mapped, and known by their first bytes
                safetensors; torch_file on torch_zip, torch_pickle, torch_names and training; meta on meta_config,
                whose parts are PyTorch's files; gguf_model on gguf_split (several files), gguf_file, gguf_keys (which
                settings are known), gguf_blocks, gguf_tensors and gguf_rope, with the vocabulary in gguf_vocabulary;
                llama2c
                schemes: what other programs have quantized, known and refused
    tensors     formats: bits to floats; names: which is which, and the rotary layouts; guess: a config off the shapes
                views of others, computed as they are read: interleaved, joined, grouping, lora (read by lora_peft
                and lora_gguf, put in by merging), drawn; quantized
    the model   parameters: what it reads, widened as it does
    writing     target: what is to be written; streaming: a few rows at a time; saving: safetensors;
                gguf_writing and gguf_metadata
"""

from minillama.weights.checkpoint import Checkpoint, open_checkpoint
from minillama.weights.parameters import Parameters

__all__ = ["Checkpoint", "Parameters", "open_checkpoint"]
