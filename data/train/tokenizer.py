"""Train the tale tokenizer: sentencepiece BPE with LLaMA's own settings, and the same as tokenizer.json.

python data/train/tokenizer.py --tales tales.txt --out data/tale-model
"""

import argparse
import io
import json
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import decoders, normalizers, processors

SEPARATOR = "<|story|>"  # a line of its own before every story; not text


def read_stories(path: str | Path) -> list[str]:
    """The stories of a corpus file: one paragraph a line, a blank line between paragraphs."""
    text = Path(path).read_text(encoding="utf-8")
    return [story.strip("\n") for story in ("\n" + text).split(f"\n{SEPARATOR}\n") if story.strip()]


def train(stories: list[str], vocab_size: int) -> bytes:
    """A serialized sentencepiece model with LLaMA's settings (Touvron et al. 2023, section 2.1)."""
    lines = (line for story in stories for line in story.split("\n") if line)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        character_coverage=1.0,
        max_sentence_length=1 << 20,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=1,
    )
    return model.getvalue()


def to_tokenizer_json(model: bytes) -> tokenizers.Tokenizer:
    """The same BPE for the tokenizers library.

    sentencepiece merges the adjacent pair whose *product* has the best score; a merge list says the same
    thing as every split of a piece into two pieces, in the order of the products' scores.
    """
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {sp.id_to_piece(i): i for i in range(len(sp))}
    merges = []
    for piece, index in vocab.items():
        if sp.is_byte(index) or sp.is_control(index) or sp.is_unknown(index):
            continue
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        splits = [(left, right) for left, right in splits if left in vocab and right in vocab]
        splits.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += [(-sp.get_score(index), order, pair) for order, pair in enumerate(splits)]
    merges.sort(key=lambda merge: merge[:2])

    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab, [pair for _, _, pair in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")]
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", vocab["<s>"])]
    )
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tales", required=True, help="corpus: <|story|> on a line of its own before every story")
    parser.add_argument("--out", required=True, type=Path, help="folder for tokenizer.model and tokenizer.json")
    parser.add_argument("--vocab-size", type=int, default=4096)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    model = train(read_stories(args.tales), args.vocab_size)
    (args.out / "tokenizer.model").write_bytes(model)
    (args.out / "tokenizer.json").write_text(
        json.dumps(json.loads(to_tokenizer_json(model).to_str()), ensure_ascii=False, separators=(",", ":")),
        encoding="utf-8",
    )
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "legacy": True,
    }
    (args.out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
