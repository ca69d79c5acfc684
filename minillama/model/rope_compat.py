"""Length-dependent rotary scaling as transformers does it, for comparing with it; nothing else needs this file."""

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.model.rope import Rotary
from minillama.model.rope_scaling import inverse_frequencies


class UpstreamRotary(Rotary):
    """One length decides for a whole call, and cached keys stay as they were turned in theirs, so that results depend
    on how a text was cut into calls.

    "hf4" is transformers 4.34: the length is that of the keys, and only ever grows. "hf5" is transformers 5: it is the
    last position + 1, and falls back to the trained length when a text is shorter than that.
    """

    def __init__(self, config: LlamaConfig, compat: str):
        super().__init__(config)
        self.by_length, self.compat = False, compat
        self._longest = config.max_position_embeddings

    def inv_freq(self, positions: Array, key_length: int) -> Array:
        length = key_length if self.compat == "hf4" else int(positions.max()) + 1
        if self.config.rope_type == "dynamic":
            limit = self.config.max_position_embeddings
            fall_back = self.compat == "hf5" and length < limit
            length = self._longest = limit if fall_back else max(self._longest, length)
        return inverse_frequencies(self.config, np.asarray(length))
