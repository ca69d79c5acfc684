"""python -m minillama.compare: its report, its exit status, and what it refuses. Causes are in tests/debug."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minillama.compare import main
from minillama.debug import Trace, record
from minillama.llama import LlamaForCausalLM
from minillama.shipped import tale_model
from tests.bad import Capture, checkpoint, command
from tests.debug.markup import Page

IDS = [[1, 300, 17, 4000, 12, 77]]


@pytest.fixture(scope="module")
def trace() -> Trace:
    model = LlamaForCausalLM.from_pretrained(tale_model(), engine="numpy")
    with record(model) as trace:
        out = model(IDS)
        model([[5]], past_key_values=out.past_key_values)
    return trace


def saved(trace: Trace, file: Path, **changed: object) -> Path:
    Trace(dict(trace.tensors) | changed, trace.input_ids, trace.config, trace.weights).save(file)  # type: ignore[arg-type]
    return file


def test_equal_traces(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    file = saved(trace, tmp_path / "a")
    outcome = command(capfd, file, file, run=main)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.endswith("210 intermediates agree, to 1e-07 + 4e-05 sqrt(1 + layer) of their size (f32)\n")
    assert "model.layers.5.output" in outcome.out
    assert "q_proj" not in outcome.out
    assert "step.1.model.layers.5.self_attn.q_proj" in command(capfd, file, file, "--all", run=main).out


def test_the_first_divergence_is_told_with_its_place_and_numbers(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    name = "model.layers.2.mlp.up"
    wrong, later = trace[name].copy(), trace["logits"].copy()
    wrong[0, 3, 7] += 1.5
    wrong[0, 4, 1] = -100
    later[0, 0, 0] += 50
    a, b = saved(trace, tmp_path / "a"), saved(trace, tmp_path / "b", **{name: wrong, "logits": later})
    outcome = command(capfd, a, b, run=main)
    assert (outcome.status, outcome.err) == (1, "")
    ours, theirs = float(trace[name][0, 3, 7]), float(wrong[0, 3, 7])
    assert f"first divergence: {name}[0, 3, 7] is {ours:.9g} and {theirs:.9g}\n" in outcome.out
    assert f"  largest there: [0, 4, 1] is {float(trace[name][0, 4, 1]):.9g} and -100\n" in outcome.out
    assert "2 of its 4,224 numbers are off" in outcome.out
    assert "2 of 210 intermediates differ" in outcome.out
    told = json.loads(command(capfd, a, b, "--json", run=main).out)
    assert (told["equal"], told["first"]["name"], told["first"]["index"]) == (False, name, [0, 3, 7])
    assert [row["name"] for row in told["rows"] if not row["same"]] == [name, "logits"]


def test_tolerances_can_be_set(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    a = saved(trace, tmp_path / "a")
    b = saved(trace, tmp_path / "b", **{"model.norm": trace["model.norm"] * np.float32(1.001)})
    assert command(capfd, a, b, run=main).status == 1
    assert command(capfd, a, b, "--rtol", "0.01", run=main).status == 0
    assert command(capfd, a, b, "--atol", "0.1", run=main).status == 0
    c = saved(trace, tmp_path / "c", **{"model.norm": np.nextafter(trace["model.norm"], np.float32(9))})
    assert command(capfd, a, c, run=main).status == 0
    assert command(capfd, a, c, "--rtol", "0", "--atol", "0", run=main).status == 1


def test_scores_that_the_mask_hides_do_not_count(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    name = "model.layers.1.self_attn.scores"
    masked = np.where(np.tri(6, dtype=bool), trace[name], -np.inf)
    a, b = saved(trace, tmp_path / "a"), saved(trace, tmp_path / "b", **{name: masked})
    assert command(capfd, a, b, run=main).status == 0
    seen = masked.copy()
    seen[0, 2, 4, 3] += 1
    told = json.loads(command(capfd, a, saved(trace, tmp_path / "c", **{name: seen}), "--json", run=main).out)
    assert told["first"]["index"] == [0, 2, 4, 3]


def test_other_shapes_and_numbers_that_are_none(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    a = saved(trace, tmp_path / "a")
    b = saved(trace, tmp_path / "b", **{"model.layers.0.mlp.act": trace["model.layers.0.mlp.act"][:, 1:]})
    outcome = command(capfd, a, b, run=main)
    assert outcome.status == 1
    assert "shapes (1, 6, 704) and (1, 5, 704)" in outcome.out
    assert "first divergence: model.layers.0.mlp.act, which has another shape" in outcome.out
    nan = trace["model.layers.3.residual"].copy()
    nan[0, 2, 9] = np.nan
    c = saved(trace, tmp_path / "c", **{"model.layers.3.residual": nan})
    outcome = command(capfd, a, c, run=main)
    assert "model.layers.3.residual[0, 2, 9] is" in outcome.out
    assert "diagnosis: residual has numbers that are not finite" in outcome.out
    assert json.loads(command(capfd, a, c, "--json", run=main).out)["first"]["theirs"] is None


def test_ids_that_differ_are_told(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    a = saved(trace, tmp_path / "a")
    other = Trace(trace.tensors, [np.array([[1, 2, 3, 4, 5, 6]])], trace.config)
    other.save(tmp_path / "b")
    outcome = command(capfd, a, tmp_path / "b", run=main)
    assert outcome.status == 1
    assert "the ids differ: [[1, 300, 17, 4000, 12, 77]] and [[1, 2, 3, 4, 5, 6]]" in outcome.out


def test_what_only_one_has(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    a = saved(trace, tmp_path / "a")
    np.savez(tmp_path / "b.npz", logits=trace["logits"][0])  # no axis for the batch
    outcome = command(capfd, a, tmp_path / "b.npz", "--map", "transformers", run=main)
    assert outcome.status == 0
    assert "209 are only in the first, such as model.embed_tokens" in outcome.out


def test_a_dump_of_rows_and_columns_under_our_names_needs_no_map(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    """What the C function of docs/debugging.md writes: no batch, heads side by side."""
    a, folder = saved(trace, tmp_path / "a"), tmp_path / "dump"
    folder.mkdir()
    for name in ("model.embed_tokens", "model.layers.0.input_norm", "logits"):
        np.save(folder / f"{name}.npy", trace[name][0])
    for name in ("q_proj", "k_rope"):
        whole = f"model.layers.2.self_attn.{name}"
        np.save(folder / f"{whole}.npy", trace[whole][0].swapaxes(0, 1).reshape(6, -1))
    probs = "model.layers.2.self_attn.probs"
    np.save(folder / f"{probs}.npy", trace[probs].reshape(-1, 6))
    outcome = command(capfd, a, folder, run=main)
    assert (outcome.status, outcome.err) == (0, "")
    assert "6 intermediates agree" in outcome.out
    np.save(folder / "model.embed_tokens.npy", 2 * trace["model.embed_tokens"][0])
    assert "diagnosis: model.embed_tokens is multiplied by 2\n" in command(capfd, a, folder, run=main).out
    np.save(folder / "model.layers.2.mlp.up.npy", np.ones((6, 9)))
    outcome = command(capfd, a, folder, run=main)
    assert (outcome.status, outcome.out) == (2, "")
    assert "dump: model.layers.2.mlp.up: its shape (6, 9) is not (B T F): F = 704; say with --map" in outcome.err
    (folder / "model.layers.2.mlp.up.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00")
    outcome = command(capfd, a, folder, run=main)
    assert "up.npy is not a sound .npy file" in outcome.err
    assert "--map" not in outcome.err


def test_weights_are_those_of_the_trace_or_as_named(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    wrong = {"model.norm": trace["model.layers.5.output"]}
    b = saved(trace, tmp_path / "b", **wrong)
    Trace(trace.tensors, trace.input_ids, trace.config, str(tmp_path / "gone")).save(tmp_path / "moved")
    Trace(trace.tensors, trace.input_ids, trace.config).save(tmp_path / "a")
    outcome = command(capfd, tmp_path / "a", b, run=main)
    assert "no diagnosis" in outcome.out
    assert "--weights" in outcome.out
    assert "gone" in command(capfd, tmp_path / "moved", b, run=main).out
    named = command(capfd, tmp_path / "moved", b, "--weights", tale_model(), run=main)
    assert "diagnosis: the norm is left out\n" in named.out


def test_weights_that_changed_since_the_trace_take_the_diagnosis_only(
    trace: Trace, tmp_path: Path, capfd: Capture
) -> None:
    other = str(checkpoint(tmp_path / "other"))
    Trace(trace.tensors, trace.input_ids, trace.config, other).save(tmp_path / "a")
    b = saved(trace, tmp_path / "b", logits=trace["logits"] * 2)
    outcome = command(capfd, tmp_path / "a", b, run=main)
    assert (outcome.status, outcome.err) == (1, "")
    assert "first divergence: logits[0, 0, 0]" in outcome.out
    assert f"no diagnosis: {other} is not the model of {tmp_path / 'a'}: its hidden_size is another" in outcome.out
    (tmp_path / "other" / "config.json").write_text("{")
    assert "no diagnosis: " in command(capfd, tmp_path / "a", b, run=main).out


def test_a_reference_that_is_not_of_these_weights_and_ids_judges_nobody(
    trace: Trace, tmp_path: Path, capfd: Capture
) -> None:
    """Such as of weights of the same shape, or of rows with padding."""
    name = "model.layers.2.mlp.gate"
    Trace({**trace.tensors, name: trace[name] * np.float32(1.01)}, trace.input_ids, trace.config, trace.weights).save(
        tmp_path / "a"
    )
    outcome = command(capfd, tmp_path / "a", saved(trace, tmp_path / "b"), run=main)
    assert (outcome.status, outcome.err) == (1, "")
    assert f"first divergence: {name}" in outcome.out
    assert "no diagnosis: " in outcome.out
    assert "name the weights it was made with" in outcome.out


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        (IDS, "does not say its ids"),  # of the second call, in which they part
        ([[*IDS[0][:-1], 5000]], "is not what"),
        ([[*IDS[0][:-1], -5]], "is not what"),
        ([[]], "is not what"),
    ],
)
def test_ids_that_cannot_be_those_of_the_reference(
    ids: list[list[int]], complaint: str, trace: Trace, tmp_path: Path, capfd: Capture
) -> None:
    name = "step.1.logits" if complaint == "does not say its ids" else "model.embed_tokens"
    np.savez(tmp_path / "a.npz", input_ids=np.array(ids, np.int64), **trace.tensors)
    np.savez(tmp_path / "b.npz", **trace.tensors | {name: trace[name] * 2})
    outcome = command(capfd, tmp_path / "a.npz", tmp_path / "b.npz", "--weights", tale_model(), run=main)
    assert (outcome.status, outcome.err) == (1, "")
    assert complaint in outcome.out.splitlines()[-1]


def test_what_only_theirs_has_is_held_against_what_it_was_made_of(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    """Of layers of which the reference has the outputs alone, a port may tell more."""
    layer = "model.layers.0."
    outputs = {name: trace[name] for name in trace.tensors if name.endswith(".output")}
    Trace(outputs, trace.input_ids, trace.config, trace.weights).save(tmp_path / "a")
    act = trace[layer + "mlp.gate"] * trace[layer + "mlp.up"]
    weight = LlamaForCausalLM.from_pretrained(tale_model()).state_dict()[layer + "mlp.down_proj.weight"]
    down = act @ np.asarray(weight, np.float32).T
    wrong = {layer + "mlp.act": act, layer + "mlp.down": down, layer + "output": trace[layer + "residual"] + down}
    told = command(capfd, tmp_path / "a", saved(trace, tmp_path / "b", **wrong), run=main).out
    assert f"first divergence: {layer}output[" in told
    assert told.endswith(f"diagnosis (seen at {layer}mlp.act): there is no activation\n")
    short = {layer + "self_attn.v_proj": trace[layer + "self_attn.v_proj"][:, :, 1:], layer + "output": down}
    outcome = command(capfd, tmp_path / "a", saved(trace, tmp_path / "b", **short), run=main)
    assert (outcome.status, outcome.err) == (1, "")


def test_a_later_step_is_diagnosed_with_what_came_before(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    """Scores of the step are those of all keys, of which the earlier ones belong to the step before."""
    name = "step.1.model.layers.2.self_attn.scores"
    a, b = saved(trace, tmp_path / "a"), saved(trace, tmp_path / "b", **{name: trace[name] * np.float32(8)})
    told = json.loads(command(capfd, a, b, "--json", run=main).out)
    assert told["first"]["name"] == name
    assert told["findings"][0]["cause"] == "the scale 1/sqrt(K) is missing"


def test_a_page_says_what_the_table_does(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    a = saved(trace, tmp_path / "a")
    b = saved(trace, tmp_path / "a&b", **{"model.norm": trace["model.layers.5.output"]})
    file = tmp_path / "report.html"
    file.write_text("an earlier one")
    plain = command(capfd, a, b, run=main)
    outcome = command(capfd, a, b, "--html", file, run=main)
    assert outcome == plain
    assert outcome.status == 1
    page = Page(file.read_text(encoding="utf-8"))
    assert page.find("h1")[0].text == "Different, first at model.norm"
    assert [each.text for each in page.find("dd")][:2] == [str(a), str(b)]
    assert page.find("li")[0].text.startswith("the norm is left out")
    cells = [each.text for each in page.find("tbody")[0].inside if each.tag in ("th", "td")]
    told = json.loads(command(capfd, a, b, "--json", "--html", file, run=main).out)["first"]
    assert cells[:3] == [f"first {told['index']}", f"{told['ours']:.9g}", f"{told['theirs']:.9g}"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "a&b", "report.html"]


def test_a_page_of_equal_traces(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    a, file = saved(trace, tmp_path / "a"), tmp_path / "report.html"
    assert command(capfd, a, a, "--html", file, run=main).status == 0
    page = Page(file.read_text(encoding="utf-8"))
    assert page.find("h1")[0].text == "Equal: all 210 intermediates agree"
    assert [step.text for step in page.find("text") if step.text.startswith("step")] == ["step 1"]


def test_a_page_that_cannot_be_written_is_told_and_nothing_printed(
    trace: Trace, tmp_path: Path, capfd: Capture
) -> None:
    a = saved(trace, tmp_path / "a")
    (tmp_path / "folder.html").mkdir()
    outcome = command(capfd, a, a, "--html", tmp_path / "folder.html", run=main)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "folder.html: a folder has its name" in outcome.err


@pytest.mark.parametrize(
    ("names", "arguments", "complaint"),
    [
        (("a", "none"), [], "does not exist"),
        (("a", "foreign.npz"), [], "no name in common"),
        (("a", "a"), ["--map", "nobody"], "nobody is neither a mapping nor a file"),
        (("a", "foreign.npz"), [], "and none of docs/notation.md): say with --map"),
        (("foreign.npz", "foreign.npz"), ["--map", "llama2c"], "no config"),
        (("a", "b"), ["--weights", "nowhere"], "nowhere"),
        (("a", "b"), ["--html", "report.pdf"], "--html writes a .html file, not 'report.pdf'"),
        (("a", "b"), ["--html", "nowhere/report.html"], "make its folder first"),
        (("a", "b"), ["--html", ""], "a path is empty"),
    ],
)
def test_what_cannot_be_compared(
    names: tuple[str, str], arguments: list[str], complaint: str, trace: Trace, tmp_path: Path, capfd: Capture
) -> None:
    saved(trace, tmp_path / "a")
    saved(trace, tmp_path / "b", logits=trace["logits"] * 2)
    np.savez(tmp_path / "foreign.npz", h0=np.zeros((2, 3)))
    outcome = command(capfd, *(tmp_path / name for name in names), *arguments, run=main)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert complaint in outcome.err


def test_weights_of_another_model_are_refused(trace: Trace, tmp_path: Path, capfd: Capture) -> None:
    a, b = saved(trace, tmp_path / "a"), saved(trace, tmp_path / "b", logits=trace["logits"] * 2)
    outcome = command(capfd, a, b, "--weights", checkpoint(tmp_path / "other"), run=main)
    assert (outcome.status, outcome.out) == (2, "")
    assert "hidden_size" in outcome.err


@pytest.mark.parametrize("option", ["--rtol", "--atol"])
@pytest.mark.parametrize("value", ["-1", "nan", "some"])
def test_wrong_usage(option: str, value: str, capfd: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["a", "b", option, value])
    assert caught.value.code == 2
    said = f"minillama: argument {option}: it takes a number of 0 or more, not {value!r}: see "
    assert capfd.readouterr().err.startswith(said)
