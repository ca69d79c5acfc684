"""Conversations to ids: chat templates, and message texts that stay texts."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minillama.messages import listed, shown
from minillama.tokenizer.batch_encoding import BatchEncoding
from minillama.tokenizer.batches import Batches
from minillama.tokenizer.marks import Mark, Marks, StandIns, plain_data
from minillama.tokenizer.settings import check_settings
from minillama.tokenizer.tool_schemas import as_tool

# The default system prompt of Llama 2, by Meta: Touvron et al. 2023, "Llama 2: Open Foundation and Fine-Tuned Chat
# Models", appendix A.3.7, and the DEFAULT_SYSTEM_PROMPT of the reference code and of transformers
LLAMA2_SYSTEM_PROMPT = """\
You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe. Your \
answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. Please ensure \
that your responses are socially unbiased and positive in nature.

If a question does not make any sense, or is not factually coherent, explain why instead of answering something not \
correct. If you don't know the answer to a question, please don't share false information."""

# <s>[INST] <<SYS>>\nsystem\n<</SYS>>\n\nquestion [/INST] answer </s><s>[INST] question [/INST]
LLAMA2_TEMPLATE = r"""
{%- set ns = namespace(system=none, turns=messages) -%}
{%- if messages[0].role == "system" -%}
  {%- set ns.system = messages[0].content -%}
  {%- set ns.turns = messages[1:] -%}
{%- elif DEFAULT_PROMPT and "<<SYS>>" not in messages[0].content -%}
  {%- set ns.system = DEFAULT_PROMPT -%}
{%- endif -%}
{%- for message in ns.turns -%}
  {%- if message.role != ("assistant" if loop.index0 % 2 else "user") -%}
    {{- raise_exception("after the system message, if any, user and assistant must take turns, the user first") -}}
  {%- elif message.content is not string -%}
    {{- raise_exception("in the template of Llama 2 the content of a message must be a text") -}}
  {%- endif -%}
  {%- if message.role == "assistant" -%}
    {{- " " ~ message.content.strip() ~ " " ~ eos_token -}}
  {%- elif loop.first and ns.system is not none -%}
    {%- set content = "<<SYS>>\n" ~ ns.system ~ "\n<</SYS>>\n\n" ~ message.content -%}
    {{- bos_token ~ "[INST] " ~ content.strip() ~ " [/INST]" -}}
  {%- else -%}
    {{- bos_token ~ "[INST] " ~ message.content.strip() ~ " [/INST]" -}}
  {%- endif -%}
{%- endfor -%}
"""

REASONING = ("reasoning_content", "thinking", "reasoning")  # names under which messages have it, the first the usual


class ChatTemplates:
    """What every tokenizer does with conversations: lists of {"role": ..., "content": ...}."""

    chat_template: str | dict[str, str] | None
    use_default_system_prompt: bool

    @property
    @abstractmethod
    def special_tokens_map(self) -> Mapping[str, Any]:
        """The special tokens that are set: "bos_token" and the like, and their texts."""

    @abstractmethod
    def _added_tokens(self) -> Mapping[str, tuple[int, bool]]:
        """Every text that encode takes out of a text as one token: its id, and whether it is special."""

    @abstractmethod
    def _encode_plain(self, text: str, first: bool) -> list[int]:
        """The ids of a stretch of text in which no added token is recognised, special or not, as encode would treat it
        between two special tokens, or at the beginning of a text."""

    @property
    def default_chat_template(self) -> str:
        """The template where the checkpoint has none: Llama 2's, for tokenizers with its special tokens.

        With use_default_system_prompt it holds Meta's system prompt, for conversations without a system message.
        ValueError for other tokenizers.
        """
        tokens = self.special_tokens_map
        if (tokens.get("bos_token"), tokens.get("eos_token")) != ("<s>", "</s>"):
            raise ValueError(
                "the tokenizer has no chat template, and its special tokens are not those of Llama 2, whose template "
                "is built in: give one as chat_template, in tokenizer_config.json or as an argument"
            )
        prompt = LLAMA2_SYSTEM_PROMPT if self.use_default_system_prompt else ""
        return LLAMA2_TEMPLATE.replace("DEFAULT_PROMPT", json.dumps(prompt)).strip()

    def get_chat_template(self, chat_template: str | None = None, tools: Sequence[Any] | None = None) -> str:
        """The template that is used: `chat_template` itself or the one of that name, the checkpoint's, or the default.

        Of a checkpoint with several, "tool_use" where there are tools, else "default". ValueError if there is none,
        or none of that name.
        """
        own = self.chat_template
        for template in (chat_template, own):
            check_settings({"chat_template": template})
        names = sorted(own) if isinstance(own, dict) else []
        if isinstance(chat_template, dict):
            raise ValueError(f"chat_template must be one text, or a name, not several: {listed(chat_template)}")
        if chat_template and chat_template not in names and not ("{{" in chat_template or "{%" in chat_template):
            known = f"has those of the names {listed(names)}" if names else "has none by a name"
            raise ValueError(
                f"chat_template {shown(chat_template)} is not the name of a template, as the checkpoint {known}, and "
                "it is not a template itself, which would hold {{ and }}"
            )
        if isinstance(own, dict):
            wanted = chat_template or ("tool_use" if tools is not None and "tool_use" in own else "default")
            if wanted in own:
                return own[wanted]
            if chat_template is None:
                raise ValueError(
                    f"none of the checkpoint's chat templates ({listed(names)}) is the default: name one as "
                    "chat_template, or add a chat_template.jinja to the checkpoint"
                )
        return chat_template or (own if isinstance(own, str) else self.default_chat_template)

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        sanitize_control_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = False,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """A conversation as ids, or as text with tokenize=False; for a list of conversations, a list of them.

        conversation: messages with a role ("system", "user", "assistant") and a content (a text, or parts
        {"type": "text", "text": ...} where the template takes them). add_generation_prompt: end with what begins an
        answer. continue_final_message: end within the last message, for the model to go on with it. tools: JSON
        schemas, or functions (see tool_schemas.py); tools, documents and kwargs are for the template. The ids are a
        list (a BatchEncoding with return_dict, as transformers 5 gives by default), padded, truncated and made arrays
        of as everywhere else; padding=True pads a single conversation to max_length. Nothing is put around what the
        template writes: it has a beginning-of-text if the template writes one, and never two.

        Whatever a message says stays text: a control token spelled out in it does not become one, unless
        sanitize_control_tokens is False, as it is in transformers. Control tokens are the special tokens, and the added
        ones that the template itself writes. (A template that deletes the middle of a message can still make one of
        what is left.)

        ValueError, one sentence, if the template is not sound, refuses the conversation or takes too long.
        """
        from minillama.tokenizer.jinja_sandbox import ChatTemplate  # Jinja takes a while, which others need not wait

        conversations, batched = _conversations(conversation)
        tools = [as_tool(tool) for tool in tools] if isinstance(tools, list | tuple) else tools
        if continue_final_message and add_generation_prompt:
            raise ValueError("continue_final_message and add_generation_prompt exclude each other: give one of them")
        if kwargs.get("return_assistant_tokens_mask"):
            raise ValueError("return_assistant_tokens_mask is not supported: find the answers by their ids")
        template_text = self.get_chat_template(chat_template, tools)
        template = ChatTemplate(template_text)
        added = self._added_tokens()
        control = {text for text, (_, special) in added.items() if special or (text.strip() and text in template_text)}
        data = {"messages": conversations, "tools": tools, "documents": documents, "kwargs": kwargs}
        marks = Marks.unused(template_text, data)
        named = dict(self.special_tokens_map)

        def variables(messages: Sequence[Mapping[str, Any]], mark: Mark) -> tuple[dict[str, Any], str | None]:
            shared = {"tools": tools, "documents": documents, "add_generation_prompt": add_generation_prompt} | kwargs
            shared = {name: value if name in named else plain_data(value, mark) for name, value in shared.items()}
            plain = plain_data([{k: v for k, v in m.items() if v is not None} for m in messages], mark)
            plain = [_with_reasoning(message) for message in plain]
            said = _open_ended(plain, marks) if continue_final_message else None
            return named | shared | {"messages": plain}, said

        def by_stand_ins(messages: Sequence[Mapping[str, Any]], text: str) -> str:
            stand_ins = StandIns(control, template_text, data, list(marks))
            changed = template.render(variables(messages, stand_ins.put)[0], marks)
            both = stand_ins.marked(changed, text, marks)
            if both is None and _true_tokens(marks.pieces(changed, added)) == _true_tokens(marks.pieces(text, added)):
                both = text  # all are the template's: it has written what messages spell in another way
            if both is None:
                raise ValueError(
                    "control tokens that a message spells cannot be told from those that the chat template writes: "
                    "leave them out of the messages, or give sanitize_control_tokens=False"
                )
            return both

        rendered = []
        for messages in conversations:
            plain, said = variables(messages, marks.marker(set()))
            text = template.render(plain, marks)
            marked, _ = variables(messages, marks.marker(control if sanitize_control_tokens else set()))
            if marked != plain:
                both = marks.carried_over(template.render(marked, marks), text)
                text = by_stand_ins(messages, text) if both is None else both
            rendered.append(text if said is None else _cut_open(text, said, marks))
        if not tokenize:
            texts = [marks.removed_from(text) for text in rendered]
            return texts if batched else texts[0]
        rows = [self._encode_rendered(text, marks, added) for text in rendered]
        how: dict[str, Any] = {"truncation": truncation, "max_length": max_length, **(tokenizer_kwargs or {})}
        if padding or truncation or return_tensors or return_dict or tokenizer_kwargs:
            return self._arranged(rows, batched, padding, return_tensors, return_dict, how)
        return rows if batched else rows[0]

    def _encode_rendered(self, text: str, marks: Marks, added: Mapping[str, tuple[int, bool]]) -> list[int]:
        """The ids of a rendered text; where marks make a difference, of its stretches between true tokens."""
        clean = marks.removed_from(text)
        pieces = marks.pieces(text, added)
        if pieces == marks.pieces(clean, added):
            return list(self.encode(clean, add_special_tokens=False))  # type: ignore[attr-defined]  # the tokenizer's
        ids: list[int] = []
        for place, piece in enumerate(pieces):
            if isinstance(piece, str):
                stretch = self._encode_plain(piece, first=place == 0)
                if any(special and token in piece and index in stretch for token, (index, special) in added.items()):
                    raise ValueError(
                        f"the tokenizer finds a control token in the plain text {shown(piece)}: leave it out"
                    )
                ids += stretch
            else:
                ids.append(piece)
        return ids

    def _arranged(
        self,
        rows: list[list[int]],
        batched: bool,
        padding: bool | str,
        return_tensors: str | None,
        return_dict: bool,
        how: dict[str, Any],
    ) -> Any:
        padding = how.pop("padding", padding)
        if padding is True and not batched:
            padding = "max_length"
        how |= {"padding": padding, "return_tensors": return_tensors, "add_special_tokens": False}
        # A single conversation goes as a batch as well, so that an array of it has the two axes that a model expects
        out: Any = Batches.batch_encode_plus(self, rows, **how)  # type: ignore[arg-type]  # the tokenizer's
        if not batched and return_tensors is None:
            out = BatchEncoding({name: values[0] for name, values in out.items()})
        return out if return_dict else out["input_ids"]


def _conversations(conversation: Any) -> tuple[list[Sequence[Mapping[str, Any]]], bool]:
    """The conversations to render, and whether they came as a list of them."""
    conversation = getattr(conversation, "messages", conversation)  # transformers 4 has a class for one
    if not isinstance(conversation, list | tuple) or not conversation:
        raise ValueError("a conversation must be a list of messages, at least one")
    batched = isinstance(conversation[0], list | tuple) or hasattr(conversation[0], "messages")
    several: list[Any] = [getattr(one, "messages", one) for one in conversation] if batched else [conversation]
    for messages in several:
        for message in messages:
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise ValueError(
                    f'a message must be a dict such as {{"role": "user", "content": "Hello"}}, not {str(message)[:100]}'
                )
    if not all(several):
        raise ValueError("a conversation must have at least one message")
    return several, batched


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its reasoning under every name that templates read, as transformers 5.24 gives it."""
    reasoning = next((message[name] for name in REASONING if message.get(name) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _true_tokens(pieces: list[str | int]) -> list[int]:
    return [piece for piece in pieces if isinstance(piece, int)]


def _open_ended(messages: list[dict[str, Any]], marks: Marks) -> str:
    """Mark the end of the last message, which is to go on; what it says."""
    last = messages[-1]
    if isinstance(last.get("content"), list):
        last = next((part for part in reversed(last["content"]) if isinstance(part, dict) and "text" in part), {})
    field = "content" if "content" in last else "text"
    said = last.get(field)
    if not isinstance(said, str):
        raise ValueError("continue_final_message needs a last message with a text to go on with")
    last[field] = said + marks.end + " "
    return said


def _cut_open(text: str, said: str, marks: Marks) -> str:
    """The rendered text up to the end of the last message, without the space behind it where the template strips."""
    before, end, after = text.rpartition(marks.end)
    if not end or said.strip() not in marks.removed_from(before):
        raise ValueError(
            "continue_final_message cannot find the last message in what the chat template writes: leave it out"
        )
    return before if after.startswith(" ") else before.rstrip()
