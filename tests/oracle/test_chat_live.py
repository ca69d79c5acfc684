"""apply_chat_template beside transformers 5: templates in the manner of Llama 3 on byte-level pieces, and more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.loading import write_tokenizer
from minillama.shipped import sample_text
from minillama.tokenizer import LlamaTokenizerFast
from minillama.tokenizer.jinja_sandbox import ChatTemplate
from minillama.tokenizer.tool_schemas import tool_schema
from tests.tokenizer.test_jinja_sandbox import SOUND
from tests.tokenizer.test_tool_schemas import FUNCTIONS

transformers = pytest.importorskip("transformers", reason="needs the oracle extra")
if not transformers.__version__.startswith("5."):
    pytest.skip("needs transformers 5", allow_module_level=True)
# The libraries' own deprecation notes are not ours to fail on
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

SPECIAL = ["<|start|>", "<|end|>", "<|head|>", "<|/head|>", "<|turn|>"]
TEMPLATE = """
{%- set day = day if day is defined else "1 May" -%}
{{- bos_token -}}
{%- if messages[0].role == "system" %}{% set rules = messages[0].content | trim %}{% set messages = messages[1:] %}
{%- else %}{% set rules = "" %}{% endif %}
{{- "<|head|>system<|/head|>\\n\\nToday: " + day + "\\n" + rules + "<|turn|>" }}
{%- for tool in tools or [] %}
{{- "\\n" ~ tool | tojson(indent=2) }}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role not in ["user", "assistant"] %}{{ raise_exception("who is " ~ message.role) }}{% endif %}
    {%- if message.content is string %}{% set said = message.content %}
    {%- else %}{% set said = message.content | map(attribute="text") | join %}{% endif %}
    {{- "<|head|>" + message.role + "<|/head|>\\n\\n" }}
    {%- if message.role == "assistant" %}{% generation %}{{ said | trim + "<|turn|>" }}{% endgeneration %}
    {%- else %}{{ said | trim + "<|turn|>" }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|head|>assistant<|/head|>\\n\\n" }}{% endif %}
"""
TEMPLATES = {
    "headers": TEMPLATE,
    "untrimmed": "{% for m in messages %}<|head|>{{ m.role }}<|/head|>{{ m.content }}<|turn|>{% endfor %}",
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlamaTokenizerFast, Any]:
    """Our tokenizer and theirs from one folder: byte-level pieces of the sample text, and special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    folder = tmp_path_factory.mktemp("bytes")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(sample_text().read_text(encoding="utf-8").splitlines(), trainer)
    backend.post_processor = processors.TemplateProcessing(single="<|start|> $A", special_tokens=[("<|start|>", 0)])
    backend.save(str(folder / "tokenizer.json"))
    stated = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated | {"chat_template": TEMPLATE}))
    return LlamaTokenizerFast.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


PLAIN = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>|")),
    st.sampled_from(["", " a ", "\n", "x\n\n"]),
)
SPOILED = st.lists(st.sampled_from([*SPECIAL, "<|", "|>", "head", " ", "a"]), max_size=6).map("".join)


def spoken(content: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    message = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": content})
    system = st.fixed_dictionaries({"role": st.just("system"), "content": PLAIN})
    return st.tuples(st.lists(system, max_size=1), st.lists(message, min_size=1, max_size=4)).map(lambda x: x[0] + x[1])


@pytest.mark.parametrize("template", TEMPLATES)
@given(messages=spoken(PLAIN), prompt=st.booleans())
def test_texts_and_ids(template: str, messages: list[dict[str, str]], prompt: bool, pair: Any) -> None:
    ours, theirs = pair
    how = {"chat_template": TEMPLATES[template], "add_generation_prompt": prompt}
    assert ours.apply_chat_template(messages, tokenize=False, **how) == theirs.apply_chat_template(
        messages, tokenize=False, **how
    )
    assert ours.apply_chat_template(messages, **how) == theirs.apply_chat_template(messages, return_dict=False, **how)


@given(messages=spoken(SPOILED))
def test_control_tokens_in_messages(messages: list[dict[str, str]], pair: Any) -> None:
    """Left alone as theirs does by default; kept out as theirs does when it is asked to, to the same text."""
    ours, theirs = pair
    alone = ours.apply_chat_template(messages, sanitize_control_tokens=False)
    assert alone == theirs.apply_chat_template(messages, return_dict=False)
    kept_out = theirs.apply_chat_template(messages, return_dict=False, sanitize_control_tokens=True)
    ids = ours.apply_chat_template(messages)
    assert [index for index in ids if index < len(SPECIAL)] == [index for index in kept_out if index < len(SPECIAL)]
    assert theirs.decode(ids) == theirs.decode(kept_out)  # the pieces may be cut otherwise: theirs encodes each alone


@given(messages=spoken(PLAIN), template=st.sampled_from(sorted(TEMPLATES)))
def test_going_on_with_a_message(messages: list[dict[str, str]], template: str, pair: Any) -> None:
    ours, theirs = pair
    how = {"chat_template": TEMPLATES[template], "continue_final_message": True, "tokenize": False}
    assert ours.apply_chat_template(messages, **how) == theirs.apply_chat_template(messages, **how)


def test_parts_tools_and_variables(pair: Any) -> None:
    ours, theirs = pair
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]
    messages = [{"role": "user", "content": parts, "name": None}, {"role": "assistant", "content": "Ja & <ja>"}]
    tools = [{"type": "function", "function": {"name": "größe", "parameters": {"a": [1, 2.5, True, None, "<b>"]}}}]
    how: dict[str, Any] = {"tools": tools, "day": "2 May"}
    text = theirs.apply_chat_template(messages, tokenize=False, **how)
    assert "2 May" in text
    assert "größe" in text
    assert ours.apply_chat_template(messages, tokenize=False, **how) == text
    assert ours.apply_chat_template(messages, **how) == theirs.apply_chat_template(messages, return_dict=False, **how)
    several = [messages, messages[:1]]
    assert ours.apply_chat_template(several) == theirs.apply_chat_template(several, return_dict=False)


def test_several_templates_are_read_as_each_other_writes_them(pair: Any, tmp_path: Path) -> None:
    theirs = pair[1]
    templates = {"default": "d{{ 1 }}", "rag": "r{{ 2 }}", "tool_use": "t{{ 3 }}"}
    theirs.chat_template = templates
    theirs.save_pretrained(tmp_path / "theirs")
    theirs.chat_template = TEMPLATE
    assert (tmp_path / "theirs" / "additional_chat_templates" / "rag.jinja").exists()
    reread = LlamaTokenizerFast.from_pretrained(tmp_path / "theirs")
    assert reread.chat_template == templates
    reread.save_pretrained(tmp_path / "ours")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "ours").chat_template == templates
    write_tokenizer(reread, tmp_path / "theirs", tmp_path / "copied")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "copied").chat_template == templates


@pytest.mark.parametrize("names", [["thinking"], ["reasoning"], ["reasoning_content", "thinking"], []])
def test_reasoning(names: list[str], pair: Any) -> None:
    ours, theirs = pair
    template = (
        "{% for m in messages %}{{ m.reasoning_content }}|{{ m.thinking }}|{{ m.reasoning }}{{ m.content }}{% endfor %}"
    )
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"} | {n: f"of {n}" for n in names}]
    how = {"chat_template": template, "tokenize": False}
    assert ours.apply_chat_template(messages, **how) == theirs.apply_chat_template(messages, **how)


def test_a_refusal_by_both(pair: Any) -> None:
    ours, theirs = pair
    messages = [{"role": "judge", "content": "x"}]
    with pytest.raises(Exception, match="who is judge"):
        theirs.apply_chat_template(messages)
    with pytest.raises(ValueError, match="the chat template refuses this conversation: who is judge"):
        ours.apply_chat_template(messages)


@pytest.mark.parametrize("case", SOUND)
def test_templates_write_what_their_environment_writes(case: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    source, _ = SOUND[case]
    messages = [{"role": "user", "content": "x"}]
    rendered, _ = render_jinja_template([messages], chat_template=source)
    assert rendered == [ChatTemplate(source).render({"messages": messages})]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_as_tools(function: Callable[..., Any]) -> None:
    from transformers.utils import get_json_schema

    assert tool_schema(function) == get_json_schema(function)
