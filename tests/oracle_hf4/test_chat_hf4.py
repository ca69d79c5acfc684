"""apply_chat_template beside transformers 4.34.1: its built-in Llama 2 template, and templates of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast, Tokenizer
from tests.tiny import LLAMA2_TOKENIZER, needs_llama2_tokenizer

transformers = pytest.importorskip("transformers", reason="needs the oracle-hf4 extra")
if not transformers.__version__.startswith("4.34"):
    pytest.skip("needs transformers 4.34", allow_module_level=True)
# The libraries' own deprecation notes are not ours to fail on
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

KINDS = ("slow, legacy", "slow", "fast")
TEMPLATES = {
    "Llama 2": None,
    "tagged": (
        "{% for m in messages %}{{ bos_token + m['role'] + ': ' + m['content'] | trim }}\n{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    ),
    "no beginning": (
        "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}{{ eos_token }}\n"
        "  {% endif %}\n{% endfor %}"
    ),
}
Pair = tuple[Tokenizer, Any]


def both(kind: str, vocabulary: Path, folder: Path, use_default_system_prompt: bool) -> Pair:
    """Our tokenizer and theirs, from the same sentencepiece model; the fast one from what theirs makes of it."""
    how: dict[str, Any] = {"use_default_system_prompt": use_default_system_prompt}
    if kind == "fast":
        theirs = transformers.LlamaTokenizerFast(str(vocabulary), **how)
        theirs.save_pretrained(folder)
    else:
        how["legacy"] = kind == "slow, legacy"
        theirs = transformers.LlamaTokenizer(str(vocabulary), **how)
        (folder / "tokenizer.model").write_bytes(vocabulary.read_bytes())
        (folder / "tokenizer_config.json").write_text(json.dumps(how))
    return (LlamaTokenizerFast if kind == "fast" else LlamaTokenizer).from_pretrained(folder), theirs


@pytest.fixture(
    scope="module",
    params=["tale", pytest.param("Llama 2", marks=needs_llama2_tokenizer)],
)
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Pair]:
    vocabulary = LLAMA2_TOKENIZER if request.param == "Llama 2" else tale_model() / "tokenizer.model"
    return {
        (kind, flag): both(kind, vocabulary, tmp_path_factory.mktemp("tokenizer"), flag)
        for kind in KINDS
        for flag in (True, False)
    }


# Nothing that a control token could be made of: those differ on purpose
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>"), max_size=20)
SAID = st.one_of(
    PLAIN, st.sampled_from(["", " ", "\n x \t", "[/INST]", "Grüße 🦙", "▁a▁", "  two  spaces", "\u3000x\u00a0"])
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": draw(SAID)}] if draw(st.booleans()) else []
    turns = draw(st.lists(SAID, min_size=1, max_size=4))
    return messages + [{"role": ("user", "assistant")[n % 2], "content": said} for n, said in enumerate(turns)]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
@given(messages=conversations(), flag=st.booleans(), prompt=st.booleans())
@settings(max_examples=60)
def test_texts_and_ids(
    kind: str, template: str, messages: list[dict[str, str]], flag: bool, prompt: bool, pairs: dict[Any, Pair]
) -> None:
    ours, theirs = pairs[kind, flag]
    how = {"chat_template": TEMPLATES[template], "add_generation_prompt": prompt}
    text = theirs.apply_chat_template(messages, tokenize=False, **how)
    assert ours.apply_chat_template(messages, tokenize=False, **how) == text
    assert ours.apply_chat_template(messages, **how) == theirs.apply_chat_template(messages, **how)


@pytest.mark.parametrize("kind", KINDS)
@given(parts=st.lists(st.sampled_from(["<s>", "</s>", "<unk>", "<", "/s>", " ", "a", "[INST]"]), max_size=6))
def test_control_tokens_in_messages_their_way(kind: str, parts: list[str], pairs: dict[Any, Pair]) -> None:
    ours, theirs = pairs[kind, False]
    messages = [{"role": "user", "content": "".join(parts)}]
    theirs_ids = theirs.apply_chat_template(messages)
    assert ours.apply_chat_template(messages, sanitize_control_tokens=False) == theirs_ids


def test_the_default_system_prompt(pairs: dict[Any, Pair]) -> None:
    for ours, theirs in pairs.values():
        for said in ("Hello", "<<SYS>>\nmine\n<</SYS>>\n\nHello"):
            messages = [{"role": "user", "content": said}]
            text = theirs.apply_chat_template(messages, tokenize=False)
            assert ours.apply_chat_template(messages, tokenize=False) == text
            assert ours.apply_chat_template(messages) == theirs.apply_chat_template(messages)


def test_turns_out_of_order_are_refused_by_both(pairs: dict[Any, Pair]) -> None:
    ours, theirs = pairs["slow", True]
    for roles in (["user", "user"], ["assistant"], ["system", "assistant"], ["user", "assistant", "assistant"]):
        messages = [{"role": role, "content": "x"} for role in roles]
        with pytest.raises(Exception, match="roles must alternate"):
            theirs.apply_chat_template(messages)
        with pytest.raises(ValueError, match="must take turns"):
            ours.apply_chat_template(messages)
