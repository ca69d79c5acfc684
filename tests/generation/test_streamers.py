import numpy as np
import pytest

from minillama.generation import TextStreamer
from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.tokenizer import AutoTokenizer

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


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
@pytest.mark.parametrize("where", ["in the tokenizer", "in the call"])
def test_a_clean_up_of_spaces_takes_no_letters(name: str, where: str) -> None:
    cleaning = {"clean_up_tokenization_spaces": True}
    tokenizer = AutoTokenizer.from_pretrained(tale_model() / name, **(cleaning if where == "in the tokenizer" else {}))
    text = "name == 'main' , yes ? s = 'some' ."
    for skip in (False, True):
        streamer = Pieces(tokenizer, skip, skip_special_tokens=True, **(cleaning if where == "in the call" else {}))
        for index in tokenizer.encode(text):
            streamer.put(np.array([index]))
        streamer.end()
        assert "".join(streamer.pieces) == text  # the prompt is a beginning of text alone


def test_a_stray_byte_spoils_no_character_beside_it() -> None:
    streamer = Pieces(load_tokenizer(tale_model() / "tokenizer.json"))
    for byte in b"\xf0".join(["狐".encode()] * 3):
        streamer.put(np.array([byte + 3]))
    streamer.end()
    assert "".join(streamer.pieces) == "狐\ufffd狐\ufffd狐"
