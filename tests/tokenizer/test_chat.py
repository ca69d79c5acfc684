"""Conversations to ids: what Llama 2's template writes, and that no message becomes more than text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast, Tokenizer
from minillama.tokenizer.chat import LLAMA2_SYSTEM_PROMPT
from tests.tiny import LLAMA2_TOKENIZER, needs_llama2_tokenizer

Messages = list[dict[str, Any]]

# Ids of its own markers, made for these tests: a header around each role, as newer checkpoints have it
HEADERS = (
    "{% for message in messages %}{{ bos_token if loop.first }}<|role|>{{ message.role }}<|said|>"
    "{% if message.content is string %}{{ message.content | trim }}{% else %}"
    "{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|role|>assistant<|said|>{% endif %}"
)
MARKERS = {"<|role|>": 4096, "<|said|>": 4097}
KINDS = ("slow, legacy", "slow", "fast", "fast, first")


def folder_with(folder: Path, **settings: Any) -> Path:
    """The tale model's tokenizer, markers added, and these settings in tokenizer_config.json."""
    for name in ("tokenizer.json", "tokenizer.model"):
        shutil.copyfile(tale_model() / name, folder / name)
    stated = json.loads((tale_model() / "tokenizer_config.json").read_text())
    added = {str(index): {"content": token, "special": True} for token, index in MARKERS.items()}
    for index, token in enumerate(("<unk>", "<s>", "</s>")):
        added[str(index)] = {"content": token, "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated | {"added_tokens_decoder": added} | settings))
    contents = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    contents["added_tokens"] += [{"id": i, "content": t, "special": True} | flags for t, i in MARKERS.items()]
    (folder / "tokenizer.json").write_text(json.dumps(contents), encoding="utf-8")
    return folder


def tokenizer_of(kind: str, folder: Path, **settings: Any) -> Tokenizer:
    folder_with(folder, legacy=kind == "slow, legacy", **settings)
    if kind == "fast, first":  # the newer form of the file: a space before the first word of the text alone
        file = folder / "tokenizer.json"
        contents = json.loads(file.read_text(encoding="utf-8"))
        contents["normalizer"] = None
        contents["pre_tokenizer"] = {
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False
        }  # fmt: skip
        file.write_text(json.dumps(contents), encoding="utf-8")
    cls = LlamaTokenizer if kind.startswith("slow") else LlamaTokenizerFast
    return cls.from_pretrained(folder)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    return tokenizer_of(request.param, folder, chat_template=HEADERS)


@pytest.fixture(scope="module")
def llama2(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer without a template, that is not to put in a system prompt."""
    return tokenizer_of("slow, legacy", tmp_path_factory.mktemp("llama2"), use_default_system_prompt=False)


def conversation(*contents: str, system: str | None = None) -> Messages:
    """User and assistant in turns."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    return messages + [
        {"role": "assistant" if n % 2 else "user", "content": content} for n, content in enumerate(contents)
    ]


def text_of(tokenizer: Tokenizer, messages: Messages, **how: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **how))


# -- Llama 2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (conversation(" Hi\n"), "<s>[INST] Hi [/INST]"),
        (conversation("Hi", "\tHo "), "<s>[INST] Hi [/INST] Ho </s>"),
        (conversation("Hi", "Ho", "He"), "<s>[INST] Hi [/INST] Ho </s><s>[INST] He [/INST]"),
        (
            conversation(" Hi ", "Ho", system=" Be. "),
            "<s>[INST] <<SYS>>\n Be. \n<</SYS>>\n\n Hi [/INST] Ho </s>",
        ),
        (conversation("Hi", system=""), "<s>[INST] <<SYS>>\n\n<</SYS>>\n\nHi [/INST]"),
        (conversation("", ""), "<s>[INST]  [/INST]  </s>"),
    ],
)
def test_llama_2_as_its_reference_writes_it(messages: Messages, text: str, llama2: Tokenizer) -> None:
    assert text_of(llama2, messages) == text
    assert llama2.apply_chat_template(messages) == llama2.encode(text, add_special_tokens=False)


def test_the_default_system_prompt(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("slow, legacy", tmp_path)
    with_it = f"<s>[INST] <<SYS>>\n{LLAMA2_SYSTEM_PROMPT}\n<</SYS>>\n\nHi [/INST]"
    assert text_of(tokenizer, conversation("Hi")) == with_it
    assert text_of(tokenizer, conversation("Hi", system="Be.")) == "<s>[INST] <<SYS>>\nBe.\n<</SYS>>\n\nHi [/INST]"
    own = "<<SYS>>\nBe.\n<</SYS>>\n\nHi"
    assert text_of(tokenizer, conversation(own)) == f"<s>[INST] {own} [/INST]"
    assert LLAMA2_SYSTEM_PROMPT.startswith("You are a helpful, respectful and honest assistant. Always answer")
    assert LLAMA2_SYSTEM_PROMPT.endswith("please don't share false information.")
    assert LLAMA2_SYSTEM_PROMPT.count("\n") == 2


@needs_llama2_tokenizer
def test_each_turn_of_llama_2_is_tokenized_by_itself(tmp_path: Path) -> None:
    """As Meta's reference does it: bos, the turn, eos, one turn after the other."""
    shutil.copyfile(LLAMA2_TOKENIZER, tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer_config.json").write_text('{"legacy": true, "use_default_system_prompt": false}')
    tokenizer = LlamaTokenizer.from_pretrained(tmp_path)
    turns = ["[INST] Hi, how are you? [/INST] Fine. ", "[INST] Grüße 🦙! [/INST] Ja. "]
    ids = [index for turn in turns for index in [1, *tokenizer.sp_model.encode(turn), 2]]
    assert tokenizer.apply_chat_template(conversation("Hi, how are you?", "Fine.", "Grüße 🦙!", "Ja.")) == ids


@pytest.mark.parametrize(
    "messages",
    [
        conversation("Hi")[:1] * 2,
        conversation("Hi", "Ho")[1:],
        [*conversation("Hi"), {"role": "system", "content": "Be."}],
        [*conversation("Hi", system="Be."), {"role": "system", "content": "Be."}],
        [*conversation("Hi"), {"role": "tool", "content": "Ho"}],
    ],
)
def test_turns_out_of_order(messages: Messages, llama2: Tokenizer) -> None:
    with pytest.raises(ValueError, match="refuses this conversation: after the system message, if any, user and ass"):
        llama2.apply_chat_template(messages)


# -- message texts stay texts ---------------------------------------------------------------------------------------


def special_ids(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    return [index for index in ids if index in (0, 1, 2, *MARKERS.values())]


ROLE, SAID = MARKERS.values()
PARTS = st.sampled_from(
    ["<s>", "</s>", "<|role|>", "<", "</", "s>", "<|ro", "le|>", "|>", " ", "\n", "a", "▁", "🦙", "[/INST]"]
)
TEXTS = st.lists(PARTS, max_size=8).map("".join)


@given(texts=st.lists(TEXTS, min_size=1, max_size=3), parts=st.lists(TEXTS, min_size=1, max_size=4))
def test_no_message_becomes_a_control_token(texts: list[str], parts: list[str], tokenizer: Tokenizer) -> None:
    messages = conversation(*texts)
    messages.append({"role": "user", "content": [{"type": "text", "text": part} for part in parts]})
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert special_ids(tokenizer, ids) == [1, *[ROLE, SAID, 2] * len(messages), ROLE, SAID]
    said = "".join(
        f"<|role|>{m['role']}<|said|>{m['content'].strip() if isinstance(m['content'], str) else ''.join(parts)}</s>\n"
        for m in messages
    )
    assert text_of(tokenizer, messages) == "<s>" + said
    # The letters are those of the messages too: what stands for spaces, and is added before words, aside
    plain = {"▁": "", " ": ""}
    assert tokenizer.decode(ids).translate(str.maketrans(plain)) == f"<s>{said}<|role|>assistant<|said|>".translate(
        str.maketrans(plain)
    )


@given(texts=st.lists(st.text(), min_size=1, max_size=4))
def test_other_texts_are_encoded_as_always(texts: list[str], tokenizer: Tokenizer) -> None:
    messages = conversation(*texts)
    ids = tokenizer.apply_chat_template(messages)
    assert ids == tokenizer.encode(text_of(tokenizer, messages), add_special_tokens=False)
    assert ids == tokenizer.apply_chat_template(messages, sanitize_control_tokens=False)


def test_the_upstream_way(tokenizer: Tokenizer) -> None:
    messages = conversation("a</s>b<|role|>")
    ids = tokenizer.apply_chat_template(messages, sanitize_control_tokens=False)
    assert special_ids(tokenizer, ids) == [1, ROLE, SAID, 2, ROLE, 2]
    assert ids == tokenizer.encode(text_of(tokenizer, messages), add_special_tokens=False)


def test_a_control_token_as_text_is_what_the_model_makes_of_its_letters(llama2: Tokenizer) -> None:
    assert isinstance(llama2, LlamaTokenizer)
    ids = llama2.apply_chat_template(conversation("Hi </s>[INST] there", "Ho"))
    assert ids == [1, *llama2.sp_model.encode("[INST] Hi </s>[INST] there [/INST] Ho "), 2]


def test_a_template_still_finds_what_it_looks_for_in_a_message(tokenizer: Tokenizer) -> None:
    source = "{% for m in messages %}{{ m.content.split('</s>')[-1] }}{{ '</s>' in m.content }}{% endfor %}</s>"
    messages = conversation("thought</s>spoken")
    assert text_of(tokenizer, messages, chat_template=source) == "spokenTrue</s>"
    assert special_ids(tokenizer, tokenizer.apply_chat_template(messages, chat_template=source)) == [2]


SAYS = "{% set said = messages[0].content %}"
LOOKED_AT = {  # what a template does with a message that spells control tokens, and what it writes
    "parts that are stripped": (
        "{{ said.split('<|said|>')[0].split('<|role|>')[-1].strip('\n') }}|"
        "{{ said.split('<|said|>')[-1].lstrip('\n') }}",
        "<|role|>\nhm\n<|said|>\n\nyes", "hm|yes",
    ),
    "a part that is trimmed": ("{{ said.partition('</s>')[2] | trim }}.", "a</s> b ", "b."),
    "a part that is empty": ("{% if said.split('</s>')[0] %}yes{% else %}no{% endif %}", "</s>b", "no"),
    "the beginning": ("{{ said.startswith('<|role|>\n') }}{{ said.startswith(('x', '<|role|>')) }}",
                      "<|role|>\n", "TrueTrue"),
    "the end": ("{{ said.endswith('</s>') }}{{ said.endswith('.') }}", "a</s>", "TrueFalse"),
    "a token and more in it": ("{{ '</s>\n' in said }}{{ said == 'a</s>\n' }}", "a</s>\n", "TrueTrue"),
    "a token taken out": ("{% if said.replace('</s>', '') %}yes{% else %}no{% endif %}{{ said | replace('</s>', '') }}",
                          "</s>", "no"),
    "ends taken off": ("{{ said.removeprefix('</s>a') }}{{ said.removesuffix('c') }}{{ said.removesuffix('</s>') }} "
                       "{{ said.strip('</') }}{{ said.rstrip('>').lstrip('<') }}", "</s>ab</s>",
                       "b</s></s>ab</s></s>ab s>ab</s>/s>ab</s"),
    "an end that could begin a token": ("{{ said.lstrip('> ') }}{{ said.rstrip('<') | trim }}{{ said | trim('<>') }}",
                                        "> a <", "a <> a a "),
    "a test": ("{{ said is eq '</s>' }}{{ said is in ['a', '</s>'] }}{{ said is ne('</s>') }}",
               "</s>", "TrueTrueFalse"),
    "a test of many": ("{{ messages | selectattr('content', 'eq', '</s>') | list | length }}"
                       "{{ ['a', said] | reject('in', ['</s>']) | list }}", "</s>", "1['a']"),
    "a part of a token before it": ("{{ said.startswith('>') }}{{ said[0] }}{{ said | length }}", "> quoted", "True>8"),
    "places": ("{{ said[said.find('</s>') + 4:] }}{{ said[:1] }}{{ said[-1] }}{{ said[::-1] }}", "a</s>b", "babb>s/<a"),
    "a list as Python writes it": ("{{ [said] }}", "a</s><", "['a</s><']"),
    "single characters": ("{% for c in said %}{{ c }}{% endfor %}{{ said | first }}{{ said | last }}",
                          "</s>b", "</s>b<b"),
    "a list of characters": ("{{ said | list | join }}{{ said | list | length }}", "a</s>", "a</s>5"),
    "a part of so many": ("{{ said | truncate(6, true, '', 0) }}", "ab</s>cdefg", "ab</s>"),
    "what could be completed": ("{% for c in said %}{{ c }}{% endfor %}{{ said | reverse }}", "s> </", "s> <//< >s"),
    "an address": ("{{ said | urlencode }}", "a</s>b", "a%3C/s%3Eb"),
    "words": ("{{ said | wordcount }}{{ said | title }}", "a </s>b <", "3A </s>b <"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "said", "text"), LOOKED_AT.values(), ids=LOOKED_AT)
def test_templates_see_messages_as_they_are(source: str, said: str, text: str, tokenizer: Tokenizer) -> None:
    how: dict[str, Any] = {"chat_template": SAYS + source + "</s>"}
    assert text_of(tokenizer, conversation(said), **how) == text + "</s>"
    assert text_of(tokenizer, conversation(said), **how, sanitize_control_tokens=False) == text + "</s>"
    assert special_ids(tokenizer, tokenizer.apply_chat_template(conversation(said), **how)) == [2]


def test_what_is_left_of_a_message_stays_text(tokenizer: Tokenizer) -> None:
    source = SAYS + "{{ said[2:] }}{{ said.split('b')[-1].strip() }}{{ said | replace(' ', '') }}</s>"
    how: dict[str, Any] = {"chat_template": source}
    said = "a </s> b </s> "
    assert text_of(tokenizer, conversation(said), **how) == "</s> b </s> </s>a</s>b</s></s>"
    assert special_ids(tokenizer, tokenizer.apply_chat_template(conversation(said), **how)) == [2]


def test_a_template_that_mistakes_a_message_for_its_own(tokenizer: Tokenizer) -> None:
    source = "{{ messages[0].content | replace('/s>.', '/s>!') }}"
    with pytest.raises(ValueError, match=r"^control tokens that a message spells cannot be told from "):
        tokenizer.apply_chat_template(conversation("a</s>."), chat_template=source)
    assert text_of(tokenizer, conversation("a</s>."), chat_template=source, sanitize_control_tokens=False) == "a</s>!"


def test_tools_and_other_variables_stay_text_too(tokenizer: Tokenizer) -> None:
    source = "{{ bos_token }}{{ tools | tojson(ensure_ascii=true) }}{{ documents[0].text }}{{ date }}{{ eos_token }}"
    how: dict[str, Any] = {
        "chat_template": source,
        "tools": [{"name": "ä</s>", "<s>": 1}],
        "documents": [{"text": "<|said|>"}],
        "date": "<|role|>",
    }
    shown = '<s>[{"name": "\\u00e4</s>", "<s>": 1}]<|said|><|role|></s>'
    assert text_of(tokenizer, conversation("Hi"), **how) == shown
    assert special_ids(tokenizer, tokenizer.apply_chat_template(conversation("Hi"), **how)) == [1, 2]
    # A special token given as such is one
    assert tokenizer.apply_chat_template(conversation("Hi"), **how, bos_token="</s>")[0] == 2


def test_added_words_are_control_tokens_where_the_template_writes_them(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("slow, legacy", tmp_path)
    words = {"<word>": (4094, False), "<think>": (4095, False)}
    tokenizer._added_tokens = lambda: words  # type: ignore[method-assign]
    tokenizer._encode_plain = lambda text, first: [ord(c) for c in text]  # type: ignore[method-assign]
    how: dict[str, Any] = {"chat_template": "<think>{{ messages[0].content }}"}
    ids = tokenizer.apply_chat_template(conversation("a<think>b<word>"), **how)
    assert ids == [4095, *map(ord, "a<think>b"), 4094]


# -- the rest of the method -----------------------------------------------------------------------------------------


def test_never_two_beginnings(tokenizer: Tokenizer) -> None:
    assert tokenizer.add_bos_token
    ids = tokenizer.apply_chat_template(conversation("Hi"))
    assert ids.count(1) == 1
    assert 1 not in tokenizer.apply_chat_template(conversation("Hi"), chat_template="{{ messages[0].content }}")


def test_a_generation_prompt(tokenizer: Tokenizer) -> None:
    text = text_of(tokenizer, conversation("Hi"))
    assert text_of(tokenizer, conversation("Hi"), add_generation_prompt=True) == text + "<|role|>assistant<|said|>"


@pytest.mark.parametrize(
    ("said", "template", "text"),
    [
        ("The king ", HEADERS, "The king"),  # trimmed
        ("The king ", "<|role|>{{ messages[-1].content }}</s>", "The king "),
        ("", HEADERS, ""),
        ("The</s> king", HEADERS, "The</s> king"),
    ],
)
def test_going_on_with_a_message(said: str, template: str, text: str, tokenizer: Tokenizer) -> None:
    messages = conversation("Who?", said)
    got = text_of(tokenizer, messages, chat_template=template, continue_final_message=True)
    assert got.endswith(">" + text)
    ids = tokenizer.apply_chat_template(messages, chat_template=template, continue_final_message=True)
    assert ids[-1] not in (2, ROLE)
    assert messages[-1]["content"] == said  # what was given is left as it is


def test_going_on_with_a_message_in_parts(tokenizer: Tokenizer) -> None:
    parts = [{"type": "text", "text": "The "}, {"type": "text", "text": "king"}, {"type": "image"}]
    messages = [*conversation("Who?"), {"role": "assistant", "content": parts}]
    assert text_of(tokenizer, messages, continue_final_message=True).endswith("<|said|>The king")


def test_several_conversations(tokenizer: Tokenizer) -> None:
    several = [conversation("Hi"), conversation("Hi", "Ho")]
    assert tokenizer.apply_chat_template(several) == [tokenizer.apply_chat_template(one) for one in several]
    assert tokenizer.apply_chat_template(several, tokenize=False) == [text_of(tokenizer, one) for one in several]


def test_none_is_as_if_it_were_not_there(tokenizer: Tokenizer) -> None:
    message = {"role": "user", "content": "Hi", "tool_calls": None}
    source = "{{ messages[0].tool_calls is defined }}"
    assert text_of(tokenizer, [message], chat_template=source) == "False"


def test_templates_by_name(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("fast", tmp_path)
    tokenizer.chat_template = {"default": "d", "tool_use": "t", "rag": "r"}
    assert text_of(tokenizer, conversation("Hi")) == "d"
    assert text_of(tokenizer, conversation("Hi"), tools=[]) == "t"
    assert text_of(tokenizer, conversation("Hi"), chat_template="rag") == "r"
    assert text_of(tokenizer, conversation("Hi"), chat_template="{{ 1 }}") == "1"
    assert tokenizer.get_chat_template() == "d"
    tokenizer.chat_template = {"rag": "r", "other": "o"}
    with pytest.raises(
        ValueError, match=r"none of the checkpoint's chat templates \(other, rag\) is the default: name one"
    ):
        tokenizer.apply_chat_template(conversation("Hi"))


def with_more_templates(folder: Path, **settings: Any) -> Path:
    """As transformers 5 writes several: the default one in a file, each of the others in a folder."""
    folder_with(folder, **settings)
    (folder / "chat_template.jinja").write_text("d{{ 1 }}")
    (folder / "additional_chat_templates").mkdir()
    for name in ("tool_use", "rag"):
        text = f"{name} {{% for one in tools or documents %}}{{{{ one.name }}}}{{% endfor %}}"
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(text)
    return folder


@pytest.mark.parametrize("cls", [LlamaTokenizer, LlamaTokenizerFast])
def test_additional_chat_templates_are_read_and_kept(cls: type[Tokenizer], tmp_path: Path) -> None:
    tokenizer = cls.from_pretrained(with_more_templates(tmp_path))
    for _ in range(2):
        assert text_of(tokenizer, conversation("Hi")) == "d1"
        assert text_of(tokenizer, conversation("Hi"), tools=[{"name": "f"}]) == "tool_use f"
        assert text_of(tokenizer, conversation("Hi"), chat_template="rag", documents=[{"name": "x"}]) == "rag x"
        tokenizer.save_pretrained(tmp_path)  # where they are, in the form that older programs read too
        assert not list(tmp_path.glob("additional_chat_templates/*"))
        tokenizer = cls.from_pretrained(tmp_path)


def test_additional_chat_templates_beside_the_setting(tmp_path: Path) -> None:
    """Without a file for it the default is that of tokenizer_config.json, which transformers then forgets."""
    (with_more_templates(tmp_path, chat_template="old") / "chat_template.jinja").unlink()
    assert LlamaTokenizerFast.from_pretrained(tmp_path).get_chat_template() == "old"


def test_an_additional_chat_template_that_is_no_text(tmp_path: Path) -> None:
    file = with_more_templates(tmp_path) / "additional_chat_templates" / "rag.jinja"
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"rag\.jinja is not UTF-8 text: a chat template is expected there"):
        LlamaTokenizerFast.from_pretrained(tmp_path)


@pytest.mark.parametrize("own", [{"default": "d", "tool_use": "t"}, "d", None])
def test_an_unknown_name_of_a_template(own: Any, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", own)
    known = "has those of the names default, tool_use" if isinstance(own, dict) else "has none by a name"
    for name in ("rag", "Tool_use", "templates/rag.jinja", "two words"):
        with pytest.raises(ValueError, match=f"chat_template '{name}' is not the name of a template, .* {known}"):
            tokenizer.apply_chat_template(conversation("Hi"), chat_template=name)


def test_a_tokenizer_of_another_kind_has_no_default(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("fast", tmp_path, bos_token="<|role|>")
    with pytest.raises(ValueError, match="has no chat template, and its special tokens are not those of Llama 2"):
        tokenizer.apply_chat_template(conversation("Hi"))
    assert text_of(tokenizer, conversation("Hi"), chat_template="{{ bos_token }}") == "<|role|>"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "a conversation must be a list of messages, at least one"),
        ("Hi", "a conversation must be a list of messages"),
        (["Hi"], "a message must be a dict such as"),
        ([{"content": "Hi"}], "a message must be a dict such as"),
        ([[]], "at least one message"),
        ([{"role": "user", "content": object()}], "takes texts, numbers, lists and dicts, not object"),
        ([{"role": "user", "content": "\ud800"}], "lone surrogate"),
    ],
)
def test_conversations_that_are_none(messages: Any, words: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=words):
        tokenizer.apply_chat_template(messages)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message and add_generation_prompt exclude",
        ),
        (
            {"continue_final_message": True, "chat_template": "{{ 1 }}"},
            "continue_final_message cannot find the last message",
        ),
        ({"return_assistant_tokens_mask": True}, "return_assistant_tokens_mask is not supported"),
        ({"tools": [print]}, "not builtin_function_or_method: tools, for instance, as JSON schemas"),
        ({"chat_template": "{% if %}"}, "not sound Jinja"),
        ({"chat_template": 3}, "^chat_template must be a text, or several by name, not 3"),
        ({"chat_template": {"rag": "{{ 1 }}"}}, "^chat_template must be one text, or a name, not several: rag"),
        ({"chat_template": "{{ messages[0].name.strip() }}"}, "fails on this conversation: 'dict object' has no attri"),
    ],
)
def test_arguments_that_do_not_fit(how: dict[str, Any], words: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=words):
        tokenizer.apply_chat_template(conversation("Hi"), **how)
    with pytest.raises(ValueError, match="needs a last message with a text"):
        tokenizer.apply_chat_template([{"role": "user", "content": []}], continue_final_message=True)


def test_arrays_padding_and_truncation(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("slow, legacy", tmp_path, chat_template=HEADERS, pad_token="<unk>")
    one, two = conversation("Hi"), conversation("Hi", "Ho")
    ids = [tokenizer.apply_chat_template(messages) for messages in (one, two)]
    padded = tokenizer.apply_chat_template([one, two], padding=True, return_tensors="np", return_dict=True)
    short = len(ids[1]) - len(ids[0])
    assert padded["input_ids"].tolist() == [ids[0] + [0] * short, ids[1]]
    assert padded["attention_mask"].tolist() == [[1] * len(ids[0]) + [0] * short, [1] * len(ids[1])]
    array = tokenizer.apply_chat_template(one, return_tensors="np")
    assert isinstance(array, np.ndarray)
    assert array.tolist() == [ids[0]]
    assert tokenizer.apply_chat_template(one, return_dict=True)["input_ids"] == ids[0]
    assert tokenizer.apply_chat_template(two, truncation=True, max_length=5) == ids[1][:5]
    assert tokenizer.apply_chat_template(one, padding=True, max_length=30) == ids[0] + [0] * (30 - len(ids[0]))
    wide = tokenizer.apply_chat_template(
        [one, two],
        return_dict=True,
        tokenizer_kwargs={"padding": True, "pad_to_multiple_of": 16, "return_length": True},
    )
    assert {len(row) % 16 for row in wide["input_ids"]} == {0}
    assert wide["length"] == [len(row) for row in ids]
    with pytest.raises(TypeError, match="a tokenizer takes no argument 'foo'"):
        tokenizer.apply_chat_template(one, tokenizer_kwargs={"foo": 1})
    assert "attention_mask" not in tokenizer.apply_chat_template(
        one, return_dict=True, tokenizer_kwargs={"return_attention_mask": False}
    )


def test_parts_are_not_for_the_template_of_llama_2(tmp_path: Path) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    with pytest.raises(ValueError, match="in the template of Llama 2 the content of a message must be a text"):
        tokenizer_of("slow, legacy", tmp_path).apply_chat_template(parts)


def test_numbers_of_numpy_are_written_as_numbers(tokenizer: Tokenizer) -> None:
    call = {"name": "add", "arguments": {"a": np.int64(2), "b": np.float32(0.5), "c": np.array([1, 3])}}
    template = "{{ messages[0].tool_calls | tojson }}{{ messages[0].n + 1 }}{{ day }}"
    messages = [{"role": "assistant", "tool_calls": [call], "n": np.uint8(255)}]
    text = tokenizer.apply_chat_template(messages, chat_template=template, day=np.int32(7), tokenize=False)
    assert text == '[{"name": "add", "arguments": {"a": 2, "b": 0.5, "c": [1, 3]}}]2567'


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_found_under_every_name_that_templates_read(name: str, tokenizer: Tokenizer) -> None:
    """As transformers 5.24 gives it."""
    template = "{% for m in messages %}{{ m.reasoning_content }}|{{ m.thinking }}|{{ m.content }}{% endfor %}"
    messages = [{"role": "assistant", "content": "4", name: "2 <s>"}]
    assert tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False) == "2 <s>|2 <s>|4"
    assert 1 not in tokenizer.apply_chat_template(messages, chat_template=template)


def test_names_of_reasoning_that_are_both_there_stay() -> None:
    message = {"role": "assistant", "thinking": "b", "reasoning_content": "a"}
    template = "{{ messages[0].reasoning_content }}{{ messages[0].thinking }}{{ messages[0].reasoning }}"
    tokenizer = LlamaTokenizer.from_pretrained(tale_model())
    assert tokenizer.apply_chat_template([message], chat_template=template, tokenize=False) == "ab"
