"""Open a store: find its credential, make its backend."""

from __future__ import annotations

from collections.abc import Mapping

from skep.foundation.clock import Clock
from skep.foundation.redaction import Redactor
from skep.secrets.backend import Backend
from skep.secrets.credentials import Credential, credential_of
from skep.secrets.manifest import AgeStore, EnvStore, FileStore, InfisicalStore, SopsStore, Store, VaultStore

__all__ = ["open_store"]


def open_store(
    name: str, store: Store, *, environ: Mapping[str, str], redactor: Redactor, clock: Clock
) -> tuple[Backend, Credential | None]:
    """Return the backend of `store`, to be entered, and the credential that it uses.

    Raises:
        SecretError: `auth`, `usage` or `unsafe_target`: the credential is missing or bad.
    """
    credential = credential_of(store, environ=environ)
    if credential is not None:
        redactor.add(credential.secret)
    match store:
        case EnvStore() | FileStore() | AgeStore() | SopsStore():
            from skep.secrets.local import Local

            return Local(name, store, credential, redactor=redactor, environ=environ), credential
        case InfisicalStore():
            from skep.secrets.infisical import Infisical

            assert credential is not None
            return Infisical(name, store, credential.secret, redactor=redactor, clock=clock), credential
        case VaultStore():
            from skep.secrets.vault import Vault

            assert credential is not None
            return Vault(name, store, credential.secret, redactor=redactor), credential
