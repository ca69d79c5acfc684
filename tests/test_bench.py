"""The bench command on a tiny shape: what it prints, what it refuses, and that a peer computes the same model.

Nothing here looks at how fast anything is: figures need only be there.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.bench import main, opened
from minillama.benchmarks.ceilings import handover_time, read_bandwidth, readers
from minillama.benchmarks.contestants import PEERS
from minillama.benchmarks.gguf_file import gguf_file
from minillama.benchmarks.measure import Child, Figures, measures, most, ratio, spread
from minillama.benchmarks.report import Run, aligned
from minillama.benchmarks.roofline import point
from minillama.benchmarks.shapes import SHAPES, matrix_parameters, random_checkpoint
from minillama.engines import cores
from minillama.kernels.llvm import WIDE
from minillama.shipped import tale_model
from minillama.weights import names, open_checkpoint
from minillama.weights.gguf_writing import write_gguf
from tests.tiny import ODD, ROPES, odd_model

FEW = ["--prefill", "6", "9", "--depth", "0", "5", "--batch", "3", "--repeats", "2", "--threads", "1"]
OURS = ["--engine", "numpy", "--dtype", "f32"]

Capture = pytest.CaptureFixture[str]
needs_gguf = pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="needs the peers extra")
needs_ik = pytest.mark.skipif(importlib.util.find_spec("ik_llama_cpp") is None, reason="needs the ik extra")
needs_llama_cpp = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs the peers extra")
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs the oracle extra"
)


@pytest.fixture(autouse=True)
def small_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte takes a while to fill."""
    monkeypatch.setattr("minillama.bench.read_bandwidth", lambda threads, n: read_bandwidth(threads, n, 1 << 16))
    monkeypatch.setattr("minillama.benchmarks.ceilings.SIDE", 64)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def bench(capfd: Capture, *arguments: object) -> str:
    """The command's standard output; it works, and says nothing else."""
    capfd.readouterr()
    status = main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    assert (status, err) == (0, "")
    return out


def is_spread(found: dict[str, float]) -> bool:
    return list(found) == ["median", "min", "max"] and 0 < found["min"] <= found["median"] <= found["max"]


def test_the_object(work: Path, capfd: Capture) -> None:
    found = json.loads(bench(capfd, "--shape", "tiny", *OURS, *FEW, "--work", work, "--json"))
    assert (found["model"], found["threads"], found["repeats"], found["ratios"]) == ("tiny", 1, 2, [])
    assert found["parameters"] == 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64) + 2 * 160 * 64 + 64
    assert found["operations_a_token"] == 2 * (2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96) + 160 * 64)
    assert is_spread(found["memory_gb_s"])
    assert is_spread(found["matmul_gflop_s"])
    assert found["handover_ns"] is None  # one thread has nobody to hand to
    (result,) = found["results"]
    assert (result["name"], result["dtype"], result["format"]) == ("minillama", "f32", "f32")
    assert list(result["tokens_per_s"]) == ["prefill 6", "prefill 9", "decode at 0", "decode at 5", "batch of 3"]
    assert all(map(is_spread, result["tokens_per_s"].values()))
    assert is_spread(result["open_s"])
    assert is_spread(result["first_token_s"])
    assert result["open_s"]["min"] < result["first_token_s"]["max"] < 60
    assert result["bytes_a_token"] == found["operations_a_token"] * 2  # 4 bytes for 2 operations
    assert result["weights_gb_s"] > 0
    assert 10e6 < result["peak_resident_bytes"] < 1e9
    assert result["peak_anonymous_bytes"] is None or 1e6 < result["peak_anonymous_bytes"] < 1e9
    assert "NumpyEngine" in result["version"]


def test_the_table_of_the_tale_model(capfd: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = bench(capfd, *OURS, "float64", "--prefill", 6, "--depth", 0, "--repeats", 1)
    heading, *_ = lines = out.splitlines()
    assert heading.startswith("tale model: ")
    assert any(line.startswith("this machine reads memory at ") for line in lines[-2:])
    assert any(line.startswith("a core sees what another has written after ") for line in lines) == (cores() > 1)
    for words in (
        "f32 ",
        "f64 ",
        "prefill 6 ",
        "decode at 0 ",
        "batch of 8 ",
        "opened after, s",
        "of the probe",
    ):
        assert any(words in line for line in lines), words
    assert list(tmp_path.iterdir()) == []


def test_a_shape_is_written_once_and_is_a_checkpoint(tmp_path: Path) -> None:
    folder = random_checkpoint("tiny", tmp_path)
    file = folder / "model.safetensors"
    before = file.stat().st_mtime_ns, file.read_bytes()
    assert random_checkpoint("tiny", tmp_path) == folder
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before
    (folder / "config.json").write_text("{}")  # left by a run that was cut off
    random_checkpoint("tiny", tmp_path)
    assert file.read_bytes() == before[1]

    checkpoint = open_checkpoint(folder)
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {"BF16"}
    assert (checkpoint.tensors[names.NORM].read(np.float32) == 1).all()
    matrix = checkpoint.tensors[names.EMBED_TOKENS].read(np.float32)
    assert matrix.std() == pytest.approx(0.02, rel=0.05)
    assert abs(matrix.mean()) < 1e-3


@pytest.mark.parametrize(("shape", "billions"), [("1.1B", 1.1), ("3B", 3.43), ("7B", 6.74), ("13B", 13.0)])
def test_published_shapes_have_their_sizes(shape: str, billions: float) -> None:
    layers, head = matrix_parameters(SHAPES[shape])
    assert (layers + 2 * head) / 1e9 == pytest.approx(billions, rel=0.01)


# -- refusals -----------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[str], str]] = {
    "repeats": (["--repeats", "0"], "--repeats must be at least 1, not 0"),
    "prefill": (["--prefill", "128", "0"], "--prefill must be at least 1, not 0"),
    "depth": (["--depth", "-1"], "--depth must be at least 0, not -1"),
    "dtype": (["--dtype", "int3"], "--dtype must be of auto"),
    "nobody": (["--engine", "none"], "--engine none measures peers only: name one with --peer"),
    "context": (["--shape", "tiny", "--depth", "200"], "the context of 256 tokens has no room for 280: lower"),
    "float64": (["--dtype", "float64", "--peer", "llama.cpp"], "--peer llama.cpp computes in one of f32"),
    "no weights": (["--weights", "absent"], "absent does not exist: name a checkpoint folder"),
    "picture": (["--plot", "roof.txt"], "--plot "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case: str, capfd: Capture, tmp_path: Path) -> None:
    arguments, words = REFUSED[case]
    assert main([*arguments, "--work", str(tmp_path)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"minillama: {words}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--shape", "8B"], ["--peer", "x"], ["--shape", "tiny", "--weights", "x"]])
def test_wrong_usage(arguments: list[str], capfd: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capfd.readouterr().err.endswith(": see python -m minillama.bench --help\n")


def test_help_and_version(capfd: Capture) -> None:
    for argument, words in (("--help", "python -m minillama.bench --shape 1.1B"), ("--version", "minillama 0.")):
        with pytest.raises(SystemExit) as end:
            main([argument])
        assert end.value.code == 0
        assert words in capfd.readouterr().out


def test_a_worker_says_what_went_wrong(tmp_path: Path, capfd: Capture) -> None:
    how: dict[str, Any] = {"engine": "numpy", "dtype": "f32", "threads": 1, "vocab_size": 9, "prompt": 1, "room": 9}
    with Child("minillama", 1) as child:
        with pytest.raises(ValueError, match="absent does not exist"):
            child.ask("open", name="minillama", path=str(tmp_path / "absent"), **how)
        assert child.ask("memory")["resident"] > 0  # and goes on
        with pytest.raises(ValueError, match="the process of minillama ended in the middle of 'fly'"):
            child.ask("fly")
    assert "AttributeError" in capfd.readouterr().err


# -- figures ------------------------------------------------------------------------------------------------------


def test_what_figures_come_to() -> None:
    assert spread([3, 1, 2, 9]) == {"median": 2.5, "min": 1, "max": 9}
    assert ratio([4, 6, 8], [2, 4, 2]) == {"ratio": 3, "min": 1.5, "max": 4}
    assert most({"resident": 5, "anonymous": None}, {"resident": 4, "anonymous": None}) == {
        "resident": 5,
        "anonymous": None,
    }
    assert list(aligned(iter([["a", "bb"], ["ccc", "d", "e"]]))) == ["a    bb", "ccc  d   e"]


def test_the_order_of_measures_lets_caches_grow() -> None:
    plan = measures([9, 5, 9], [70, 0], 3)
    assert [measure.name for measure in plan] == ["prefill 5", "prefill 9", "decode at 0", "decode at 70", "batch of 3"]
    assert [measure.tokens for measure in plan] == [5, 9, 64, 64, 192]
    assert {measure.arguments["room"] for measure in plan[:4]} == {70 + 16 + 64}
    assert len(measures([9], [0], 0)) == 2


def test_points_of_the_roofline() -> None:
    plan = measures([4, 1024], [0], 8)
    layers, head = matrix_parameters(SHAPES["tiny"])
    figures = Figures("minillama", "q8_0", layers + head, "q8_0")
    figures.tokens_per_s = {measure.name: [10.0] for measure in plan}
    run = Run("tiny", "host", SHAPES["tiny"], 0, 1, 1, plan, [1.0], [], [1.0], [[figures]])
    short, long, decode, batch = (point(run, figures, measure) for measure in plan)
    assert decode == pytest.approx((2 * 8 / 8.5, 2e-8 * (layers + head)))
    assert batch == pytest.approx((8 * decode[0], decode[1]))  # as many tokens a second, of eight sequences
    assert short == pytest.approx((2 * (layers + head / 4) * 4 / figures.bytes_a_token, 2e-8 * (layers + head / 4)))
    assert long[0] == pytest.approx(2 * (layers + head / 1024) * 512 / figures.bytes_a_token)  # in chunks of 512


def test_the_probe_reads_everything() -> None:
    words = np.random.default_rng(0).integers(0, 1 << 63, 4096, np.uint64)
    for read in readers():
        assert read(words) == np.sum(words)
        assert read(words[:4001]) == np.sum(words[:4000])


def test_a_word_goes_from_core_to_core() -> None:
    assert handover_time(1, 3) == []
    times = handover_time(2, 3)
    assert len(times) == 3
    assert min(times) > 0


def test_a_roofline_is_drawn(work: Path, tmp_path: Path, capfd: Capture) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "roof.png"
    bench(capfd, "--shape", "tiny", *OURS, *FEW, "--work", work, "--plot", file)
    assert file.read_bytes().startswith(b"\x89PNG")


# -- peers --------------------------------------------------------------------------------------------------------


@needs_llama_cpp
@pytest.mark.parametrize("rope", ["default", "linear", "llama3"])
def test_llama_cpp_computes_the_same(rope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache of float32 instead of its own float16, so that the two agree to float32's rounding."""
    import llama_cpp

    defaults = llama_cpp.llama_context_default_params

    def exact() -> Any:
        settings = defaults()
        settings.type_k = settings.type_v = settings.flash_attn_type = 0
        return settings

    monkeypatch.setattr(llama_cpp, "llama_context_default_params", exact)
    odd_model(tmp_path / "model", **ROPES[rope] | {"max_position_embeddings": 128}, attention_bias=True)
    assert_it_computes_the_same("llama.cpp", tmp_path)


@needs_ik
def test_ik_computes_the_same(tmp_path: Path) -> None:
    """With its own cache of float16, whose rounding at 2 ** -11 a softmax of scores of some 10 passes on tenfold."""
    odd_model(tmp_path / "model", max_position_embeddings=128, head_dim=32)
    assert_it_computes_the_same("ik", tmp_path, 5e-3)


def assert_it_computes_the_same(peer: str, folder: Path, room: float = 1e-4) -> None:
    """A peer that reads GGUF beside minillama, for one sequence and for three, forward and back."""
    from minillama.benchmarks.contestants import contestant

    ids = np.random.default_rng(1).integers(0, ODD["vocab_size"], (3, 40))
    both = [
        contestant("minillama", folder / "model", "f32", "numpy", 1),
        contestant(peer, gguf_file(folder / "model", "f32", folder), "f32", "", 1),
    ]
    for rows in (1, 3):
        for one in both:
            one.start(rows, 100)
            one.prefill(ids[:rows])
        agree(*both, room)
        for one in both:
            one.decode(ids[:rows, 0])
        agree(*both, room)
        for one in both:
            one.cut(20)
            one.decode(ids[:rows, 1])
        agree(*both, room)


def agree(ours: Any, theirs: Any, room: float = 1e-4) -> None:
    np.testing.assert_allclose(ours.logits(), theirs.logits(), rtol=0, atol=room * np.abs(ours.logits()).max())


@needs_transformers
def test_transformers_computes_the_same(tmp_path: Path) -> None:
    from minillama.benchmarks.contestants import contestant

    odd_model(tmp_path / "model", attention_bias=True)
    ids = np.random.default_rng(1).integers(0, ODD["vocab_size"], (3, 40))
    both = [contestant(name, tmp_path / "model", "f32", "numpy", 1) for name in ("minillama", "transformers")]
    for one in both:
        one.start(3, 100)
        one.prefill(ids)
        one.cut(20)
        one.decode(ids[:, 1])
    agree(*both)


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param("llama.cpp", marks=needs_llama_cpp),
        pytest.param("ik", marks=needs_ik),
        pytest.param("transformers", marks=needs_transformers),
    ],
)
def test_a_peer_beside_ours(peer: str, work: Path, capfd: Capture) -> None:
    arguments = ["--shape", "tiny", *OURS, *FEW, "--work", work, "--peer", peer]
    found = json.loads(bench(capfd, *arguments, "--json"))
    assert [result["name"] for result in found["results"]] == ["minillama", peer]
    (compared,) = found["ratios"]
    assert (compared["dtype"], compared["peer"]) == ("f32", peer)
    assert list(compared["ours_over_theirs"]) == ["prefill 6", "prefill 9", "decode at 0", "decode at 5", "batch of 3"]
    for figures in compared["ours_over_theirs"].values():
        assert 0 < figures["min"] <= figures["max"]
        assert figures["ratio"] > 0
    assert f"ours / {peer}" in bench(capfd, *arguments)


@needs_llama_cpp
def test_compressed_weights_are_compared_with_the_same_numbers(work: Path, capfd: Capture) -> None:
    arguments = [
        "--shape",
        "tiny",
        *FEW,
        "--work",
        work,
        "--peer",
        "llama.cpp",
        "--engine",
        "numba",
        "--dtype",
        "bf16z",
    ]
    ours, theirs = json.loads(bench(capfd, *arguments, "--json"))["results"]
    assert (ours["format"], theirs["format"]) == ("bf16z", "bf16")


def test_kernels_for_a_lesser_cpu(work: Path, capfd: Capture) -> None:
    found = json.loads(bench(capfd, "--shape", "tiny", *OURS, *FEW, "--work", work, "--cpu", "avx2", "--json"))
    assert found["cpu"] == "avx2"
    with Child("a worker", 1, "avx2") as ours, Child("another", 1) as theirs:
        assert (ours.ask("features"), theirs.ask("features")["wide"]) == ({"wide": False}, WIDE)


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_that_is_not_installed(peer: str, capfd: Capture, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    if importlib.util.find_spec({"llama.cpp": "llama_cpp", "ik": "ik_llama_cpp"}.get(peer, peer)):
        pytest.skip("it is installed")
    capfd.readouterr()
    assert main(["--shape", "tiny", "--engine", "none", "--peer", peer, *FEW, "--work", str(work)]) == 1
    err = capfd.readouterr().err
    assert err.startswith(f"minillama: {peer} cannot be used (")
    assert err.count("\n") == 1


def test_a_work_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["--shape", "tiny", *OURS, "--work", str(tmp_path / "file" / "cache")]) == 1
    assert f"minillama: --work {tmp_path / 'file' / 'cache'} cannot be made: " in capsys.readouterr().err


@needs_gguf
def test_a_gguf_file_is_given_to_its_own_programs_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "tale.gguf"
    write_gguf(open_checkpoint(tale_model()), "Q8_0", file)
    found = opened("llama.cpp", file, "auto", "numba", open_checkpoint(file), tmp_path / "no", 1)
    assert (found["path"], found["dtype"]) == (str(file), "q8_0")
    assert not (tmp_path / "no").exists()
