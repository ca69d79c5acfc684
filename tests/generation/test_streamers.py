import numpy as np
import pytest

from minillama.generation import TextStreamer
from minillama.loading import load_tokenizer
from minillama.shipped import tale_model

TEXT = "Once, a fox met ünï 狐狸\n and  two 🦊 went on.\n"


class Pieces(TextStreamer):
    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.pieces: list[str] = []
        self.ended = 0

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.pieces.append(text)
        self.ended += stream_end


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_the_pieces_make_the_text_and_none_breaks_a_character(name: str) -> None:
    tokenizer = load_tokenizer(tale_model() / name)
    ids = np.array(tokenizer.encode(TEXT))
    for skip in (False, True):
        streamer = Pieces(tokenizer, skip_prompt=skip, skip_special_tokens=True)
        for _ in range(2):  # it begins anew after the end
            streamer.put(ids[None, :4])
            for index in ids[4:]:
                streamer.put(index[None])
            streamer.end()
        before = tokenizer.decode(ids[:4], skip_special_tokens=True) if skip else ""
        assert "".join(streamer.pieces) == 2 * TEXT.removeprefix(before)
        assert not any("\ufffd" in piece for piece in streamer.pieces)
        assert len(streamer.pieces) > 20
        assert streamer.ended == 2


def test_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = load_tokenizer(tale_model())
    streamer = TextStreamer(tokenizer, skip_special_tokens=True)
    ids = np.array(tokenizer.encode("The end"))
    streamer.put(ids[None])
    assert capsys.readouterr().out == "The end"
    streamer.put(np.array([0xE2 + 3]))  # the first byte of a longer character, whose rest never comes
    assert capsys.readouterr().out == ""
    streamer.end()
    assert capsys.readouterr().out == "\ufffd\n"


def test_one_row_only() -> None:
    with pytest.raises(ValueError, match="there are 2"):
        TextStreamer(load_tokenizer(tale_model())).put(np.zeros((2, 3), np.int64))
