"""Descriptors: what a connector can do on one platform.

Source: relay contract, sections 5 and 16. Nine fields are required; everything else is optional, and
what is not known is ignored. Descriptors change by addition only. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

import msgspec

from skep.foundation.errors import WireError

__all__ = [
    "CONTRACT_VERSION",
    "DEFAULT_OPS",
    "Descriptor",
    "DescriptorInvalidError",
    "PlatformEntry",
    "decode_descriptor",
]

CONTRACT_VERSION: Final = 1
DEFAULT_OPS: Final = ("send", "edit", "typing", "follow_up")
"""What a connector that lists no ops can do. A newer op is used only when it is listed."""
DEFAULT_MAX_LENGTH: Final = 4096
DEFAULT_EMOJI: Final = "\N{ELECTRIC PLUG}"


class DescriptorInvalidError(WireError):
    """A descriptor lacks what it must have."""

    code = "relay.descriptor_invalid"


class PlatformEntry(Protocol):
    """What `platform.toml` says of a platform: the one source of its descriptor."""

    @property
    def name(self) -> str:
        """Name on the wire, in lower case."""
        ...

    @property
    def label(self) -> str:
        """Name for people."""
        ...

    @property
    def max_message_length(self) -> int:
        """Longest message in the unit of the adapter; 0 for no limit."""
        ...

    @property
    def emoji(self) -> str:
        """One picture."""
        ...

    @property
    def platform_hint(self) -> str:
        """What an agent should know of it."""
        ...

    @property
    def pii_safe(self) -> bool:
        """Whether ids may be shown to a model as they are."""
        ...


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    """Capabilities of one platform behind a connector.

    Attributes:
        max_message_length: In `len_unit`, at least 1.
        supports_draft_streaming: Always false on the public wire; `supported_ops` rules.
        markdown_dialect: Empty or `plain` means that code blocks are not shown as such.
        len_unit: `chars` or `utf16`; anything else counts as `chars`.
        supported_ops: Empty means `DEFAULT_OPS`.
        bot_id: Account that this describes, when the hello did not name it (Skep's own ends only).
        skep: 1 from a Skep connector, and only towards a gateway that said so too.
    """

    contract_version: int
    platform: str
    label: str
    max_message_length: int
    supports_draft_streaming: bool
    supports_edit: bool
    supports_threads: bool
    markdown_dialect: str
    len_unit: str
    emoji: str = DEFAULT_EMOJI
    platform_hint: str = ""
    pii_safe: bool = False
    supports_context: bool = False
    supported_ops: tuple[str, ...] = ()
    bot_id: str = ""
    skep: int = 0

    @classmethod
    def from_entry(
        cls,
        entry: PlatformEntry,
        *,
        len_unit: str,
        supported_ops: tuple[str, ...] = (),
        supports_edit: bool = True,
        supports_threads: bool = False,
        supports_context: bool = False,
        markdown_dialect: str = "plain",
        bot_id: str = "",
        skep: int = 0,
    ) -> Descriptor:
        """Return the descriptor of `entry`; what only the running adapter knows comes as keywords."""
        return cls(
            contract_version=CONTRACT_VERSION,
            platform=entry.name,
            label=entry.label,
            max_message_length=_limit(entry.max_message_length),
            supports_draft_streaming=False,
            supports_edit=supports_edit,
            supports_threads=supports_threads,
            markdown_dialect=markdown_dialect,
            len_unit=len_unit,
            emoji=entry.emoji,
            platform_hint=entry.platform_hint,
            pii_safe=entry.pii_safe,
            supports_context=supports_context,
            supported_ops=supported_ops,
            bot_id=bot_id,
            skep=skep,
        )

    @property
    def ops(self) -> tuple[str, ...]:
        """What may be asked of the connector."""
        return self.supported_ops or DEFAULT_OPS

    @property
    def shows_code_blocks(self) -> bool:
        """Whether the dialect knows code blocks."""
        return self.markdown_dialect not in ("", "plain")

    def to_wire(self) -> dict[str, object]:
        """Return the object that goes out: what 0.19.0 reads always, the rest when it says something."""
        wire: dict[str, object] = {name: getattr(self, name) for name in _STOCK}
        for name in _ADDED:
            if value := getattr(self, name):
                wire[name] = value
        return wire


_REQUIRED: Final = Descriptor.__struct_fields__[:9]
_STOCK: Final = Descriptor.__struct_fields__[:13]
_ADDED: Final = Descriptor.__struct_fields__[13:]


def decode_descriptor(wire: object) -> Descriptor:
    """Return the descriptor in `wire`, an object that was parsed already.

    Raises:
        DescriptorInvalidError: Not an object, or a required field is missing.
    """
    if not isinstance(wire, Mapping):
        raise DescriptorInvalidError("descriptor is not an object")
    known = cast("Mapping[str, Any]", wire)
    if missing := [name for name in _REQUIRED if name not in known]:
        raise DescriptorInvalidError(f"descriptor lacks `{missing[0]}`")
    fields = {name: known[name] for name in Descriptor.__struct_fields__ if name in known}
    fields["max_message_length"] = _limit(fields["max_message_length"])
    fields["contract_version"] = _int(fields["contract_version"], default=CONTRACT_VERSION)
    for name in _TEXTS & fields.keys():
        fields[name] = "" if (text := fields[name]) is None else str(text)
    for name in _FLAGS & fields.keys():
        fields[name] = bool(fields[name])
    ops = fields.get("supported_ops")
    fields["supported_ops"] = (
        tuple(op for op in cast("list[object]", ops) if isinstance(op, str)) if isinstance(ops, list) else ()
    )
    fields["skep"] = _int(fields.get("skep"), default=0)
    return Descriptor(**fields)


_TEXTS: Final = frozenset(
    {"platform", "label", "markdown_dialect", "len_unit", "emoji", "platform_hint", "bot_id"}
)
_FLAGS: Final = frozenset(
    {"supports_draft_streaming", "supports_edit", "supports_threads", "pii_safe", "supports_context"}
)


def _limit(value: object) -> int:
    """Return a length that can be used: digits count as a number, nonsense and no limit as 4096."""
    limit = _int(value, default=DEFAULT_MAX_LENGTH)
    return limit if limit > 0 else DEFAULT_MAX_LENGTH


def _int(value: object, *, default: int) -> int:
    try:
        return int(cast("Any", value))
    except (TypeError, ValueError, OverflowError):
        return default
