"""python -m minillama.convert: what it writes, what it says, and what it leaves behind when it is cut off."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from minillama import LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel, load_tokenizer, staging
from minillama.convert import main
from minillama.generation.config import GenerationConfig
from minillama.shipped import tale_model
from minillama.staging import PARTIAL, Staging
from minillama.weights import open_checkpoint
from minillama.weights.finding import INDEX
from minillama.weights.formats import narrow, widen
from minillama.weights.mapped import MappedFile
from minillama.weights.names import expected_shapes
from tests.bad import CONFIG, Capture, Outcome, assert_refused, checkpoint, command, random_tensors
from tests.tiny import random_ids, random_weights, tiny_config, write_safetensors

TENSORS = random_tensors(CONFIG)


def convert(capfd: Capture, *arguments: object) -> Outcome:
    return command(capfd, *arguments, run=main)


def converted(capfd: Capture, *arguments: object) -> str:
    """The command works, and says only what it has written."""
    status, out, err = convert(capfd, *arguments)
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    return out


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def loaded(folder: Path) -> dict[str, Any]:
    return {name: array for file in folder.glob("*.safetensors") for name, array in load_file(file).items()}


def test_a_folder_like_the_one_before(tmp_path: Path, capfd: Capture) -> None:
    source = checkpoint(tmp_path / "in")
    GenerationConfig(temperature=0.5, do_sample=True).save_pretrained(source)
    out = converted(capfd, source, tmp_path / "out")
    assert out == f"{tmp_path / 'out'}: 20 tensors, 0.3 MB in f32, 6 files\n"
    assert names(tmp_path / "out") == names(source)
    for name, array in loaded(tmp_path / "out").items():
        np.testing.assert_array_equal(array, TENSORS[name])
    for file in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (source / file).read_bytes()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["torch_dtype"] == "float32"
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert open_checkpoint(tmp_path / "out").config.hidden_size == CONFIG["hidden_size"]


@pytest.mark.parametrize(("dtype", "name"), [("f32", "float32"), ("float16", "float16"), ("bf16", "bfloat16")])
def test_another_number_format(dtype: str, name: str, tmp_path: Path, capfd: Capture) -> None:
    form = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[name]
    converted(capfd, checkpoint(tmp_path / "in", torch_dtype="float64"), tmp_path / "out", "--dtype", dtype)
    made = open_checkpoint(tmp_path / "out")
    assert made.config.torch_dtype == name
    for key, array in TENSORS.items():
        assert made.tensors[key].dtype == form
        np.testing.assert_array_equal(made.tensors[key].stored(), narrow(array, form))
    # Back in float32, nothing more is lost
    converted(capfd, tmp_path / "out", tmp_path / "back", "--dtype", "f32")
    for key, array in loaded(tmp_path / "back").items():
        np.testing.assert_array_equal(array, widen(narrow(TENSORS[key], form), form, np.float32))


def test_every_tensor_keeps_its_own_format(tmp_path: Path, capfd: Capture) -> None:
    source = checkpoint(tmp_path / "in")
    forms = ["F32", "F16", "BF16"] * len(TENSORS)
    mixed = {name: narrow(array, form) for (name, array), form in zip(TENSORS.items(), forms, strict=False)}
    write_safetensors(source / "model.safetensors", mixed)
    converted(capfd, source, tmp_path / "out")
    before, after = open_checkpoint(source).tensors, open_checkpoint(tmp_path / "out").tensors
    assert [tensor.dtype for tensor in after.values()] == [tensor.dtype for tensor in before.values()]
    for name, tensor in after.items():
        np.testing.assert_array_equal(tensor.stored(), before[name].stored())


def test_shards_and_a_manifest(tmp_path: Path, capfd: Capture) -> None:
    converted(capfd, checkpoint(tmp_path / "in"), tmp_path / "out", "--max-shard-size", "20KB", "--manifest")
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) >= 2
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in TENSORS.values())
    for name, shard in index["weight_map"].items():
        np.testing.assert_array_equal(load_file(tmp_path / "out" / shard)[name], TENSORS[name])
    lines = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    listed = {line[66:]: line[:66] for line in lines}
    assert sorted(listed) == [name for name in names(tmp_path / "out") if name != "SHA256SUMS"]
    for name, digest in listed.items():
        assert digest == hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() + "  "


@pytest.mark.parametrize("form", ["q8_0", "q4_0"])
@pytest.mark.parametrize("size", ["5GB", "3KB"])
def test_quantized_as_save_pretrained_has_it(form: str, size: str, tmp_path: Path, capfd: Capture) -> None:
    settings = tiny_config()
    LlamaForCausalLM(settings, random_weights(settings)).save_pretrained(tmp_path / "in")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "in", engine="numba", dtype=form)
    model.save_pretrained(tmp_path / "saved", max_shard_size=size)
    status, _, err = convert(
        capfd, tmp_path / "in", tmp_path / "out", "--dtype", form, "--max-shard-size", size, "--config",
        tmp_path / "in" / "config.json",
    )  # fmt: skip
    assert status == 0
    assert err.endswith(f"in has no tokenizer, so {tmp_path / 'out'} gets none: name one with --tokenizer\n")
    saved, out = contents(tmp_path / "saved"), contents(tmp_path / "out")
    assert out.keys() == saved.keys()
    assert len(out) > (5 if size == "3KB" else 2)
    for name in saved:
        assert out[name] == saved[name] or name == "config.json", name
    assert json.loads(out["config.json"]) == json.loads(saved["config.json"])
    ids = random_ids(5, 1, 9).tolist()
    again = LlamaForCausalLM.from_pretrained(tmp_path / "out", engine="numba")
    np.testing.assert_array_equal(again.new_engine().prefill(ids), model.new_engine().prefill(ids))


def test_quantized_once_more(tmp_path: Path, capfd: Capture) -> None:
    converted(capfd, checkpoint(tmp_path / "in"), tmp_path / "q8", "--dtype", "q8_0")
    converted(capfd, tmp_path / "q8", tmp_path / "same")
    same, q8 = open_checkpoint(tmp_path / "same").tensors, open_checkpoint(tmp_path / "q8").tensors
    for name in q8:
        np.testing.assert_array_equal(same[name].read(np.float32), q8[name].read(np.float32))
    status, _, err = convert(capfd, tmp_path / "q8", tmp_path / "q4", "--dtype", "q4_0")
    assert (status, "14 matrices are quantized already and lose once more" in err) == (0, True)
    converted(capfd, tmp_path / "q8", tmp_path / "f32", "--dtype", "f32")
    config = json.loads((tmp_path / "f32" / "config.json").read_text())
    assert "quantization_config" not in config
    name = "model.layers.1.mlp.up_proj.weight"
    np.testing.assert_array_equal(loaded(tmp_path / "f32")[name], q8[name].read(np.float32))


@pytest.mark.parametrize("kind", [LlamaModel, LlamaForSequenceClassification])
def test_other_heads_stay(kind: Any, tmp_path: Path, capfd: Capture) -> None:
    settings = tiny_config(num_labels=3, pad_token_id=0)
    head = "score.weight" if kind is LlamaForSequenceClassification else None
    weights = {name: array for name, array in random_weights(settings).items() if name != "lm_head.weight"}
    if head:
        weights[head] = np.ones(expected_shapes(settings, head)[head], np.float32)
    kind(settings, weights).save_pretrained(tmp_path / "in")
    status, _, _ = convert(capfd, tmp_path / "in", tmp_path / "out")
    assert status == 0
    assert loaded(tmp_path / "out").keys() == loaded(tmp_path / "in").keys()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [kind.__name__]


def test_a_sentencepiece_model_alone_becomes_all_files(tmp_path: Path, capfd: Capture) -> None:
    source = checkpoint(tmp_path / "in")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).unlink()
    converted(capfd, source, tmp_path / "out")
    assert {"tokenizer.json", "tokenizer.model", "tokenizer_config.json"} <= set(names(tmp_path / "out"))
    text = "The fox  said:\n“no”"
    assert load_tokenizer(tmp_path / "out").encode(text) == load_tokenizer(source).encode(text)


def test_the_arguments_of_the_original_script(tmp_path: Path, capfd: Capture) -> None:
    source = checkpoint(tmp_path / "in" / "7B")
    for file in source.glob("tokenizer*"):
        file.rename(tmp_path / "in" / file.name)
    arguments = ["--input_dir", tmp_path / "in", "--model_size", "7B", "--output_dir", tmp_path / "out"]
    converted(capfd, *arguments)
    assert "tokenizer.json" in names(tmp_path / "out")
    status, _, err = convert(capfd, *arguments, "--force", "--llama_version", "2", "--safe_serialization")
    assert (status, err) == (0, "minillama: --llama_version is not needed: the files say it\n")
    assert_refused(capfd, [*arguments, "--safe_serialization", "False"], "would write pickled files", run=main)
    arguments[3] = "70B"
    assert_refused(capfd, arguments, f"{tmp_path / 'in'} has no subfolder 70B", run=main)


# -- what is there already ----------------------------------------------------------------------------------------


def test_a_checkpoint_is_replaced_only_by_force(tmp_path: Path, capfd: Capture) -> None:
    source, out = checkpoint(tmp_path / "in"), tmp_path / "out"
    converted(capfd, source, out, "--max-shard-size", "20KB", "--manifest")
    (out / "README.md").write_text("mine")
    (out / "chat_template.jinja").write_text("{{ 1 }}")
    before = contents(out)
    assert_refused(capfd, [source, out, "--dtype", "f16"], f"{out} has a checkpoint already", "--force", run=main)
    assert contents(out) == before
    converted(capfd, source, out, "--dtype", "f16", "--force")
    assert names(out) == sorted([*names(source), "README.md", "generation_config.json"])
    assert loaded(out)["model.norm.weight"].dtype == np.float16


def test_a_folder_with_other_files_is_written_into(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("mine")
    converted(capfd, checkpoint(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "mine"


# -- runs that are cut off ----------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from minillama.convert import main
from minillama.staging import Staging

add, made = Staging.add, []

def killed(self, name, contents, keep=False):
    add(self, name, contents, keep)
    made.append(name)
    if sum(name.endswith("safetensors") for name in made) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Staging.add = killed
main(sys.argv[1:])
"""
LIMITED = """
import resource, sys
from minillama.convert import main

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process as Unix does")
def test_what_a_killed_run_has_finished_is_not_made_again(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, arguments = checkpoint(tmp_path / "in"), ["--max-shard-size", "7KB"]
    converted(capfd, source, tmp_path / "whole", *arguments)
    shards = sorted(file.name for file in (tmp_path / "whole").glob("*.safetensors"))
    assert len(shards) == 4
    out = tmp_path / "out"
    assert run(KILLED, source, out, *arguments).returncode == -signal.SIGKILL
    assert names(out) == [PARTIAL]  # nothing that could be taken for a checkpoint
    assert [name for name in names(out / PARTIAL) if name.endswith("safetensors")] == shards[:2]
    assert_refused(capfd, ["--check", out], "not come to its end", run=main)

    made, add = [], Staging.add
    monkeypatch.setattr(Staging, "add", lambda self, name, *rest, **more: (made.append(name), add(self, name, *rest, **more)))  # fmt: skip  # noqa: E501
    converted(capfd, source, out, *arguments)
    assert [name for name in made if name.endswith("safetensors")] == shards[2:]
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process as Unix does")
@pytest.mark.parametrize("change", ["source", "options"])
def test_what_was_made_of_something_else_is_made_again(change: str, tmp_path: Path, capfd: Capture) -> None:
    source, out = checkpoint(tmp_path / "in"), tmp_path / "out"
    assert run(KILLED, source, out, "--max-shard-size", "7KB").returncode == -signal.SIGKILL
    arguments = ["--max-shard-size", "7KB"]
    if change == "source":  # the same sizes, other numbers
        checkpoint(source, random_tensors(CONFIG, seed=1))
        os.utime(source / "model.safetensors", ns=(0, 10**18))
    else:
        arguments += ["--dtype", "bf16"]
    converted(capfd, source, out, *arguments)
    converted(capfd, source, tmp_path / "whole", *arguments)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="limits files as Unix does")
def test_a_disk_that_takes_no_more(tmp_path: Path, capfd: Capture) -> None:
    source, out = checkpoint(tmp_path / "in"), tmp_path / "out"
    done = run(LIMITED, 200_000, source, out)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"minillama: {out / 'model.safetensors'} cannot be written: File too large\n"
    assert not out.exists()  # as it was
    converted(capfd, source, out)
    before = contents(out)
    arguments = [checkpoint(source, intermediate_size=4500), out, "--force", "--max-shard-size", "7KB"]
    done = run(LIMITED, 280_000, *arguments)  # less than a matrix of the MLP, and more than the embedding
    assert done.returncode == 1
    assert f"2 finished files stay in {out / PARTIAL}: the same command goes on" in done.stderr
    assert contents_of_files(out) == before
    converted(capfd, *arguments)
    assert PARTIAL not in names(out)


def contents_of_files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_a_disk_that_has_too_little_room(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minillama.converting.free_bytes", lambda folder: 1000)
    source = checkpoint(tmp_path / "in")
    assert_refused(capfd, [source, tmp_path / "out"], "has 0.0 MB free and the weights take 0.3 MB", run=main)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_takes_no_files(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*rest: object) -> None:
        raise PermissionError(13, "Permission denied")

    source, out = checkpoint(tmp_path / "in"), tmp_path / "out"
    converted(capfd, source, out)
    before = contents(out)
    monkeypatch.setattr(staging, "write_synced", refuse)
    arguments = [source, out, "--force"]
    assert_refused(capfd, arguments, f"{out / 'config.json'} cannot be written: Permission denied", run=main)
    assert contents(out) == before


def test_a_source_that_cannot_be_read(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: MappedFile, room: memoryview, start: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(MappedFile, "_read_into", broken)
    source = checkpoint(tmp_path / "in")
    message = f"minillama: {source / 'model.safetensors'} cannot be read: Input/output error"
    assert_refused(capfd, [source, tmp_path / "out"], message, run=main)
    assert_refused(capfd, ["--check", source], message, run=main)
    assert not (tmp_path / "out").exists()


def test_two_runs_into_one_folder(tmp_path: Path, capfd: Capture) -> None:
    source, out = checkpoint(tmp_path / "in"), tmp_path / "out"
    with Staging(out, "another") as other:
        other.add("one", b"1", keep=True)
        assert_refused(capfd, [source, out], f"{out} is being written to by another run", run=main)
        assert_refused(capfd, [source, out, "--force"], f"{out} is being written to by another run", run=main)
        assert other.has("one")
        other.commit()
    assert names(out) == ["one"]


@pytest.mark.parametrize("form", ["q8_0", "q4_0"])
def test_what_is_in_a_quantized_format_already_keeps_its_numbers(form: str, tmp_path: Path, capfd: Capture) -> None:
    converted(capfd, checkpoint(tmp_path / "in"), tmp_path / "a", "--dtype", form)
    converted(capfd, tmp_path / "a", tmp_path / "b", "--dtype", form)
    (before, after) = (open_checkpoint(tmp_path / name).tensors for name in "ab")
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        np.testing.assert_array_equal(after[name].stored(), tensor.stored())
        np.testing.assert_array_equal(after[name].read(np.float32), tensor.read(np.float32))


def test_a_file_in_the_way(tmp_path: Path, capfd: Capture) -> None:
    source, file = checkpoint(tmp_path / "in"), tmp_path / "file"
    file.write_bytes(b"mine")
    assert_refused(capfd, [source, file], f"{file} is a file: name a folder", run=main)
    assert_refused(capfd, [source, file / "out"], f"{file / 'out'} cannot be written", run=main)
    assert file.read_bytes() == b"mine"


@pytest.fixture
def sigint() -> Iterator[None]:
    """Ctrl-C as at a terminal: a shell has it ignored in what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
@pytest.mark.parametrize("request_to_end", ["SIGINT", "SIGTERM"])
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals as Unix does")
def test_an_interruption(request_to_end: str, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, add = checkpoint(tmp_path / "in"), tmp_path / "out", Staging.add

    def interrupted(self: Staging, name: str, *rest: Any, **more: Any) -> None:
        if name == stop:
            os.kill(os.getpid(), getattr(signal, request_to_end))
        add(self, name, *rest, **more)

    monkeypatch.setattr(Staging, "add", interrupted)
    stop = "model.safetensors"
    assert convert(capfd, source, out) == (130, "", "")
    assert not out.exists()
    stop = "model-00002-of-00004.safetensors"
    status, printed, err = convert(capfd, source, out, "--max-shard-size", "7KB")
    assert (status, printed) == (130, "")
    assert err == f"minillama: 1 finished files stay in {out / PARTIAL}: the same command goes on\n"
    stop = "nothing"
    converted(capfd, source, out, "--max-shard-size", "7KB")


# -- what cannot work ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["in"],
        ["in", "out", "--dtype", "f64"],
        ["in", "out", "--check", "in"],
        ["in", "--input_dir", "in", "--output_dir", "out"],
        ["--input_dir", "in"],
        ["in", "--output_dir", "out"],
        ["in", "out", "--model_size", "7B"],
        ["--check", "in", "--dtype", "f16"],
        ["--check", "in", "--lora", "adapter"],
        ["--check", "in", "--output_dir", "out"],
        ["--check", "in", "--max-shard-size", "5GB"],
        ["in", "out", "--no-such-option"],
    ],
)
def test_wrong_usage(arguments: list[str], capfd: Capture) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("minillama: ")
    assert err.endswith(": see python -m minillama.convert --help\n")


def test_options_beside_check_are_named(capfd: Capture) -> None:
    for arguments in (["--tokenizer", "x"], ["--kv-heads", "1"], ["--force"]):
        with pytest.raises(SystemExit, match="2"):
            main(["--check", "in", *arguments])
        said = f"takes the files as they are: leave out {arguments[0]}: see "
        assert said in capfd.readouterr().err


def test_a_gguf_file_has_no_shards(tmp_path: Path, capfd: Capture) -> None:
    arguments = [checkpoint(tmp_path / "in"), tmp_path / "out.GGUF", "--max-shard-size", "1MB"]
    assert_refused(capfd, arguments, "--max-shard-size is for folders", run=main)


def test_what_cannot_be_converted(tmp_path: Path, capfd: Capture) -> None:
    source, out = checkpoint(tmp_path / "in"), tmp_path / "out"
    assert_refused(capfd, [tmp_path / "no", out], f"{tmp_path / 'no'} does not exist", run=main)
    assert_refused(capfd, [source, source], f"{source} is where the model is", run=main)
    file = tmp_path / "one.safetensors"
    assert_refused(capfd, [source, file], f"{file} would be a folder of that name: name a folder", run=main)
    assert_refused(capfd, [source, out, "--max-shard-size", "5 lots"], "max_shard_size must be a number", run=main)
    assert_refused(capfd, [source, out, "--tokenizer", tmp_path / "no"], str(tmp_path / "no"), run=main)
    assert_refused(capfd, [source, out, "--config", tmp_path / "no"], str(tmp_path / "no"), run=main)
    (source / "tokenizer.json").write_bytes(b"{")
    assert_refused(capfd, [source, out], "tokenizer.json", run=main)
    assert not out.exists()


def test_numbers_that_another_format_has_not(tmp_path: Path, capfd: Capture) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = {key: array.copy() for key, array in TENSORS.items()}
    tensors[name][2, 3] = 7e4
    source, out = checkpoint(tmp_path / "in", tensors), tmp_path / "out"
    assert_refused(capfd, [source, out, "--dtype", "f16"], f"{name} holds 70000, too large for float16", run=main)
    tensors[name][2, 3] = np.nan
    checkpoint(source, tensors)
    assert_refused(capfd, [source, out, "--dtype", "q8_0"], f"{name} cannot be quantized: it holds a NaN", run=main)
    assert not out.exists()


def test_the_command_as_a_process(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "minillama.convert", str(tale_model()), str(tmp_path / "a b\u00e9"), "--dtype", "f16"]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*line[:3], "--check", line[4]], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("sound: ")


def with_templates(folder: Path, *extra: str) -> Path:
    """A tokenizer as transformers 5 writes it: the default chat template in a file, others in a folder."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tale_model() / name).read_bytes())
    (folder / "chat_template.jinja").write_text("{{ 1 }}")
    (folder / "additional_chat_templates").mkdir()
    for name in extra:
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(f"{name}{{{{ 2 }}}}")
    return folder


def test_every_chat_template_comes_along(tmp_path: Path, capfd: Capture) -> None:
    source = with_templates(checkpoint(tmp_path / "in"), "tool_use", "rag")
    out = tmp_path / "out"
    converted(capfd, source, out)
    expected = {"default": "{{ 1 }}", "rag": "rag{{ 2 }}", "tool_use": "tool_use{{ 2 }}"}
    assert load_tokenizer(out).chat_template == expected
    with_templates(checkpoint(out / "other"), "old")  # one that was there before goes
    (out / "other" / "additional_chat_templates").rename(out / "additional_chat_templates")
    converted(capfd, source, out, "--force")
    assert load_tokenizer(out).chat_template == expected
