"""The model, in NumPy, one file per component. Read them in the order of the data:

norm -> rope -> rope_scaling -> cache -> attention -> mlp -> decoder -> heads

ops.py has what they share (linear, softmax), weights.py what they expect of their weights, engine.py drives the whole
for generation, and rope_compat.py imitates transformers.

Array shapes are written with one key throughout: B batch, T query positions, S key positions, D hidden_size,
H query heads, G key/value heads, K head_dim, F intermediate_size, V vocab_size. Every function computes in the
dtype of the arrays it is given: float32 for use, float64 as the oracle.
"""
