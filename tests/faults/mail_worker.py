"""Senders and readers of mail, to be killed: `python mail_worker.py sender|reader NAME DIRECTORY AGENT...`.

Written against the control protocol, with nothing of Skep's: sections 3, 4 and 6. Each line of
`DIRECTORY/NAME.jsonl` is what one of them did or was told, written before it goes on.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from pathlib import Path
from typing import Any

__all__: list[str] = []


class Line:
    """One connection to a socket of the daemon; the hello is said."""

    def __init__(self, path: Path, role: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._number = 0
        try:
            self._socket.connect(str(path))
            self.call("hello", proto=1, role=role, build="test", pid=os.getpid())
        except BaseException:
            self._socket.close()
            raise

    def call(self, method: str, **args: Any) -> dict[str, Any]:
        """Call `method` and return its result."""
        self._number += 1
        data = json.dumps({"i": self._number, "m": method, "a": args}).encode()
        self._socket.sendall(len(data).to_bytes(4, "big") + data)
        while True:
            frame = json.loads(self._exactly(int.from_bytes(self._exactly(4), "big")))
            if frame.get("i") == self._number:
                if not frame["ok"]:
                    raise RefusedError(frame["code"])
                return frame["r"]

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise ConnectionError("closed")
            data += more
        return data


class RefusedError(Exception):
    """The daemon said no; the text is its code."""


class Journal:
    """What was done, line by line; a line is whole or not there."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, **facts: Any) -> None:
        """Add a line."""
        line = json.dumps({"at": time.monotonic(), "what": what, **facts}) + "\n"
        os.write(self._fd, line.encode())


def send(name: str, root: Path, agents: list[str], journal: Journal, start: int) -> None:
    """Be the gateway of the relay `name`: hand in what two people write, each message until it is taken."""
    number = start
    line = Line(root / "run/door.sock", "gateway")
    try:
        line.call("door.attach", relay=name, state="connected", descriptors=[])
        while True:
            chat = f"{name}-{number % 2}"
            agent = agents[(sum(name.encode()) + number) % 2]
            event = {
                "text": f"@{agent} {name} {number}",
                "message_type": "text",
                "message_id": f"{name}-{number}",
                "source": {
                    "platform": "web",
                    "chat_id": chat,
                    "chat_type": "dm",
                    "user_id": name,
                    "user_name": name,
                    "scope_id": "local",
                },
            }
            journal.note("call", number=number)
            told = line.call("door.accept", relay=name, event=event, received_at=1)
            if told["outcome"] not in ("stored", "duplicate"):
                raise AssertionError(told)
            journal.note("sent", number=number, message=told["message_id"])
            number += 1
            time.sleep(0.002)
    finally:
        line.close()


def read(name: str, root: Path, agents: list[str], journal: Journal) -> None:
    """Be the harness of the agent `name`: take, begin, perhaps tell another agent, answer."""
    line = Line(root / "run/agents" / name / "pump.sock", "harness")
    chance = random.Random()
    try:
        line.call("pump.hello", harness_id=f"h-{os.getpid()}", harness_version="test")
        while True:
            for lease in line.call("pump.next", wait_ms=1_000, max=20, lanes=2)["leases"]:
                key = {"lease_id": lease["lease_id"], "fence": lease["fence"]}
                turn = f"t-{lease['lease_id']}"
                held = [
                    {
                        "delivery": envelope["delivery_id"],
                        "message": envelope["id"],
                        "seq": envelope["lane_seq"],
                        "again": envelope.get("redelivered", False),
                        "body": envelope["body"],
                    }
                    for envelope in lease["envelopes"]
                ]
                journal.note("lease", lane=lease["lane"], held=held)
                line.call("pump.started", **key, turn_id=turn)
                journal.note("shown", lane=lease["lane"], held=held)
                time.sleep(chance.uniform(0, 0.003))
                if lease["envelopes"][0]["from"].startswith("person:") and chance.random() < 0.3:
                    args = {"to": f"agent:{chance.choice(agents)}", "body": f"from {turn}", "idem": turn}
                    if args["to"] != f"agent:{name}":
                        told = line.call("tool.call", turn_id=turn, call_id="c", name="send", args=args)
                        journal.note("sent", message=told["result"]["id"])
                line.call("pump.ended", **key, turn_id=turn, outcome="ok", reply={"body": "read"})
                journal.note("done", lane=lease["lane"], held=held)
    finally:
        line.close()


def main(kind: str, name: str, root: Path, agents: list[str]) -> None:
    """Work until killed; dial again whenever the daemon is gone."""
    path = root / f"{name}.jsonl"
    journal = Journal(path)
    while True:
        try:
            if kind == "sender":
                done = [json.loads(line) for line in path.read_text().splitlines()]
                start = 1 + max((fact["number"] for fact in done if fact["what"] == "sent"), default=-1)
                send(name, root, agents, journal, start)
            else:
                read(name, root, agents, journal)
        except (OSError, RefusedError) as error:
            journal.note("cut", why=f"{type(error).__name__} {error}")
            time.sleep(0.02)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
