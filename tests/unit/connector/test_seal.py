"""skep.connector.seal: secrets at rest."""

from __future__ import annotations

import pytest

from skep.connector.seal import Seal
from skep.foundation.errors import SettingError

KEY = bytes(range(32))


def test_sealed_secret_opens_under_its_name() -> None:
    """And the sealed bytes do not hold it."""
    sealed = Seal(KEY).close("secret", name="gateway:a")
    assert b"secret" not in sealed
    assert Seal(KEY).open(sealed, name="gateway:a") == "secret"


def test_same_secret_is_sealed_differently_each_time() -> None:
    """Equal secrets cannot be seen to be equal."""
    seal = Seal(KEY)
    assert seal.close("secret", name="a") != seal.close("secret", name="a")


@pytest.mark.parametrize("change", ["name", "key", "bytes", "cut"])
def test_changed_seal_is_refused(change: str) -> None:
    """Another row, another key, a flipped bit or a cut value: never a wrong secret."""
    sealed = Seal(KEY).close("secret", name="gateway:a")
    name, key = "gateway:a", KEY
    match change:
        case "name":
            name = "gateway:b"
        case "key":
            key = bytes(32)
        case "bytes":
            sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        case _:
            sealed = sealed[:20]
    with pytest.raises(SettingError) as raised:
        Seal(key).open(sealed, name=name)
    assert raised.value.code == "connector.wrong_key"
