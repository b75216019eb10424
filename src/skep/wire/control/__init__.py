"""The control protocol's methods: one closed table per socket, typed.

Source: control protocol, sections 4 to 10. Pure: the transport is `skep.foundation.rpc`.
"""

from skep.wire.control import connector, door, operator, pump, tools
from skep.wire.control.connector import CONNECTOR
from skep.wire.control.door import DOOR
from skep.wire.control.operator import CLI, WEB
from skep.wire.control.pump import PUMP
from skep.wire.control.tools import TOOLS

__all__ = [
    "CLI",
    "CONNECTOR",
    "DOOR",
    "PUMP",
    "TOOLS",
    "WEB",
    "connector",
    "door",
    "operator",
    "pump",
    "tools",
]
