"""Bases of the structs that cross a control socket."""

from __future__ import annotations

import msgspec

__all__ = ["Args", "Empty", "NoArgs", "Result"]


class Args(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Arguments: an unknown one is an error."""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A result or an event: unknown fields are ignored."""


class NoArgs(Args, frozen=True):
    """No arguments."""


class Empty(Result, frozen=True):
    """`{}`."""
