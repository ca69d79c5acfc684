"""Answers to the exercises of chapter 6."""

import math

import numpy as np

from minillama.model.ops import softmax


# Exercise 6.1
def split(flat, heads):
    B, T, width = flat.shape
    return flat.reshape(B, T, heads, width // heads).swapaxes(1, 2)


# Exercise 6.2
def cache_bytes(layers, kv_heads, head_dim, tokens, bytes_per_number=2):
    return 2 * layers * kv_heads * head_dim * tokens * bytes_per_number


# Exercise 6.3
def group_of(h, H, G):
    return h // (H // G)


# Exercise 6.4
def grouped_attention(q, k, v, visible):
    B, H, T, K = q.shape
    G, S = k.shape[1:3]
    tall = q.reshape(B, G, H // G * T, K)
    scores = (tall @ k.swapaxes(2, 3)).reshape(B, H, T, S) / math.sqrt(K)
    probs = softmax(np.where(visible, scores, -np.inf))
    return (probs.reshape(B, G, H // G * T, S) @ v).reshape(B, H, T, K)
