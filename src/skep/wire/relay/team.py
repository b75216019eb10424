"""Who can be written to, as it goes from the hive to the edge.

Source: relay contract, section 16; control protocol, section 4. A module of its own: whoever speaks the control
protocol loads it, and most of them know no frame of the relay.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["AgentHere"]

_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class AgentHere(msgspec.Struct, frozen=True, kw_only=True):
    """One agent, as people see it.

    Attributes:
        role: `manager` or `agent`.
        state: `idle`, `busy` or `away`.
        waiting: Messages that wait for it.
    """

    name: _Word
    role: _Word
    state: _Word
    waiting: Annotated[int, msgspec.Meta(ge=0)] = 0
