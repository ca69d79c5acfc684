"""Where the files that come with minillama are: a clone keeps them in data/ and notebooks/, an installed package inside
itself."""

from pathlib import Path


def tale_model() -> Path:
    """The folder of the tale model, a small LLaMA trained on public-domain children's tales."""
    return _shipped("tale-model")


def sample_text() -> Path:
    """A file of short original tales; a line `<|story|>` stands before each."""
    return _shipped("sample.txt")


def course() -> Path:
    """The folder of the course: notebooks, and what they import, which is checks, exercises, solutions and figures."""
    return _shipped("notebooks")


def _shipped(name: str) -> Path:
    package = Path(__file__).resolve().parent
    clone = package.parent
    for place in (package / "data" / name, clone / "data" / name, clone / name):
        if place.exists():
            return place
    raise FileNotFoundError(
        f"{name} does not come with this installation of minillama: install it from its wheel or a clone"
    )
