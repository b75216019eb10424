"""The control protocol's transport: JSON objects over a unix socket, both ends.

Source: control protocol, sections 2 and 3. What methods there are is `skep.wire.control`'s.
"""

from skep.foundation.rpc.caller import Caller, CallError, ConnectionLostError, connect
from skep.foundation.rpc.frames import PROTO, Event, Method, RpcError, Table
from skep.foundation.rpc.listener import Call, Connection, Handler, Listener

__all__ = [
    "PROTO",
    "Call",
    "CallError",
    "Caller",
    "Connection",
    "ConnectionLostError",
    "Event",
    "Handler",
    "Listener",
    "Method",
    "RpcError",
    "Table",
    "connect",
]
