"""Refusals of the broker. The part after the dot is the code on the wire (hive, section 7.2)."""

from __future__ import annotations

from skep.foundation.errors import BusyError, RefusedError, SkepError, WireError

__all__ = [
    "AlreadySentError",
    "ClosedError",
    "IdempotencyConflictError",
    "InvalidArgumentError",
    "NoRouteError",
    "NoSuchRecipientError",
    "NoTurnError",
    "NotAllowedError",
    "NotFoundError",
    "QueueFullError",
    "RateLimitedError",
    "StaleLeaseError",
    "TooFarError",
    "TooLargeError",
    "TooManyOpenError",
    "TooSoonError",
]


class InvalidArgumentError(WireError):
    """A field has a value that it may not have; the problem names the field."""

    code = "broker.invalid_argument"


class TooLargeError(WireError):
    """More than fits into one envelope."""

    code = "broker.too_large"


class IdempotencyConflictError(WireError):
    """The same key came with another body."""

    code = "broker.idempotency_conflict"


class NoSuchRecipientError(RefusedError):
    """Nobody of this name can be written to."""

    code = "broker.no_such_recipient"


class NotFoundError(RefusedError):
    """Not there, or not for this caller: the two look the same."""

    code = "broker.not_found"


class NotAllowedError(RefusedError):
    """The caller may not do this to anybody."""

    code = "broker.not_allowed"


class NoRouteError(RefusedError):
    """The person has no chat where they can be reached."""

    code = "broker.no_route"


class ClosedError(SkepError):
    """It has ended already."""

    code = "broker.closed"


class AlreadySentError(ClosedError):
    """The reminder has been sent."""

    code = "broker.already_sent"


class StaleLeaseError(SkepError):
    """The lease has ended: drop what you hold."""

    code = "broker.stale_lease"


class NoTurnError(SkepError):
    """No turn runs there."""

    code = "broker.no_turn"


class QueueFullError(BusyError):
    """The recipient has too much to read."""

    code = "broker.queue_full"


class RateLimitedError(BusyError):
    """Too much in a short time."""

    code = "broker.rate_limited"


class TooManyOpenError(RefusedError):
    """As many are open as may be."""

    code = "broker.too_many_open"


class TooSoonError(WireError):
    """A reminder must lie further ahead."""

    code = "broker.too_soon"


class TooFarError(WireError):
    """A reminder must not lie so far ahead."""

    code = "broker.too_far"
