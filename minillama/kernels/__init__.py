"""The Numba twins of model/: the same file names and formulas, written for the memory bus and the vector units."""

# The activations of the gated network that kernels/mlp.py has, by their names in config.hidden_act
ACTIVATIONS = {
    "silu": 0, "swish": 0, "gelu_pytorch_tanh": 1, "gelu_new": 1, "gelu_fast": 1, "quick_gelu": 2, "relu": 3,
    "gelu": 4, "gelu_python": 4,
}  # fmt: skip
