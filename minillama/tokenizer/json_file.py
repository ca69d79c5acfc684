"""tokenizer.json files, read by the `tokenizers` library: Llama 3's tokenizer, and another form of Llama 1 and 2's."""

from __future__ import annotations

import os
from pathlib import Path

import tokenizers

from minillama.config import read_json_object
from minillama.tokenizer.base import SpecialTokens, Tokenizer

BYTE_PIECES = [f"<0x{b:02X}>" for b in range(256)]


class LlamaTokenizerFast(Tokenizer):
    """A tokenizer.json with the special tokens of the files beside it.

    What is put around a text follows add_bos_token and add_eos_token of tokenizer_config.json where it has them, else
    the file's own post-processor.
    """

    def __init__(self, tokenizer_file: str | os.PathLike[str], special: SpecialTokens | None = None):
        file = Path(tokenizer_file)
        contents = read_json_object(file, "a tokenizer")
        model = contents.get("model")
        kind = (model.get("type") or "BPE") if isinstance(model, dict) else None
        if kind != "BPE":
            raise ValueError(
                f"{file} is a {kind or 'malformed'} tokenizer, and LLaMA's are BPE: "
                "get the one that belongs to the model"
            )
        try:
            self.backend = tokenizers.Tokenizer.from_file(str(file))
            around = self.backend.encode("", add_special_tokens=True).ids
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises plain Exception, and its panics are not even that
            raise ValueError(f"{file} is not a sound tokenizer.json ({error}): get it again") from None
        self.backend.no_truncation()
        self.backend.no_padding()
        self.special = SpecialTokens() if special is None else special
        self.vocab = dict(self.backend.get_vocab(with_added_tokens=True))
        missing = [piece for piece in BYTE_PIECES if piece not in self.vocab]
        if missing and contents["model"].get("byte_fallback"):
            raise ValueError(f"{file} writes unknown characters as bytes and lacks {', '.join(missing)}: get it again")
        self.special.hidden |= {
            token.content for token in self.backend.get_added_tokens_decoder().values() if token.special
        }
        if self.special.bos_token not in self.vocab and around:
            self.special.bos_token = self.backend.id_to_token(around[0])
        by_flag = (self.special.add_bos_token, self.special.add_eos_token)
        self.add_bos_token = self.bos_token_id in around[:1] if by_flag[0] is None else bool(by_flag[0])
        self.add_eos_token = self.eos_token_id in around[1:] if by_flag[1] is None else bool(by_flag[1])

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> LlamaTokenizerFast:
        """Read a folder with a tokenizer.json, or such a file by any name."""
        file = Path(path)
        file = file / "tokenizer.json" if file.is_dir() else file
        if not file.exists():
            raise FileNotFoundError(f"{file} does not exist: a tokenizer.json is expected there")
        return cls(file, SpecialTokens.from_folder(file.parent))

    def _encode(self, text: str) -> list[int]:
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def _decode(self, ids: list[int]) -> str:
        return str(self.backend.decode(ids, skip_special_tokens=False))
