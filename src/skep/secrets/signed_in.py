"""What the stores that are asked over the network have in common: a client, a credential, the token it gives.

Source: secrets and providers, section A3.
"""

from __future__ import annotations

from types import TracebackType
from typing import Generic, Self, TypeVar

from skep.foundation.redaction import Redactor
from skep.foundation.secret import Secret
from skep.secrets.manifest import NetworkStore
from skep.secrets.web import StoreClient

__all__ = ["SignedIn"]

S = TypeVar("S", bound=NetworkStore)


class SignedIn(Generic[S]):
    """A store that is spoken to with a token, from when it is entered until it is left.

    Attributes:
        where: Its name and host, for a report.
    """

    def __init__(self, name: str, store: S, credential: Secret, *, redactor: Redactor) -> None:
        self._name = name
        self._store: S = store
        self._client = StoreClient(name, store, redactor)
        self._credential = credential
        self._token: Secret | None = None
        self._life_left: float | None = None
        self.where = self._client.where

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        try:
            self._token = await self._sign_in()
        except BaseException:
            await self._client.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._token = None
        await self._client.__aexit__(kind, error, trace)

    def lifetime(self) -> float | None:
        """Return the part of the token's life that is left, where that is known."""
        return self._life_left

    async def _sign_in(self) -> Secret:
        """Return the token: the credential itself, or what it is exchanged for."""
        raise NotImplementedError

    def _token_of(self, found: object) -> Secret:
        """Return the token that a login was answered with.

        Raises:
            SecretError: `malformed`: it is none.
        """
        if not isinstance(found, str) or not found.isascii() or not found.isprintable() or not found:
            raise self._client.problem("malformed", "the login answered without a token", subject="login")
        token = Secret("access token", found)
        self._client.redactor.add(token)
        return token
