"""The files beside a vocabulary that say how it is used: tokenizer_config.json and those older ones that go with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from minillama.config import read_json_object
from minillama.files import read_bytes
from minillama.messages import shown

CONFIG, SPECIAL, ADDED, TEMPLATE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
MORE_TEMPLATES = "additional_chat_templates"  # a folder of NAME.jinja, beside the default one
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FLAGS = ("add_bos_token", "add_eos_token", "legacy", "clean_up_tokenization_spaces", "use_default_system_prompt")
# Of the files themselves, or of other programs: not settings of a tokenizer
_NOT_SETTINGS = ("vocab_file", "tokenizer_file", "special_tokens_map_file", "name_or_path", "backend", "is_local")


SIDES = ("left", "right")

# What a setting must be, where there is one (None stands for the usual), and how that is said
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "chat_template": (lambda value: isinstance(value, str | dict), "a text, or several by name"),
    "padding_side": (lambda value: value in SIDES, "left or right"),
    "truncation_side": (lambda value: value in SIDES, "left or right"),
    "model_max_length": (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value >= 1,
        "a number of tokens",
    ),
    "model_input_names": (
        lambda value: isinstance(value, list | tuple) and all(isinstance(name, str) for name in value),
        "a list of names",
    ),
    "sp_model_kwargs": (lambda value: isinstance(value, Mapping), "a dictionary of arguments"),
}


def check_settings(settings: Mapping[str, Any], where: str = "") -> None:
    """ValueError that begins with `where` for a setting of the wrong type."""
    for name, (fits, what) in _KINDS.items():
        value = settings.get(name)
        if value is not None and not fits(value):
            raise ValueError(f"{where}{name} must be {what}, not {shown(value)}")


def read_settings(folder: Path) -> dict[str, Any]:
    """What the files in a folder say, as arguments for a tokenizer class; of two that disagree the newer kind counts.

    Named tokens are AddedTokens or None, additional_special_tokens a list and added_tokens_decoder a dictionary from
    ids. ValueError that names the file for anything of the wrong type.
    """
    settings: dict[str, Any] = {}
    for name in (SPECIAL, CONFIG):
        file = folder / name
        found = read_json_object(file, "settings of a tokenizer") if file.exists() else {}
        for key in NAMED:
            if key in found:
                settings[key] = _token(file, key, found.pop(key))
        extra = found.pop("extra_special_tokens", None)  # the newest name; a dictionary gives them names besides
        extra = list(extra.values()) if isinstance(extra, dict) else extra
        additional = found.pop("additional_special_tokens", None) or extra
        if additional is not None:
            if not isinstance(additional, list):
                raise ValueError(f"{file}: additional_special_tokens must be a list of texts, not {shown(additional)}")
            settings["additional_special_tokens"] = [
                _token(file, "additional_special_tokens", token) for token in additional if token is not None
            ]
        for key in FLAGS:
            if found.get(key) is None:
                continue
            if not isinstance(found[key], bool) and found[key] not in (0, 1):
                raise ValueError(f"{file}: {key} must be true, false or null, not {shown(found[key])}")
            found[key] = bool(found[key])
        decoder = found.pop("added_tokens_decoder", None) or {}
        if not isinstance(decoder, dict) or not all(isinstance(entry, dict) for entry in decoder.values()):
            raise ValueError(f"{file}: added_tokens_decoder must map ids to objects, not be {shown(decoder)}")
        for index, entry in decoder.items():
            token = _added(file, entry.get("content"), index, entry)
            settings.setdefault("added_tokens_decoder", {})[int(index)] = token
        settings |= {key: value for key, value in found.items() if key not in _NOT_SETTINGS}
    file = folder / ADDED
    named = [settings[key] for key in NAMED if settings.get(key)] + settings.get("additional_special_tokens", [])
    special = {token.content for token in named}
    for content, index in (read_json_object(file, "added tokens") if file.exists() else {}).items():
        token = _added(file, content, index, {"special": content in special})
        settings.setdefault("added_tokens_decoder", {}).setdefault(int(index), token)
    _read_template(folder, settings)
    check_settings(settings, f"{folder / CONFIG}: ")
    return settings


def read_added_tokens(file: Path) -> dict[int, AddedToken]:
    """The added tokens of a tokenizer.json, if there is one, for a vocabulary that is in another file."""
    entries = (read_json_object(file, "a tokenizer") if file.exists() else {}).get("added_tokens") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{file}: added_tokens must be a list of objects, not {shown(entries)}")
    tokens = [(entry.get("id"), _added(file, entry.get("content"), entry.get("id"), entry)) for entry in entries]
    return {int(index): token for index, token in tokens}


def _read_template(folder: Path, settings: dict[str, Any]) -> None:
    template = settings.get("chat_template")
    if isinstance(template, list):  # of several, by name
        try:
            settings["chat_template"] = template = {entry["name"]: entry["template"] for entry in template}
        except (KeyError, TypeError):
            raise ValueError(
                f"{folder / CONFIG}: a list of chat templates must hold a name and a template each"
            ) from None
    texts: Iterable[Any] = template.values() if isinstance(template, dict) else [template or ""]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{folder / CONFIG}: chat_template must be a text, not {shown(template)}")
    if (folder / TEMPLATE).exists():
        settings["chat_template"] = _template_in(folder / TEMPLATE)
    if more := {file.stem: _template_in(file) for file in more_templates(folder)}:
        usual = settings.get("chat_template")
        named = usual if isinstance(usual, dict) else {"default": usual} if usual else {}
        settings["chat_template"] = named | more


def more_templates(folder: Path) -> list[Path]:
    """The files of the templates that have a name, where transformers 5 has written several."""
    return sorted((folder / MORE_TEMPLATES).glob("*.jinja"))


def template_list(templates: Mapping[str, str]) -> list[dict[str, str]]:
    """Several templates as tokenizer_config.json has them, which every version of transformers reads."""
    return [{"name": name, "template": text} for name, text in templates.items()]


def _template_in(file: Path) -> str:
    try:
        return read_bytes(file).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8 text: a chat template is expected there") from None
    except OSError as error:
        raise OSError(f"{file} cannot be read: {error.strerror}") from None


def _token(file: Path, key: str, value: Any) -> AddedToken | None:
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        return added_token(value["content"], value, special=True)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{file}: {key} must be a text or null, not {shown(value)}")
    return as_special(value) if value else None


def _added(file: Path, content: Any, index: Any, entry: Mapping[str, Any]) -> AddedToken:
    if not isinstance(content, str) or not content or not str(index).isdecimal():
        raise ValueError(
            f"{file} gives the added token {shown(content)} the id {shown(index)}: a text and a whole number "
            "belong there"
        )
    return added_token(content, entry, special=bool(entry.get("special", True)))


def added_token(content: str, entry: Mapping[str, Any], special: bool) -> AddedToken:
    """The library's kind of token, with the flags of a JSON object."""
    flags = {name: bool(entry.get(name, False)) for name in ("single_word", "lstrip", "rstrip")}
    return AddedToken(content, normalized=bool(entry.get("normalized", not special)), special=special, **flags)


def as_special(token: str | AddedToken) -> AddedToken:
    """A token that stands for no text of its own."""
    if isinstance(token, str):
        return AddedToken(token, normalized=False, special=True)
    return token if token.special else added_token(token.content, token_object(token), special=True)


def token_object(token: AddedToken) -> dict[str, Any]:
    """A token as it is written to JSON."""
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {name: getattr(token, name) for name in flags}


def settings_files(settings: Mapping[str, Any], added_beyond: Mapping[str, int]) -> dict[str, bytes]:
    """The names and contents of the files that read_settings reads `settings` from."""
    written: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, AddedToken):
            written[key] = value.content
        elif key == "additional_special_tokens":
            written[key] = [token.content for token in value]
        elif key == "added_tokens_decoder":
            written[key] = {str(index): token_object(token) for index, token in sorted(value.items())}
        elif key == "chat_template" and isinstance(value, dict):
            written[key] = template_list(value)
        elif value is not None or key in NAMED:
            written[key] = value
    special = {
        key: {k: v for k, v in token_object(value).items() if k != "special"}
        for key, value in settings.items()
        if isinstance(value, AddedToken)
    }
    if written.get("additional_special_tokens"):
        special["additional_special_tokens"] = written["additional_special_tokens"]
    files = {CONFIG: written, SPECIAL: special}
    if added_beyond:
        files[ADDED] = dict(added_beyond)
    return {
        name: (json.dumps(contents, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
        for name, contents in files.items()
    }
