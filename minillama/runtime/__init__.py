"""The fast model: packed weights, a cache for each sequence, and an engine that runs kernels/ on them."""
