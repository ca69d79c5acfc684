#!/usr/bin/env bash
# transformers 5.24.0: LlamaTokenizer drops the space that a text begins with.
#
# Expected: "fox" and " fox" are two texts, with two lists of ids, as sentencepiece itself has it for the same model: it
# puts a marker before the text and keeps the text's own space as a second one.
# Seen: the same ids for both, and decoding them gives "fox". The tokenizer.json that it makes has no normalizer, and its
# Metaspace pre-tokenizer (prepend_scheme "first") puts no marker before a text that begins with one.
#
# Exits with 0 while it is so, with 1 when it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile transformers==5.24.0 sentencepiece==0.2.3 protobuf==7.36.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import sentencepiece
import transformers

with open("text.txt", "w") as file:
    file.writelines(f"a fox saw {n} foxes and a hen, again and again\n" for n in range(200))
sentencepiece.SentencePieceTrainer.train(
    input="text.txt", model_prefix="tokenizer", vocab_size=320, model_type="bpe", byte_fallback=True,
    normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
)
plain = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
tokenizer = transformers.LlamaTokenizer.from_pretrained(".")
texts = ("fox", " fox", "  fox")
theirs = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
ours = [plain.encode(text) for text in texts]
for text, one, other in zip(texts, theirs, ours):
    print(f"{text!r}: transformers {one} -> {tokenizer.decode(one)!r}, sentencepiece {other} -> {plain.decode(other)!r}")
sys.exit(0 if theirs[0] == theirs[1] and ours[0] != ours[1] else 1)
PYTHON
