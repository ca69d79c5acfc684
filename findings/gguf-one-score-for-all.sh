#!/usr/bin/env bash
# gguf 0.19.0: LlamaHfVocab, by which llama.cpp's converter takes the vocabulary of a folder with a tokenizer.json and
# no tokenizer.model, loses the order of the merges.
#
# Expected: a piece that an earlier merge makes gets a better score, as llama.cpp joins pieces by their scores.
# Seen: every piece has the score -1000. Of neighbours that could be joined the leftmost are then, so that a text gets
# other tokens than from the tokenizer.json: in "abc", where the file joins b and c first, llama.cpp's rule joins a and b.
#
# Exits with 0 while it is so, with 1 when it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile gguf==0.19.0 transformers==5.24.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
from pathlib import Path

import gguf
import tokenizers
from tokenizers import decoders, models, normalizers

pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b", "c", "bc", "ab"]
model = models.BPE({piece: n for n, piece in enumerate(pieces)}, [("b", "c"), ("a", "b")], unk_token="<unk>",
                   fuse_unk=True, byte_fallback=True)
tokenizer = tokenizers.Tokenizer(model)
tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
tokenizer.save("tokenizer.json")
Path("tokenizer_config.json").write_text(json.dumps(
    {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}))
scores = {text.decode(): score for text, score, _ in gguf.LlamaHfVocab(Path(".")).all_tokens()}
print("tokenizer.json:", tokenizer.encode("abc").tokens, "; scores of bc and ab:", scores["bc"], scores["ab"])
joined_first = tokenizer.encode("abc").tokens[-1]
sys.exit(0 if joined_first == "bc" and set(scores.values()) == {-1000.0} else 1)
PYTHON
