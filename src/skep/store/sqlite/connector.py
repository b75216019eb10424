"""What can be done in one transaction of `connector.db`.

Source: relay contract, sections 9 to 11 and 16; control protocol, sections 11 and 13.
Statements only: who may do what, and when, is decided in `skep.connector`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import apsw

from skep.store.migrations import load_migrations
from skep.store.queries import load_queries
from skep.store.sqlite.driver import Db
from skep.store.sqlite.engine import OpenOptions, SqliteEngine

__all__ = [
    "AccountRow",
    "BufferedRow",
    "ChatRow",
    "CodeRow",
    "ConnectorStore",
    "ConnectorTx",
    "ConversationRow",
    "DeliveryRow",
    "EventRow",
    "GatewayRow",
    "MessageRow",
    "NewMessage",
    "SealedRow",
    "SessionRow",
    "TakenRow",
    "open_connector",
]

T = TypeVar("T")

_SQL: Final = dict(load_queries("connector"))
_MIGRATIONS: Final = Path(__file__).with_name("migrations") / "connector"


class GatewayRow(NamedTuple):
    """One gateway."""

    gateway_id: str
    tenant: str
    instance: str
    is_skep: int
    last_seen_at: int | None
    revoked_at: int | None


class SealedRow(NamedTuple):
    """A sealed secret; `mark` is the start of its hash, in hex."""

    mark: str
    sealed: bytes


class ChatRow(NamedTuple):
    """Where a tenant was written to; `source` is the JSON of the last source there."""

    platform: str
    bot_id: str
    chat_id: str
    instance: str
    scope_id: str | None
    user_id: str | None
    source: bytes


DeliveryRow = tuple[int, str, str, str, str, bytes, int]
"""An event to keep: id, tenant, instance, platform, message id, event, when it came. Plain: there are many."""


class TakenRow(NamedTuple):
    """A delivery that is gone now; `size` is in bytes."""

    tenant: str
    instance: str
    platform: str
    message_id: str
    size: int


class BufferedRow(NamedTuple):
    """How much waits for an instance; `size` is in bytes."""

    tenant: str
    instance: str
    events: int
    size: int


class AccountRow(NamedTuple):
    """An account of the web chat; `n` is its newest event."""

    account: str
    tenant: str
    name: str
    is_owner: int
    n: int


class CodeRow(NamedTuple):
    """A one-time code."""

    account: str
    expires_at: int
    used_at: int | None


class SessionRow(NamedTuple):
    """A session and whose it is."""

    account: str
    name: str
    tenant: str
    is_owner: int
    kind: str
    seen_at: int


class ConversationRow(NamedTuple):
    """One line of the list of conversations."""

    conversation: str
    title: str | None
    last_at: int
    is_archived: int
    unread: int


class MessageRow(NamedTuple):
    """One message; `answers` is a JSON list or nothing, `prompt` a JSON object or nothing."""

    message: str
    conversation: str
    kind: str
    name: str
    text: str
    at: int
    reply_to: str | None
    thread: str | None
    answers: str | None
    client_id: str | None
    state: str | None
    prompt: str | None


class NewMessage(NamedTuple):
    """A message to keep."""

    message: str
    conversation: str
    kind: str
    name: str
    text: str
    at: int
    n: int
    reply_to: str | None = None
    thread: str | None = None
    answers: str | None = None
    client_id: str | None = None
    state: str | None = None
    gateway_id: str | None = None
    idem: str | None = None
    prompt_id: str | None = None
    prompt: str | None = None

    @property
    def row(self) -> MessageRow:
        """The message as it is read again."""
        return MessageRow(
            message=self.message,
            conversation=self.conversation,
            kind=self.kind,
            name=self.name,
            text=self.text,
            at=self.at,
            reply_to=self.reply_to,
            thread=self.thread,
            answers=self.answers,
            client_id=self.client_id,
            state=self.state,
            prompt=self.prompt,
        )


class EventRow(NamedTuple):
    """Something that an account was told; `told` is a state, or nothing for the message itself."""

    n: int
    told: str | None
    message: MessageRow


class ConnectorTx:
    """The statements of `connector.db`.

    Attributes:
        signals: What to call in the event loop, in this order, once the operation is on disk.
        bindings: Another number each time a binding or a chat was taken away or a binding added, also
            when that is undone later: what was read while it was the same still holds.
    """

    def __init__(self, db: Db) -> None:
        # One cursor for all: each statement is read to its end before the next. A new one each time costs more.
        cursor = db.cursor()
        self._execute: Final = cursor.execute
        self._execute_each: Final = cursor.executemany
        self._changes: Final = db.changes
        self._rowid: Final = db.last_insert_rowid
        self.signals: list[Callable[[], None]] = []
        self.bindings = next(_numbers)

    def attempt(self, work: Callable[[], T]) -> T | Exception:
        """Return what `work` returns, or why it failed: then all that it did is undone.

        Raises:
            apsw.Error: The disk's fault, not that of `work`.
        """
        signals = len(self.signals)
        self._execute("SAVEPOINT attempt")
        try:
            result = work()
        except Exception as error:
            if isinstance(error, apsw.Error) and not isinstance(error, _OWN_FAULTS):
                raise
            self._execute("ROLLBACK TO attempt")
            del self.signals[signals:]
            self._execute("RELEASE attempt")
            return error
        self._execute("RELEASE attempt")
        return result

    def forget(self) -> None:
        """Drop what was remembered: nothing is."""

    # The edge: asked.

    def meta(self, name: str) -> str | None:
        """Return one fact about this database."""
        row = self._one("meta", name)
        return row[0] if row else None

    def has_tenant(self, tenant: str) -> bool:
        """Return whether `tenant` is known."""
        return self._one("tenant", tenant) is not None

    def gateway(self, gateway_id: str) -> GatewayRow | None:
        """Return one gateway, revoked ones too."""
        row = self._one("gateway", gateway_id)
        return GatewayRow(*row) if row else None

    def gateways(self) -> list[GatewayRow]:
        """Return all gateways that are not revoked."""
        return [GatewayRow(*row) for row in self._all("gateways")]

    def secrets(self, gateway_id: str, *, now_ms: int) -> list[SealedRow]:
        """Return the sealed secrets that still open something, newest first."""
        return [SealedRow(*row) for row in self._all("secrets", gateway_id, now_ms)]

    def binding(self, platform: str, user_ns: str, user_id: str) -> tuple[str, str] | None:
        """Return (tenant, instance) of an author."""
        row = self._one("binding", platform, user_ns, user_id)
        return (row[0], row[1]) if row else None

    def chats(self, tenant: str, *, platform: str, chat_id: str) -> list[ChatRow]:
        """Return the chats of this id that `tenant` received from, one per bot."""
        return [ChatRow(*row) for row in self._all("chats", tenant, platform, chat_id)]

    def deliveries(self, tenant: str, instance: str, *, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return (id, event) of what waits for an instance, oldest first."""
        return [(row[0], row[1]) for row in self._all("deliveries", tenant, instance, after, limit)]

    def buffered(self) -> list[BufferedRow]:
        """Return how much waits for each instance."""
        return [BufferedRow(*row) for row in self._all("buffered")]

    def old_intake(self, *, after: str, before_ms: int, limit: int) -> list[str]:
        """Return keys after one that were taken before a time. It walks the table: nothing for the writer."""
        return [row[0] for row in self._all("intake_old", after, before_ms, limit)]

    def egress(self, gateway_id: str, idem: str) -> tuple[bytes | None] | None:
        """Return (result or nothing yet) of a send; `None` when it was never begun."""
        row = self._one("egress", gateway_id, idem)
        return (row[0],) if row else None

    # The web chat: asked.

    def web_account(self, account: str) -> AccountRow | None:
        """Return one account."""
        row = self._one("web_account", account)
        return AccountRow(*row) if row else None

    def web_session(self, handle: bytes, *, seen_after: int) -> SessionRow | None:
        """Return a session that was used after a time."""
        row = self._one("web_session", handle, seen_after)
        return SessionRow(*row) if row else None

    def web_conversation(self, conversation: str) -> tuple[str, str | None] | None:
        """Return (account, title) of a conversation."""
        row = self._one("web_conversation", conversation)
        return (row[0], row[1]) if row else None

    def web_conversations(self, account: str, *, before: str | None, limit: int) -> list[ConversationRow]:
        """Return conversations, newest first, from before one of them."""
        last_at, last_id = _FAR, ""
        if before is not None:
            row = self._one("web_conversation_at", before, account)
            last_at, last_id = (row[0], before) if row else (0, "")
        return [
            ConversationRow(*row) for row in self._all("web_conversations", account, last_at, last_id, limit)
        ]

    def web_message(self, message: str) -> MessageRow | None:
        """Return one message."""
        row = self._one("web_message", message)
        return MessageRow(*row) if row else None

    def web_messages(self, conversation: str, *, before: str | None, limit: int) -> list[MessageRow]:
        """Return messages, oldest first, from before one of them."""
        seq = _FAR
        if before is not None:
            row = self._one("web_message_of", before, conversation)
            seq = row[0] if row else 0
        rows = [MessageRow(*row) for row in self._all("web_messages", conversation, seq, limit)]
        rows.reverse()
        return rows

    def web_said(self, gateway_id: str, idem: str) -> tuple[str, str] | None:
        """Return (message, conversation) of an answer that was given before."""
        row = self._one("web_said", gateway_id, idem)
        return (row[0], row[1]) if row else None

    def web_events(self, account: str, *, after: int, limit: int) -> list[EventRow]:
        """Return what an account was told after an event."""
        return [
            EventRow(row[0], row[1], MessageRow(*row[2:]))
            for row in self._all("web_events", account, after, limit)
        ]

    # The edge: changed.

    def put_meta(self, name: str, value: str) -> None:
        """Write down one fact, unless it is there."""
        self._do("meta_put", name, value)

    def next_start(self) -> int:
        """Count this start of the process; return how many there were."""
        row = self._one("next_start")
        return int(row[0]) if row else 0

    def add_tenant(self, tenant: str, *, now_ms: int) -> None:
        """Make a tenant, unless it is there."""
        self._do("tenant_add", tenant, now_ms)

    def put_gateway(self, gateway_id: str, *, tenant: str, instance: str, now_ms: int) -> None:
        """Make a gateway, or bring a revoked one back."""
        self._do("gateway_put", gateway_id, tenant, instance, now_ms)

    def gateway_seen(self, gateway_id: str, *, now_ms: int, is_skep: bool) -> None:
        """Write down that a gateway said hello."""
        self._do("gateway_seen", gateway_id, now_ms, int(is_skep))

    def revoke_gateway(self, gateway_id: str, *, now_ms: int) -> None:
        """Cut a gateway off, and forget its secrets."""
        self._do("gateway_revoke", gateway_id, now_ms)
        self._do("secrets_drop", gateway_id)

    def drop_instance(self, tenant: str, instance: str) -> None:
        """Forget who is bound to an instance, what waits for it and where it was written to."""
        self.bindings = next(_numbers)
        self._do("unbind_instance", tenant, instance)
        self._do("deliveries_drop", tenant, instance)
        self._do("chats_drop", tenant, instance)

    def put_secret(self, gateway_id: str, *, mark: str, sealed: bytes, now_ms: int, older_until: int) -> None:
        """Give a gateway a new secret; what it had lives until `older_until`."""
        self._do("secrets_age", gateway_id, older_until)
        self._do("secret_put", gateway_id, mark, sealed, now_ms)

    def bind(
        self, platform: str, user_ns: str, user_id: str, *, tenant: str, instance: str, now_ms: int
    ) -> None:
        """Bind an author, unless they are bound."""
        self.bindings = next(_numbers)
        self._do("bind", platform, user_ns, user_id, tenant, instance, now_ms)

    def put_chat(self, tenant: str, chat: ChatRow) -> None:
        """Remember where `tenant` was written to, and by whom last."""
        self._do("chat_put", tenant, *_in_table_order(chat))

    def take_in(self, dedupe_key: str, *, now_ms: int) -> bool:
        """Remember what was taken; return whether it is new."""
        self._do("intake", dedupe_key, now_ms)
        return self._changes() == 1

    def take_all_in(self, dedupe_keys: Iterable[str], *, now_ms: int) -> None:
        """Remember what was taken, all of it new.

        Raises:
            apsw.ConstraintError: One of them is not.
        """
        self._execute_each(_SQL["intake_fresh"], [(key, now_ms) for key in dedupe_keys])

    def deliver(self, rows: Iterable[DeliveryRow]) -> None:
        """Keep events until they are acknowledged, under ids that were never used."""
        self._execute_each(_SQL["deliver"], rows)

    def take_deliveries(self, delivery_ids: Iterable[int]) -> list[TakenRow]:
        """Forget deliveries; return those that were there."""
        taken: list[TakenRow] = []
        for first, last in _runs(delivery_ids):
            taken += map(TakenRow._make, self._all("deliveries_take", first, last))
        return taken

    def oldest_deliveries(
        self, tenant: str, instance: str, *, after: int, limit: int
    ) -> list[tuple[int, int]]:
        """Return (id, size in bytes) of what would be given up first."""
        return [(row[0], row[1]) for row in self._all("deliveries_oldest", tenant, instance, after, limit)]

    def expired_deliveries(self, *, before_ms: int, limit: int) -> list[int]:
        """Return what waited since before a time."""
        return [row[0] for row in self._all("deliveries_expired", before_ms, limit)]

    def begin_egress(self, gateway_id: str, idem: str, *, now_ms: int) -> None:
        """Write a send down before its platform is called."""
        self._do("egress_begin", gateway_id, idem, now_ms)

    def end_egress(self, gateway_id: str, idem: str, result: bytes) -> None:
        """Write down what the platform answered."""
        self._do("egress_end", gateway_id, idem, result)

    def forget_egress(self, gateway_id: str, idem: str) -> None:
        """Forget a send that certainly did not happen."""
        self._do("egress_forget", gateway_id, idem)

    def forget_intake(self, dedupe_keys: Iterable[str]) -> None:
        """Forget what was taken."""
        self._execute_each(_SQL["intake_forget"], [(key,) for key in dedupe_keys])

    def sweep(self, *, now_ms: int, egress_ms: int, web_ms: int, session_ms: int) -> None:
        """Forget what is over, but what was taken; each argument but the first is an age in milliseconds."""
        self._do("egress_sweep", now_ms - egress_ms)
        self._do("secrets_sweep", now_ms)
        self._do("web_codes_sweep", now_ms - _DAY_MS)
        self._do("web_sessions_sweep", now_ms - session_ms)
        self._do("web_events_sweep", KEPT_EVENTS)
        for (message,) in self._all("web_messages_old", now_ms - web_ms):
            self._do("web_event_drop", message)
        self._do("web_conversations_empty", now_ms - web_ms)

    # The web chat: changed.

    def add_web_account(self, account: str, *, tenant: str, name: str, is_owner: bool, now_ms: int) -> None:
        """Make an account, unless it is there."""
        self._do("web_account_add", account, tenant, name, int(is_owner), now_ms)

    def web_accounts_of(self, tenant: str) -> list[str]:
        """Return the accounts of a tenant."""
        return [row[0] for row in self._all("web_accounts_of", tenant)]

    def put_web_code(self, code: bytes, *, account: str, expires_at: int) -> None:
        """Keep the hash of a one-time code."""
        self._do("web_code_put", code, account, expires_at)

    def web_code(self, code: bytes) -> CodeRow | None:
        """Return what is known of a code."""
        row = self._one("web_code", code)
        return CodeRow(*row) if row else None

    def use_web_code(self, code: bytes, *, now_ms: int) -> None:
        """Use a code up."""
        self._do("web_code_use", code, now_ms)

    def put_web_session(self, handle: bytes, *, account: str, kind: str, now_ms: int) -> None:
        """Open a session."""
        self._do("web_session_put", handle, account, kind, now_ms)

    def web_session_seen(self, handle: bytes, *, now_ms: int) -> None:
        """Write down that a session was used."""
        self._do("web_session_seen", handle, now_ms)

    def drop_web_session(self, handle: bytes) -> None:
        """Close a session."""
        self._do("web_session_drop", handle)

    def put_web_conversation(
        self, conversation: str, *, account: str, title: str | None, now_ms: int
    ) -> None:
        """Open a conversation."""
        self._do("web_conversation_put", conversation, account, title, now_ms)

    def set_web_conversation(self, conversation: str, *, title: str | None, is_archived: bool | None) -> None:
        """Change what is not `None`."""
        self._do(
            "web_conversation_set", conversation, title, None if is_archived is None else int(is_archived)
        )

    def read_web_conversation(self, conversation: str) -> None:
        """Write down that everything so far has been read."""
        self._do("web_conversation_read", conversation)

    def web_next_n(self, account: str, *, count: int = 1) -> int:
        """Take the next numbers of an account's events; return the first of them."""
        row = self._one("web_next_n", account, count)
        if row is None:
            raise KeyError(account)
        return row[0] - count + 1

    def web_sent(self, conversation: str, client_id: str) -> tuple[str, int] | None:
        """Return (message, n) of words that were sent before."""
        row = self._one("web_sent", conversation, client_id)
        return (row[0], row[1]) if row else None

    def put_web_message(self, account: str, message: NewMessage) -> int:
        """Keep a message and tell its account; return its place in all messages."""
        self._do("web_message_put", *message)
        seq = self._rowid()
        self._do("web_event_put", account, message.n, message.message, None)
        return seq

    def web_said_in(self, conversation: str, *, seq: int, title: str | None, now_ms: int) -> None:
        """Bring a conversation to the top: its person wrote."""
        self._do("web_conversation_said", conversation, now_ms, seq, title)

    def web_heard_in(self, conversation: str, *, now_ms: int) -> None:
        """Bring a conversation to the top: somebody else wrote."""
        self._do("web_conversation_heard", conversation, now_ms)

    def web_thread_begun(self, conversation: str, thread: str) -> bool:
        """Return whether something was said in a thread."""
        return self._one("web_thread_begun", conversation, thread) is not None

    def web_prompt(self, conversation: str, prompt_id: str) -> MessageRow | None:
        """Return the message with these choices."""
        row = self._one("web_prompt", conversation, prompt_id)
        return MessageRow(*row) if row else None

    def set_web_prompt(self, message: str, prompt: str) -> None:
        """Write down what has become of the choices of a message."""
        self._do("web_prompt_set", message, prompt)

    def edit_web_message(self, message: str, *, conversation: str, gateway_id: str, text: str) -> bool:
        """Change what a gateway wrote; return whether there was such a message."""
        self._do("web_message_edit", message, conversation, gateway_id, text)
        return self._changes() == 1

    def web_delivered(self, message: str) -> str | None:
        """A gateway has it: return whose message it is, or nothing when that was known."""
        return self._moved(self._one("web_delivered", message))

    def web_seen(self, message: str, *, conversation: str) -> str | None:
        """A turn began with it: return the conversation, or nothing when that was known."""
        return self._moved(self._one("web_seen", message, conversation))

    def web_failed(self, message: str) -> str | None:
        """It was given up: return the conversation, or nothing when a gateway has it."""
        return self._moved(self._one("web_failed", message))

    def put_web_event(self, account: str, n: int, *, message: str, state: str | None) -> None:
        """Tell an account something about a message, under a number that was taken for it."""
        self._do("web_event_put", account, n, message, state)

    def _moved(self, row: tuple[Any, ...] | None) -> str | None:
        return row[0] if row else None

    def _one(self, name: str, *args: object) -> tuple[Any, ...] | None:
        rows = self._execute(_SQL[name], args).fetchall()
        return rows[0] if rows else None

    def _all(self, name: str, *args: object) -> Iterable[tuple[Any, ...]]:
        return self._execute(_SQL[name], args).fetchall()

    def _do(self, name: str, *args: object) -> None:
        self._execute(_SQL[name], args)


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each row of numbers without a gap."""
    ordered = sorted(numbers)
    first = 0
    for at in range(1, len(ordered) + 1):
        if at == len(ordered) or ordered[at] != ordered[at - 1] + 1:
            yield ordered[first], ordered[at - 1]
            first = at


_numbers: Final = itertools.count()
_OWN_FAULTS: Final = (apsw.ConstraintError, apsw.MismatchError, apsw.RangeError, apsw.TooBigError)
"""What the driver says of a row, not of the disk."""
KEPT_EVENTS: Final = 10_000
"""How many events of an account a tab can resume from."""
_DAY_MS: Final = 86_400_000
_FAR: Final = (1 << 63) - 1


def _in_table_order(chat: ChatRow) -> tuple[object, ...]:
    return chat.platform, chat.bot_id, chat.chat_id, chat.instance, chat.scope_id, chat.user_id, chat.source


ConnectorStore = SqliteEngine[ConnectorTx]
"""`connector.db`, opened by one process."""


async def open_connector(path: Path, *, options: OpenOptions | None = None) -> ConnectorStore:
    """Open `connector.db`, made and migrated as needed.

    Raises:
        SettingError: Damaged, of a newer version, foreign, or on a network filesystem.
        StoreUnavailableError: The disk is full or cannot be written.
    """
    return await ConnectorStore.open(
        path,
        migrations=load_migrations(_MIGRATIONS),
        tx=ConnectorTx,
        on_commit=_call_each,
        options=options,
    )


def _call_each(signals: Sequence[Callable[[], None]]) -> None:
    for signal in signals:
        signal()
