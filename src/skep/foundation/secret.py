"""A secret value that cannot be shown by accident.

Source: secrets and providers, section S2. The text comes out of `reveal` alone; a test lists who may call it.
No length is ever shown: it narrows a guess.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, NoReturn, SupportsIndex, final

__all__ = ["SHORT", "Secret"]

SHORT: Final = 6
"""A shorter value is weak, and is not looked for in text: that would blank ordinary words."""


@final
class Secret:
    """A value and its name, of which only the name is ever shown."""

    __slots__ = ("__text", "name")

    def __init__(self, name: str, text: str) -> None:
        self.name: Final = name
        self.__text: Final = text

    def reveal(self) -> str:
        """Return the value: for the renderer and the header of a request, for nobody else."""
        return self.__text

    def fingerprint(self, key: bytes) -> str:
        """Return 8 hex digits that change with the value, and mean nothing without `key`."""
        return hmac.new(key, self._bytes(), hashlib.sha256).hexdigest()[:8]

    @property
    def is_empty(self) -> bool:
        return not self.__text

    @property
    def is_short(self) -> bool:
        return len(self.__text) < SHORT

    def __repr__(self) -> str:
        return f"<secret {self.name}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._bytes(), other._bytes())

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # a hash would compare faster than it should

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")

    def _bytes(self) -> bytes:
        return self.__text.encode("utf-8", "surrogatepass")
