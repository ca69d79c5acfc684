"""Texts that tokenizers stumble over: what the tests of all tokenizers draw from."""

from hypothesis import strategies as st

SPIKY = (
    "", " ", "  ", "   ", "\n", " \n ", "\t", "\r\n", "\0", "\x01\x7f", "\x85", "\u2028", "\u00a0", "\u3000",
    "\u200b", "Hello this is a test", " Hello", "  Hello  ", "Hello, y'all! How are you 😁 ?",
    "I was born in 92000, and this is.", "the Fox jumped.Over   the fox", "ALL CAPS and camelCase snake_case",
    "don't, won't ' I'm you've we're he's n't", "def f(x):\n    return {'a': [1, 2.5e-3]}  # ▁ok\n",
    "<div class=\"a\">&nbsp;</div>", "a\tb\t\tc", "\\n\\t%s{}", "0x1F600", "3.14159265358979 1,000,000 ①②③ ½ ²",
    "https://example.org/?q=a&b=c#d", "SELECT * FROM t WHERE a <> 'b';", "生活的真谛是", "東京タワー、大阪。",
    "한국어 텍스트", "العربية نص", "שלום עולם", "हिन्दी में", "ไทยไม่มีวรรค", "ລາວ", "Привет, мир", "Ελληνικά",
    "Việt Nam Đông", "naïve façade Ångström", "e\u0301 n\u0303 A\u030a", "ﬁ ﬂ ™ ﷺ", "ß ẞ İ ı", "🦙", "👩‍👩‍👧‍👦",
    "🏳️‍🌈", "🇨🇭🇯🇵", "👍🏽", "\ufe0f\u200d", "\ufeff", "\ufffd", "\ufdd0", "\U0010ffff", "\U000e0001", "𝔘𝔫𝔦", "▁",
    "▁▁", " ▁ ", "▁a", "a▁b ", "<0x41>", "<0x0A>", "<|x|>", "[INST] <<SYS>>\n", "ا", "ا .", "  \n  \n",
    ". , ? ! '", "caf\u00e9 \x80\x81".encode().decode("latin-1"), bytes(range(128, 256)).decode("latin-1"),
    b"\xff\xfebroken \xe4\xb8 bytes \xf0\x9f".decode("utf-8", "replace"), "a" * 40, "ab " * 20, "\u0300" * 5,
    "zzyzx" * 4,
)  # fmt: skip
SPECIAL = ("<s>", "</s>", "<unk>")  # which are tokens in a text, and not text

CHARACTERS = st.text(st.characters(codec="utf-8"), max_size=8)
PLAIN = st.lists(st.sampled_from(SPIKY) | CHARACTERS, max_size=5).map("".join)  # it may spell a special token by chance
WITH_SPECIAL = st.lists(st.sampled_from((*SPIKY, *SPECIAL, *SPECIAL)) | CHARACTERS, max_size=6).map("".join)
ANY_IDS = st.lists(st.integers(0, 265) | st.integers(0, 4095), max_size=14)
