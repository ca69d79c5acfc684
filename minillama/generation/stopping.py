"""Stop strings in a stream: they may begin in one token and end in another."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Lets text through up to the stop string that is complete first, holding back whatever may be the start of one."""

    def __init__(self, stops: Sequence[str]):
        if "" in stops:
            raise ValueError("a stop string is empty: it would stop everything at once")
        self._stops = list(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The text that may be shown now. Once a stop string is complete, `found` is set and nothing follows."""
        if self.found:
            return ""
        text = self._held + text
        places = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stops if stop in text]
        if places:
            self.found, self._held = True, ""
            _, start = min(places)  # of several, the first to be complete: the same however the text was cut
            return text[:start]
        longest = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - longest :]
        return text[: len(text) - longest]

    def finish(self) -> str:
        """What was held back, now that no more comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are a beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
