"""Text to ids and back: sentencepiece models, tokenizer.json files, chat prompts, text that is decoded as it streams.

base (what both classes do alike) stands on batches (special tokens around a text, truncation, padding), settings (the
files beside a vocabulary) and chat (templates); sentencepiece_model and json_file are the two classes. from_pieces
makes either of a vocabulary without such files, and to_pieces takes it out again; llama2c_bin and tiktoken_file read
other files. loading chooses between them all.
"""

from minillama.tokenizer.batch_encoding import BatchEncoding
from minillama.tokenizer.json_file import LlamaTokenizerFast
from minillama.tokenizer.loading import AutoTokenizer, Tokenizer
from minillama.tokenizer.sentencepiece_model import LlamaTokenizer
from minillama.tokenizer.streaming import StreamDecoder

__all__ = [
    "AutoTokenizer",
    "BatchEncoding",
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "StreamDecoder",
    "Tokenizer",
]
