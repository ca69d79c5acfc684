#!/usr/bin/env bash
# tokenizers (Rust library of Hugging Face), BPE with byte_fallback and a vocabulary that lacks some of the byte pieces.
#
# Tried with: tokenizers 0.23.3 (Python 3.11, Linux).
# Expected: ids in the order of the text. "狐é": 狐 has no byte pieces and becomes <unk>, é becomes <0xC3> <0xA9>, so
#   [0, 2, 3]; and "狐é狐" four ids, [0, 2, 3, 0].
# Seen: "狐é" gives [2, 3, 0]. The unknown token waits for the next piece of the vocabulary, and the bytes overtake it, with
#   the offsets of 狐. With fuse_unk "狐é狐" gives [2, 3, 0]: two unknown characters, é between them, are one.
# Why it matters: pruned vocabularies, which keep byte_fallback and lose byte pieces, give a model the characters of a
#   text in another order than a reader of the file's settings expects, and decoding does not give it back.
# Ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
"$folder/venv/bin/python" - << 'PYTHON'
from tokenizers import Tokenizer
from tokenizers.models import BPE

vocab = {"<unk>": 0, "a": 1, "<0xC3>": 2, "<0xA9>": 3}
seen = {}
for fuse in (False, True):
    tokenizer = Tokenizer(BPE(vocab, [], unk_token="<unk>", fuse_unk=fuse, byte_fallback=True))
    for text in ("狐a", "狐é", "é狐", "狐é狐"):
        seen[fuse, text] = tokenizer.encode(text).ids
        print("fuse_unk" if fuse else "        ", text, seen[fuse, text], tokenizer.encode(text).offsets)
assert seen[False, "狐a"] == [0, 1] and seen[False, "é狐"] == [2, 3, 0]  # in order, where nothing overtakes
assert seen[False, "狐é"] == [2, 3, 0], "the order has changed"
assert seen[False, "狐é狐"] == [2, 3, 0, 0], "the order has changed"
assert seen[True, "狐é狐"] == [2, 3, 0], "two unknown characters apart are no longer one"
PYTHON
