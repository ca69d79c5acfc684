"""Where the files that come with minillama are: a clone keeps them in data/, an installed package inside itself."""

from pathlib import Path


def tale_model() -> Path:
    """The folder of the tale model, a small LLaMA trained on public-domain children's tales."""
    return _shipped("tale-model")


def sample_text() -> Path:
    """A file of short original tales; a line `<|story|>` stands before each."""
    return _shipped("sample.txt")


def _shipped(name: str) -> Path:
    package = Path(__file__).resolve().parent
    for place in (package / "data" / name, package.parent / "data" / name):
        if place.exists():
            return place
    raise FileNotFoundError(
        f"{name} does not come with this installation of minillama: install it from its wheel or a clone"
    )
