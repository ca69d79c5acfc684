"""The model, in NumPy, one file per component, in the order of the data:

norm -> rope (rope_scaling) -> attention (with its cache) -> mlp -> decoder -> heads

Array shapes are written with one key throughout: B batch, T query positions, S key positions, D hidden_size,
H query heads, G key/value heads, K head_dim, F intermediate_size, V vocab_size. Every function computes in the
dtype of the arrays it is given: float32 for use, float64 as the oracle.
"""
