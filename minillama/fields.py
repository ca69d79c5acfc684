"""Results with named fields, which can be read in three ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any


class ModelOutput:
    """A dataclass whose fields are read by name, by index or in a row; those that are None are left out of the latter
    two. Subclasses have eq=False: arrays have no one answer to ==."""

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in their order."""
        return tuple(getattr(self, name) for name in self.keys())

    def keys(self) -> list[str]:
        """The names of the fields that are not None."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]  # every subclass is a dataclass
        return [name for name in names if getattr(self, name) is not None]

    def values(self) -> list[Any]:
        """The fields that are not None."""
        return list(self.to_tuple())

    def items(self) -> list[tuple[str, Any]]:
        """The names and fields that are not None."""
        return list(zip(self.keys(), self.to_tuple(), strict=True))

    def __getitem__(self, key: int | slice | str) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in (field.name for field in fields(self)):  # type: ignore[arg-type]
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __len__(self) -> int:
        return len(self.keys())
