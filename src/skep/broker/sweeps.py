"""What time does by itself: a new boot, leases that run out, mail that is due or too old.

Source: hive, sections 3.3, 5.3, 5.4 and 10.4. Each step takes a bounded number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from skep.broker import asks, lanes, leases, letters
from skep.broker.rules import Rules
from skep.broker.types import LostLease, Swept
from skep.store.ports import HiveTx

__all__ = ["BATCH", "boot", "give_up_old", "sweep", "too_old"]

BATCH: Final = 256
"""Most rows of one kind in one sweep."""
LONGEST_MS: Final = 5_000


def boot(tx: HiveTx, rules: Rules) -> tuple[int, tuple[LostLease, ...]]:
    """Raise the boot epoch and end every lease of the one before; return it, and what was cut off."""
    row = tx.one("meta_get", "boot_epoch")
    epoch = int(row[0]) + 1 if row else 1
    tx.run("meta_set", "boot_epoch", str(epoch))
    lost = leases.lose(tx, rules, tx.all("leases_all"), blame=False)
    tx.run("lanes_unhold_boot")
    now = rules.time.steady()
    tx.run("lanes_clamp", now)
    tx.run("deliveries_clamp", now)
    tx.forget()
    return epoch, lost


def sweep(tx: HiveTx, rules: Rules) -> Swept:
    """Do what is due; see `Broker.sweep`."""
    steady, wall = rules.time.steady(), rules.time.wall()
    late = steady - rules.settings.start_timeout_ms
    lost = leases.lose(tx, rules, tx.all("leases_lost", steady, late))
    asks_expired = asks.expire(tx, rules, limit=BATCH)
    expired = sum(
        letters.make_dead(tx, rules, row[0], reason="deadline")
        for row in tx.all("past_deadline", wall, BATCH)
    )
    due = tx.all("due_scheduled", wall, BATCH)
    for delivery_id, lane_id, urgency, message_id in due:
        lane = lanes.find(tx, lane_id)
        if lane is not None:
            seq = lanes.put(tx, lane, now=steady, urgency=urgency)
            tx.run("delivery_due", delivery_id, seq, steady)
            tx.signals.append(("delivery", delivery_id, message_id, lane_id, lane.recipient, "ready"))
    return Swept(
        lost=lost,
        due=len(due),
        expired=expired,
        asks_expired=asks_expired,
        next_in_ms=_next_in(tx, rules, steady=steady, wall=wall),
    )


def too_old(tx: HiveTx, rules: Rules) -> list[int]:
    """Return ready deliveries that have waited too long; for a reader."""
    now, settings = rules.time.wall(), rules.settings
    return [
        row[0]
        for row in tx.all("too_old", now - settings.system_age_max_ms, now - settings.age_max_ms, BATCH)
    ]


def give_up_old(tx: HiveTx, rules: Rules, delivery_ids: Sequence[int]) -> int:
    """Make dead what has waited too long; the ids were found by a reader, each is checked again."""
    dead = 0
    for delivery_id in delivery_ids:
        row = tx.one("delivery", delivery_id)
        if row is not None and row[1] == "ready":
            dead += letters.make_dead(tx, rules, delivery_id, reason="age")
    return dead


def _next_in(tx: HiveTx, rules: Rules, *, steady: int, wall: int) -> int:
    """Return in how many milliseconds something is due, at most 5 s."""
    waits = [LONGEST_MS]
    lease = tx.one("lease_next_end")
    if lease is not None:
        if lease[0] is not None:
            waits.append(lease[0] - steady)
        if lease[1] is not None:
            waits.append(lease[1] + rules.settings.start_timeout_ms - steady)
    for name in ("next_scheduled", "next_deadline", "asks_next_deadline"):
        row = tx.one(name)
        if row is not None and row[0] is not None:
            waits.append(row[0] - wall)
    return max(1, min(waits))
