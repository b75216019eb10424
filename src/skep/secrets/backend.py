"""What every store can do for the bridge.

Source: secrets and providers, sections A3 and A6. Nothing here writes to a store, or makes or widens a grant.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from skep.foundation.secret import Secret
from skep.secrets.reference import Reference

__all__ = ["Backend", "Fetched", "Presence", "Probe"]

Presence = Literal["present", "missing", "denied"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A value, and the version that it is, where the store counts them."""

    secret: Secret
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A question that a well-made credential is refused.

    Attributes:
        what: What was asked, in words.
        allowed: The store answered it; `None` when its answer says neither.
        is_error: Wide enough to fail the check by itself.
    """

    what: str
    allowed: bool | None
    is_error: bool = False


class Backend(AbstractAsyncContextManager["Backend"], Protocol):
    """One opened store; closed by leaving the context.

    Attributes:
        where: Its name and host, for a report.
        can_describe: Presence can be asked for without reading a value.
    """

    where: str
    can_describe: bool

    async def fetch(self, reference: Reference, *, references: bool = False) -> Fetched:
        """Return the value at `reference`.

        Args:
            references: Let the store expand references to other secrets in the value.

        Raises:
            SecretError: By class; `not_found`, `permission` and `auth` are told apart.
        """
        ...

    async def describe(self, reference: Reference) -> Presence:
        """Return whether `reference` is there, without reading its value.

        Raises:
            SecretError: Every fault but a missing secret and a missing right.
        """
        ...

    async def names(self, path: str, *, recursive: bool) -> list[Reference]:
        """Return what lies in the folder `path`, without values.

        Raises:
            SecretError: By class; `usage` where the store cannot list.
        """
        ...

    async def width(self, references: Sequence[Reference], *, folder: str | None) -> list[Probe]:
        """Return what the credential may do beyond `references`, or beyond `folder`.

        Raises:
            SecretError: The store could not be asked.
        """
        ...

    def lifetime(self) -> float | None:
        """Return the part of the credential's life that is left, 0 to 1; `None` when unknown."""
        ...
