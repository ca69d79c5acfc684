import numpy as np
import pytest

from minillama.model.rope_compat import UpstreamRotary
from tests.tiny import ROPES, assert_close, frequencies, tiny_config


@pytest.mark.parametrize(
    ("length", "used"),
    # Lengths of four calls of a model trained on 8. transformers 4 goes by the keys and never goes back to a shorter
    # text; 5 goes by the last position, and goes back only for a text shorter than those of training
    [("keys", [12, 20, 20, 20]), ("positions", [11, 19, 19, 8])],
)
def test_compat_modes_use_one_length_for_a_whole_call(length: str, used: list[int]) -> None:
    rotary = UpstreamRotary(tiny_config(**ROPES["dynamic"]), length)
    assert not rotary.by_length
    for key_length, expected in zip([12, 20, 9, 6], used, strict=True):
        got = rotary.inv_freq(np.arange(key_length - 1)[None], key_length)
        assert_close(got, frequencies("dynamic", expected))
