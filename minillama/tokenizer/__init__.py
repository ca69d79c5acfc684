"""Text to ids and back: sentencepiece models, tokenizer.json files, and text that is decoded as it streams."""

from minillama.tokenizer.json_file import LlamaTokenizerFast
from minillama.tokenizer.loading import Tokenizer, load_tokenizer
from minillama.tokenizer.sentencepiece_model import LlamaTokenizer
from minillama.tokenizer.streaming import StreamDecoder

__all__ = ["LlamaTokenizer", "LlamaTokenizerFast", "StreamDecoder", "Tokenizer", "load_tokenizer"]
