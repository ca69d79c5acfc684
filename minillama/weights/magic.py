"""What a file is, by its first bytes."""

from __future__ import annotations

ZIP = b"PK\3\4"  # so begins what torch.save writes since PyTorch 1.6,
PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))  # and so what it wrote before

# What people have instead of a safetensors file, by its first bytes; a sound one may begin with these too, by chance,
# so they are looked at only where the length they make as a number is impossible
_IMPOSTORS = {
    b"version https://git-lfs": "a Git LFS pointer, not the weights themselves (run `git lfs pull`)",
    b"<!doctype": "a web page, not weights",
    b"<html": "a web page, not weights",
    ZIP.lower(): "a zip archive (a renamed PyTorch pickle?)",
    **dict.fromkeys(PICKLES, "a PyTorch pickle"),
    b"gguf": "a GGUF file",
    **dict.fromkeys((b"lmgg", b"fmgg", b"tjgg"), "a file of llama.cpp from before GGUF (convert the model anew)"),
    b"algg": "a LoRA adapter of llama.cpp from before GGUF (convert the adapter anew)",
}


def impostor(head: bytes) -> str | None:
    """What else a file is that begins so, if it is one of those."""
    begin = head.lstrip().lower()
    return next((what for magic, what in _IMPOSTORS.items() if begin.startswith(magic)), None)
