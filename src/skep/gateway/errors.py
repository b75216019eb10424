"""How a request to the connector can fail before there is an answer.

The difference decides whether the same message may be sent again: control protocol, section 6.2.
"""

from __future__ import annotations

from skep.foundation.errors import TryAgainError

__all__ = ["AmbiguousError", "NotSentError"]


class NotSentError(TryAgainError):
    """The relay was down before the frame was written: nothing happened."""

    code = "relay.not_sent"


class AmbiguousError(TryAgainError):
    """The frame was written and no answer came: the platform may have it."""

    code = "relay.ambiguous"
