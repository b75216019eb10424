"""skep.wire.relay.descriptor and length, against relay contract, section 5."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from skep.wire.relay.descriptor import Descriptor, DescriptorInvalidError, decode_descriptor
from skep.wire.relay.length import fitting, text_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    name: str = "web"
    label: str = "Web chat"
    max_message_length: int = 32_000
    emoji: str = "W"
    platform_hint: str = "You are on the web."
    pii_safe: bool = True


def test_descriptor_is_projected_from_its_entry() -> None:
    """`platform.toml` is the one source; what only the adapter knows comes as keywords."""
    descriptor = Descriptor.from_entry(Entry(), len_unit="utf16", supported_ops=("send", "draft"), skep=1)

    assert descriptor.to_wire() == {
        "contract_version": 1,
        "platform": "web",
        "label": "Web chat",
        "max_message_length": 32_000,
        "supports_draft_streaming": False,
        "supports_edit": True,
        "supports_threads": False,
        "markdown_dialect": "plain",
        "len_unit": "utf16",
        "emoji": "W",
        "platform_hint": "You are on the web.",
        "pii_safe": True,
        "supports_context": False,
        "supported_ops": ("send", "draft"),
        "skep": 1,
    }
    assert decode_descriptor({**descriptor.to_wire(), "supported_ops": ["send", "draft"]}) == descriptor


def test_no_limit_becomes_4096() -> None:
    """A peer must be able to cut."""
    assert Descriptor.from_entry(Entry(max_message_length=0), len_unit="chars").max_message_length == 4096


@pytest.mark.parametrize("field", Descriptor.__struct_fields__[:9])
def test_each_of_the_nine_fields_is_required(field: str) -> None:
    """Named in the error."""
    wire = Descriptor.from_entry(Entry(), len_unit="chars").to_wire()
    del wire[field]

    with pytest.raises(DescriptorInvalidError, match=field):
        decode_descriptor(wire)


@pytest.mark.parametrize(
    ("told", "ops"),
    [
        (None, ("send", "edit", "typing", "follow_up")),
        ([], ("send", "edit", "typing", "follow_up")),
        (["send", 5], ("send",)),
    ],
)
def test_ops_default_to_what_every_connector_can(told: object, ops: tuple[str, ...]) -> None:
    """A newer op is used only when it is listed."""
    wire = {**Descriptor.from_entry(Entry(), len_unit="chars").to_wire(), "supported_ops": told}

    assert decode_descriptor(wire).ops == ops


@pytest.mark.parametrize(
    ("text", "unit", "length"),
    [
        ("abc", "chars", 3),
        ("abc", "utf16", 3),
        ("👋🏽", "chars", 2),
        ("👋🏽", "utf16", 4),
        ("e\N{COMBINING ACUTE ACCENT}", "utf16", 2),
        ("👋", "graphemes", 1),
        ("\ud800", "utf16", 1),
        ("", "utf16", 0),
    ],
)
def test_length_is_counted_in_the_unit(text: str, unit: str, length: int) -> None:
    """Code points, UTF-16 units, anything else as code points."""
    assert text_length(text, unit) == length


@pytest.mark.parametrize(
    ("text", "limit", "unit", "count"),
    [
        ("abc", 2, "chars", 2),
        ("a👋b", 2, "utf16", 1),
        ("a👋b", 3, "utf16", 2),
        ("a👋b", 9, "utf16", 3),
        ("👋", 0, "chars", 0),
    ],
)
def test_fitting_cuts_no_character(text: str, limit: int, unit: str, count: int) -> None:
    """One unit of room may stay unused."""
    assert fitting(text, limit, unit) == count
    assert text_length(text[:count], unit) <= limit
