"""Make the golden files with torch and transformers, the judges:  python tests/golden/make.py [--check]

float64.npz holds what transformers computes with its float32 casts lifted to float64 (in norms, softmax, rotary
angles), float32.npz what it computes as it is. --check makes them anew and compares instead of writing.

hf4.npz is for compat="hf4", of dynamic scaling only, and wants an environment of its own:
    pip install torch transformers==4.34.1 'numpy<2'; python tests/golden/make.py --hf4
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
DTYPES = ("float64", "float32")
# Making a golden again on another machine changes the order of additions only. float32 carries 2^-24 = 6e-8 a
# rounding, and some hundred of them in a row stay below 1e-5 of the largest number; float64 has 2^-53.
CHECK_TOLERANCE = {"float64": 1e-11, "float32": 1e-5}


def lift_casts() -> None:
    """Make `float32` mean float64 in torch: must run before transformers is imported."""
    import torch

    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double


def make(dtype: str, out: Path) -> None:
    if dtype == "float64":
        lift_casts()
    import torch
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM

    from minillama.shipped import tale_model
    from minillama.loading import load_tokenizer
    from tests.golden.cases import CASES, NEW, PREFILL, TALE, TALE_PROMPT, config_of, inputs_of, weights_of

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch_dtype = {"float64": torch.float64, "float32": torch.float32}[dtype]
    arrays: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def greedy(model: LlamaForCausalLM, ids: torch.Tensor, positions: torch.Tensor, count: int) -> list[list[int]]:
        cache, chosen = None, []
        for _ in range(count):
            out = model(ids, position_ids=positions, past_key_values=cache, use_cache=True)
            cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
            positions = positions[:, -1:] + 1
            chosen.append(ids[:, 0].tolist())
        return np.array(chosen).T.tolist()

    with torch.no_grad():
        for case in CASES:

            def fresh(case: str = case) -> LlamaForCausalLM:
                settings = config_of(case).to_dict()
                model = LlamaForCausalLM._from_config(LlamaConfig(**settings), attn_implementation="eager")
                weights = {name: torch.from_numpy(w).to(torch_dtype) for name, w in weights_of(case).items()}
                model.load_state_dict(weights, strict=not settings["tie_word_embeddings"])
                return model.eval().to(torch_dtype)

            ids, mask, positions = (torch.from_numpy(np.array(a)) for a in inputs_of(case))
            full = fresh()(ids, attention_mask=mask, position_ids=positions, output_hidden_states=True)
            for i, hidden in enumerate(full.hidden_states):
                arrays[f"{case}/hidden_{i}"] = hidden.numpy()
            arrays[f"{case}/logits"] = full.logits.numpy()

            model, pieces = fresh(), []
            out_ = model(ids[:, :PREFILL], position_ids=positions[:, :PREFILL], use_cache=True)
            pieces.append(out_.logits)
            for t in range(PREFILL, ids.shape[1]):
                here = slice(t, t + 1)
                out_ = model(
                    ids[:, here],
                    position_ids=positions[:, here],
                    past_key_values=out_.past_key_values,
                    use_cache=True,
                )
                pieces.append(out_.logits)
            arrays[f"{case}/cached_logits"] = torch.cat(pieces, 1).numpy()
            arrays[f"{case}/greedy"] = np.array(greedy(fresh(), ids[:, :PREFILL], positions[:, :PREFILL], NEW))

        model = LlamaForCausalLM.from_pretrained(tale_model(), dtype=torch_dtype, attn_implementation="eager").eval()
        ids = torch.tensor([load_tokenizer(tale_model()).encode(TALE_PROMPT)])
        full = model(ids, output_hidden_states=True)
        for i, hidden in enumerate(full.hidden_states):
            arrays[f"{TALE}/hidden_{i}"] = hidden.numpy()
        arrays[f"{TALE}/logits"] = full.logits[:, -2:].numpy()
        arrays[f"{TALE}/greedy"] = np.array(greedy(model, ids, torch.arange(ids.shape[1])[None], 200))
    np.savez_compressed(out, **arrays)


def make_hf4(out: Path) -> None:
    lift_casts()
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.golden.cases import HF4_CASE, PREFILL, config_of, inputs_of, weights_of

    settings = config_of(HF4_CASE).to_dict()
    settings["rope_scaling"] = {"type": "dynamic", "factor": settings["rope_scaling"]["factor"]}
    model = LlamaForCausalLM(LlamaConfig(**settings)).double().eval()
    model.load_state_dict({name: torch.from_numpy(w).double() for name, w in weights_of(HF4_CASE).items()})
    ids, mask, positions = (torch.from_numpy(np.array(a)) for a in inputs_of(HF4_CASE))
    with torch.no_grad():
        out_ = model(ids[:, :PREFILL], position_ids=positions[:, :PREFILL])
        pieces = [out_.logits]
        for t in range(PREFILL, ids.shape[1]):
            here = slice(t, t + 1)
            out_ = model(ids[:, here], position_ids=positions[:, here], past_key_values=out_.past_key_values)
            pieces.append(out_.logits)
        full = model(ids, attention_mask=mask, position_ids=positions).logits  # its table has grown by now
    np.savez_compressed(out, cached_logits=torch.cat(pieces, 1).numpy(), logits=full.numpy())


def check(dtype: str, remade: Path) -> bool:
    """Whether the file just made agrees with the one that is kept."""
    old, new = np.load(HERE / f"{dtype}.npz"), np.load(remade)
    sound = set(old.files) == set(new.files)
    for name in old.files if sound else []:
        a, b = old[name], new[name]
        if a.dtype.kind == "f":
            worst = np.abs(a - b).max() / np.abs(a).max()
            same = worst <= CHECK_TOLERANCE[dtype]
        else:
            worst, same = (a != b).mean(), bool((a == b).all())
        if not same:
            print(f"{dtype} {name}: differs by {worst:.2e}")
        sound &= same
    print(f"{dtype}: {len(old.files)} arrays {'agree' if sound else 'DO NOT AGREE'} with what torch gives now")
    return bool(sound)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the kept files instead of writing them")
    parser.add_argument("--hf4", action="store_true", help="make hf4.npz, with transformers 4.34.1")
    parser.add_argument("--one", nargs=2, metavar=("DTYPE", "OUT"), help=argparse.SUPPRESS)  # in its own process
    args = parser.parse_args()
    if args.one:
        make(args.one[0], Path(args.one[1]))
        return 0
    if args.hf4:
        make_hf4(HERE / "hf4.npz")
        return 0
    sound = True
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in DTYPES:
            target = Path(scratch) / f"{dtype}.npz" if args.check else HERE / f"{dtype}.npz"
            subprocess.run([sys.executable, __file__, "--one", dtype, str(target)], check=True)
            sound &= check(dtype, target) if args.check else True
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
