import numpy as np
import pytest

from minillama.model.cache import KVCache
from minillama.outputs import BaseModelOutputWithPast, CausalLMOutputWithPast, SequenceClassifierOutputWithPast

LOGITS, HIDDEN = np.ones((1, 2, 3)), (np.zeros((1, 2, 4)),)


def test_by_name_by_index_and_in_a_row() -> None:
    out = CausalLMOutputWithPast(0.5, LOGITS, None, HIDDEN)
    assert out.loss == out["loss"] == out[0] == 0.5
    assert out.logits is out["logits"] is out[1] is out[:2][1] is LOGITS
    assert out[-1] is HIDDEN
    assert [*out] == [*out.to_tuple()] == [0.5, LOGITS, HIDDEN]
    loss, logits, _ = out
    assert (loss, logits is LOGITS) == (0.5, True)


def test_absent_fields_are_left_out_of_the_row_but_have_a_name() -> None:
    out = SequenceClassifierOutputWithPast(None, LOGITS)
    assert out[0] is LOGITS
    assert out.keys() == ["logits"]
    assert (len(out), "logits" in out, "loss" in out) == (1, True, False)
    assert out["loss"] is out.attentions is None
    assert dict(out) == dict(out.items()) == {"logits": LOGITS}
    assert out.values() == [LOGITS]


def test_names_of_fields_are_no_clash_with_methods() -> None:
    with pytest.raises(KeyError):
        CausalLMOutputWithPast(None, LOGITS)["keys"]


def test_two_outputs_are_the_same_only_if_they_are_one() -> None:
    out = CausalLMOutputWithPast(None, LOGITS)
    assert out == out
    assert out != CausalLMOutputWithPast(None, LOGITS)


def test_the_order_of_the_fields() -> None:
    past, attentions = KVCache(1), (np.ones(1),)
    base = BaseModelOutputWithPast(LOGITS, past, HIDDEN, attentions)
    assert base.keys() == ["last_hidden_state", "past_key_values", "hidden_states", "attentions"]
    head = CausalLMOutputWithPast(1.0, LOGITS, past, HIDDEN, attentions)
    assert head.keys() == ["loss", "logits", "past_key_values", "hidden_states", "attentions"]


def test_what_is_not_a_field() -> None:
    with pytest.raises(KeyError, match="logit"):
        CausalLMOutputWithPast(None, LOGITS)["logit"]
    with pytest.raises(IndexError):
        CausalLMOutputWithPast(None, LOGITS)[1]
