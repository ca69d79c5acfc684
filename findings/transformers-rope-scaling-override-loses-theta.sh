#!/usr/bin/env bash
# transformers 5.24.0. A config.json of today keeps rotary theta within rope_parameters. It is read with the scaling set
# otherwise, rope_scaling={...}, as model cards say for longer contexts; theta is not spoken of.
#
# Expected: theta stays what the file says, 500000; a rope_theta that is given besides counts; the dictionary that was
#           given is left as it was.
# Seen:     theta is None, without a word, and so it is with rope_theta given besides; a model of such a config then
#           raises TypeError (None ** Tensor). The caller's dictionary has got a key rope_theta.
#
# Exits with 1 if it behaves otherwise. Takes about a minute, needs no torch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.24.0

cat > "$folder/config.json" << 'JSON'
{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
 "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
JSON

"$folder/venv/bin/python" - "$folder" << 'PYTHON'
import sys
import warnings

warnings.simplefilter("ignore")
from transformers import LlamaConfig

plain = LlamaConfig.from_pretrained(sys.argv[1])
given = {"rope_type": "linear", "factor": 4.0}
longer = LlamaConfig.from_pretrained(sys.argv[1], rope_scaling=given)
again = {"rope_type": "linear", "factor": 4.0}
besides = LlamaConfig.from_pretrained(sys.argv[1], rope_scaling=again, rope_theta=500000.0)
print("theta of the file          ", plain.rope_parameters["rope_theta"])
print("with rope_scaling set      ", longer.rope_parameters["rope_theta"])
print("and with rope_theta besides", besides.rope_parameters["rope_theta"])
print("the caller's dictionary    ", given)
assert plain.rope_parameters["rope_theta"] == 500000.0
assert longer.rope_parameters["rope_theta"] is None
assert besides.rope_parameters["rope_theta"] is None
assert given == {"rope_type": "linear", "factor": 4.0, "rope_theta": None}
PYTHON
