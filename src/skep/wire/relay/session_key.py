"""Session keys: which conversation a message belongs to.

Source: relay contract, sections 6.3 and 16. Two forms: the key that Hermes 0.19.0 builds itself, used
towards any gateway but our own, and Skep's own, which also separates scopes. Pure.
"""

from __future__ import annotations

import re
from typing import Final

from skep.foundation.errors import WireError
from skep.wire.relay.event import SessionSource, stock_platform

__all__ = ["is_shared", "participant", "session_key", "stock_session_key"]

_WHATSAPP_ID: Final = re.compile(r"[A-Za-z0-9@.+\-]+\n?")


def session_key(
    source: SessionSource, *, group_sessions_per_user: bool = True, thread_sessions_per_user: bool = False
) -> str:
    """Return Skep's own key of `source`: two scopes with one chat id are two sessions."""
    return _join(
        source,
        source.platform,
        profile=None,
        scope=source.scope_id,
        per_user=group_sessions_per_user and (thread_sessions_per_user or not source.thread_id),
    )


def stock_session_key(
    source: SessionSource,
    *,
    profile: str | None = None,
    group_sessions_per_user: bool = True,
    thread_sessions_per_user: bool = False,
) -> str:
    """Return the key that Hermes 0.19.0 builds for `source`, byte for byte.

    Args:
        profile: Namespace of a gateway that serves several profiles; the source's own is not read.

    Raises:
        WireError: An id of a WhatsApp chat that 0.19.0 cannot reduce.
    """
    return _join(
        source,
        stock_platform(source.platform),
        profile=profile,
        scope=None,
        per_user=group_sessions_per_user and (thread_sessions_per_user or not source.thread_id),
    )


def is_shared(
    source: SessionSource, *, group_sessions_per_user: bool = True, thread_sessions_per_user: bool = False
) -> bool:
    """Return whether several people meet in the session of `source`."""
    if source.chat_type == "dm":
        return False
    return not (thread_sessions_per_user if source.thread_id else group_sessions_per_user)


def participant(source: SessionSource) -> str | None:
    """Return who wrote, as keys name them: the alternative id before the ordinary one."""
    return source.user_id_alt or source.user_id or None


def _join(
    source: SessionSource, platform: str, *, profile: str | None, scope: str | None, per_user: bool
) -> str:
    is_dm = source.chat_type == "dm"
    chat, author = source.chat_id, participant(source)
    if platform == "whatsapp":
        chat = _bare_number(chat) if is_dm else chat
        if author and not (is_dm and chat):
            author = _bare_number(author) or author
    head = f"agent:{_namespace(profile)}:{platform}:{source.chat_type}"
    if is_dm:
        known = (scope, chat or author, source.thread_id)
    else:
        known = (scope, chat, source.thread_id, author if per_user else None)
    return ":".join([head, *filter(None, known)])


def _namespace(profile: str | None) -> str:
    return "main" if not profile or profile == "default" else profile


def _bare_number(identifier: str) -> str:
    """Return a WhatsApp id without its server and device: `15550100:3@s.whatsapp.net` is `15550100`."""
    bare = identifier.strip().replace("+", "", 1).split(":", 1)[0].split("@", 1)[0]
    if bare and not _WHATSAPP_ID.fullmatch(bare):
        raise WireError("whatsapp id has characters that no such id has", code="relay.event_invalid")
    return bare
