"""Length-dependent rotary scaling as transformers does it, for comparing with it; nothing else needs this file."""

from typing import Literal

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.model.rope import Rotary
from minillama.model.rope_scaling import inverse_frequencies


class UpstreamRotary(Rotary):
    """One length decides for a whole call, and cached keys stay as they were turned in theirs, so that results depend
    on how a text was cut into calls.

    length "keys", transformers 4.34: the number of keys, and only ever grows. "positions", transformers 5: the last
    position + 1, and falls back to the trained length when a text is shorter than that.
    """

    def __init__(self, config: LlamaConfig, length: Literal["keys", "positions"]):
        super().__init__(config)
        if self.by_length:
            self.signature += (length,)
        self.by_length, self.length = False, length
        self._longest = config.max_position_embeddings

    def inv_freq(self, positions: Array, key_length: int) -> Array:
        length = key_length if self.length == "keys" else int(positions.max()) + 1
        if self.config.rope_type == "dynamic":
            limit = self.config.max_position_embeddings
            fall_back = self.length == "positions" and length < limit
            length = self._longest = limit if fall_back else max(self._longest, length)
        return inverse_frequencies(self.config, np.asarray(length))
