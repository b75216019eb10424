"""Run vector files against the code: `vectors.py FILE...`.

What a file holds is told by its keys, not by its name, so that files with more cases of the same kinds
run too. Each group of cases has one function that raises `AssertionError` when a case does not hold.
Ends with `N passed, N failed`; the exit code is 1 when something failed.
"""

# ruff: noqa: T201 - a script that prints

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

if __name__ == "__main__":  # run from anywhere, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from skep.foundation.errors import WireError
from skep.providers.answers import Answer, Transport
from skep.providers.classify import Case as Question
from skep.providers.classify import classify
from skep.wire.relay import event as events
from skep.wire.relay import frames, token, urls
from skep.wire.relay.actions import decode_action, decode_result
from skep.wire.relay.descriptor import DescriptorInvalidError, decode_descriptor
from skep.wire.relay.length import text_length
from skep.wire.relay.session_key import is_shared, stock_session_key

Case = Mapping[str, Any]
Check = Callable[[Case], None]
DECODED_BODY_BYTES: Final = 40
"""How much of a forwarded body a vector shows."""


class NotForUs(Exception):  # noqa: N818 - not an error: the case is skipped, with this reason
    """A case that says nothing about Skep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one case; no `problem` means that it holds."""

    name: str
    problem: str | None = None
    skipped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One kind of cases.

    Attributes:
        key: Name of the list in a file.
        fields: What each case of this kind has; tells two kinds with one key apart.
    """

    key: str
    fields: frozenset[str]
    check: Check


def run(document: Mapping[str, Any], *, name: str) -> Iterator[Outcome]:
    """Yield the outcome of each case in `document`."""
    is_known = False
    for key, value in document.items():
        cases = _cases_in(value)
        if not cases:
            continue
        group = _group_of(key, cases)
        if group is None:
            yield Outcome(name=f"{name}: {key}", skipped=f"{len(cases)} cases of a kind not run here")
            continue
        is_known = True
        for number, case in enumerate(cases, start=1):
            yield _run_case(group, case, f"{name}: {key} {case.get('id', number)} {_title(case)}".rstrip())
    if not is_known:
        yield Outcome(name=name, skipped="no group of cases that is known here")


def main(arguments: list[str]) -> int:
    """Run the files and print what failed and what was skipped."""
    if not arguments:
        print("usage: vectors.py FILE...", file=sys.stderr)
        return 2
    passed = failed = 0
    for argument in arguments:
        path = Path(argument)
        try:
            document: object = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            print(f"FAILED {path.name}: cannot be read: {exc}")
            failed += 1
            continue
        if not isinstance(document, dict):
            print(f"skipped {path.name}: not an object")
            continue
        for outcome in run(cast("Case", document), name=path.name):
            if outcome.skipped:
                print(f"skipped {outcome.name}: {outcome.skipped}")
            elif outcome.problem is not None:
                failed += 1
                print(f"FAILED {outcome.name}: {outcome.problem}")
            else:
                passed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def _cases_in(value: object) -> list[Case]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Case", item) for item in items if isinstance(item, dict)]


def _group_of(key: str, cases: list[Case]) -> Group | None:
    for group in GROUPS:
        if group.key == key and any(group.fields <= case.keys() for case in cases):
            return group
    return None


def _run_case(group: Group, case: Case, name: str) -> Outcome:
    try:
        group.check(case)
    except NotForUs as reason:
        return Outcome(name=name, skipped=str(reason))
    except AssertionError as failure:
        return Outcome(name=name, problem=str(failure) or "does not hold")
    except Exception as error:  # noqa: BLE001 - a crash is a failed case, not the end of the run
        return Outcome(name=name, problem=f"{type(error).__name__}: {error}")
    return Outcome(name=name)


def _title(case: Case) -> str:
    title = case.get("case") or case.get("name") or case.get("tag") or case.get("in") or ""
    return f"({title})" if title else ""


def _same(what: str, ours: object, theirs: object) -> None:
    assert ours == theirs, f"{what}: {ours!r}, expected {theirs!r}"


def _text(value: object) -> object:
    """Return a number as text: ids are text with us."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


# Tokens.


def check_mint(case: Case) -> None:
    """A token is minted byte for byte."""
    minted = token.mint_token(
        case["payload"], secret=case["secret"], now_s=case["now"], ttl_s=case["ttl_seconds"]
    )
    _same("token", minted, case["token"])
    if "header" in case:
        _same("header", f"Bearer {minted}", case["header"])


def check_verify(case: Case) -> None:
    """A token is taken or refused; where 0.19.0 is lenient, `skep_expect` rules."""
    checked = token.check_token(case["token"], secrets=case["secrets"], now_s=case["now"])
    ours = checked.gateway_id if checked.verdict is token.Verdict.VALID else None
    if case.get("connector_must_match", True):
        _same("payload", ours, case.get("hermes_payload"))
    elif case.get("skep_expect") != "either":
        _same("payload", ours, case.get("skep_expect"))


def check_delivery(case: Case) -> None:
    """A signed delivery is genuine or not."""
    ours = token.verify_delivery(
        case["body"].encode(),
        timestamp=case["timestamp"] or "",
        signature=case["signature"] or "",
        keys=case["keys"],
        now_s=case["now"],
        max_skew_s=case.get("max_skew_seconds", 300),
    )
    _same("genuine", ours, case["hermes_ok"])


# Session keys.


def check_session_key(case: Case) -> None:
    """The key that 0.19.0 builds, or a refusal where it breaks."""
    options: dict[str, Any] = case.get("options") or {}
    shared_options = {name: value for name, value in options.items() if name != "profile"}
    try:
        source = _session_source(case)
        key = stock_session_key(source, **options)
    except WireError:
        _same("session_key", None, case.get("session_key"))
        return
    _same("session_key", key, case.get("session_key"))
    if "shared_multi_user" in case:
        _same("shared", is_shared(source, **shared_options), case["shared_multi_user"])
    if "platform_after_decode" in case:
        _same("platform", events.stock_platform(source.platform), case["platform_after_decode"])
    if "profile_after_decode" in case:
        _same("profile", source.profile, case["profile_after_decode"])


def check_stored_key(case: Case) -> None:
    """The same key, told under another name."""
    check_session_key({**case, "session_key": case["key"]})


def _session_source(case: Case) -> events.SessionSource:
    """Return the source; `from_dict` is how 0.19.0 reads its own stored form, not the wire."""
    wire = case["source"]
    if case.get("via") != "from_dict":
        return events.decode_source(wire)
    for name in ("platform", "chat_id"):
        if name not in wire:
            raise WireError(f"stored source lacks `{name}`")
    source = events.decode_source({**wire, "chat_id": str(wire["chat_id"])})
    if source.platform not in events.STOCK_PLATFORMS:
        raise WireError("stored source is of an unknown platform")
    return source


# Addresses.


def check_urls(case: Case) -> None:
    """Every address that one configured text gives."""
    raw = case["in"]
    kept = urls.relay_url(raw)
    ours: dict[str, object] = {
        "relay_url": kept,
        "dial": urls.dial_url(raw),
        "idempotent": urls.dial_url(urls.dial_url(raw)) == urls.dial_url(raw),
        "http_base": None if kept is None else urls.http_base(kept),
    }
    if kept is not None:
        ours |= {
            "dial_from_relay_url": urls.dial_url(kept),
            "provision": urls.provision_url(kept),
            "policy": urls.policy_url(kept),
            "enroll": urls.enroll_url(kept),
        }
    for name, value in ours.items():
        if name in case:
            _same(name, value, case[name])


# Frames.


def check_frame(case: Case) -> None:
    """A frame in either direction is read as the released client meant or took it."""
    if "path" in case:
        _check_upgrade(case)
    elif case["direction"] == "gateway->connector":
        _check_sent(case)
    else:
        _check_received(case)


def _check_upgrade(case: Case) -> None:
    headers: dict[str, str] = {name.lower(): value for name, value in case["headers"]}
    assert case["path"].endswith("/relay"), f"path {case['path']!r}"
    bearer = headers.get("authorization", "")
    if bearer:
        scheme, _, minted = bearer.partition(" ")
        _same("scheme", scheme, "Bearer")
        assert token.peek_gateway_id(minted), "token names no gateway"


def _messages(case: Case) -> list[str]:
    return case["bytes_list"] if "bytes_list" in case else [case["bytes"]]


def _check_sent(case: Case) -> None:
    reader = frames.gateway_frames()
    for message in _messages(case):
        for line, frame in zip(message.splitlines(), reader.feed(message), strict=True):
            wire = json.loads(line)
            _same("type", wire["type"], case["type"])
            _same("frame", json.loads(frames.encode_frame(frame)), _without_nulls(wire))
            if isinstance(frame, frames.Outbound):
                _same("op", decode_action(frame.action).op, wire["action"]["op"])
                assert re.fullmatch(r"[0-9a-f]{32}", frame.request_id), "requestId is not 32 hex digits"
    _same("skipped", dict(reader.skipped), {})
    returned: dict[str, Any] = case.get("adapter_returned") or {}
    if case.get("answered_with") is not None and "success" in returned:
        result = decode_result(case["answered_with"])
        for name in ("success", "message_id", "error"):
            if name in returned and case["type"] != "(none)":
                _same(f"result {name}", getattr(result, name), returned[name])


def _without_nulls(wire: dict[str, Any]) -> dict[str, Any]:
    """Return `wire` without top-level nulls, but for the one that 0.19.0 always sends."""
    return {name: value for name, value in wire.items() if value is not None or name == "reason"}


def _check_received(case: Case) -> None:
    reader = frames.connector_frames()
    got = [frame for message in _messages(case) for frame in reader.feed(message)]
    effect: dict[str, Any] = case.get("effect") or {}
    if case["type"] == "descriptor":
        _check_descriptor(case, got, effect)
    if "transport_returned" in effect:
        _check_results(case, got, effect)
    if "interrupts" in effect:
        ours = [[f.session_key, f.chat_id] for f in got if isinstance(f, frames.InterruptInbound)]
        _same("interrupts", ours, effect["interrupts"])
    if "decoded" in effect:
        _check_forward(got, effect["decoded"])
    if "delivered" in effect and case["type"] != "passthrough_forward":
        # (What 0.19.0 makes of a passthrough is its own; ours is checked by `decoded`.)
        _check_delivered(got, effect)
    if "replies" in effect:
        acks = [
            frames.InboundAck(buffer_id=f.buffer_id)
            for f in got
            if isinstance(f, frames.Inbound) and f.buffer_id
        ]
        ours = [json.loads(frames.encode_frame(ack)) for ack in acks]
        _same("replies", ours, [json.loads(reply) for reply in effect["replies"]])


def _check_descriptor(case: Case, got: list[frames.ConnectorFrame], effect: Case) -> None:
    taken = [frame.descriptor for frame in got if isinstance(frame, frames.DescriptorFrame)]
    _same("accepted", bool(taken), effect["accepted"])
    if not taken:
        wire = json.loads(_messages(case)[0]).get("descriptor")
        with suppress(DescriptorInvalidError):
            decode_descriptor(wire)
            raise AssertionError("descriptor is read although the frame was not")
        return
    ours = taken[0]
    expected_fields: dict[str, Any] = effect.get("descriptor", {})
    for name, value in expected_fields.items():
        expected = int(value) if name in ("max_message_length", "contract_version") else value
        _same(name, getattr(ours, name), expected)
    if "MAX_MESSAGE_LENGTH" in effect:
        _same("limit", ours.max_message_length, int(effect["MAX_MESSAGE_LENGTH"]))
    if "supports_code_blocks" in effect:
        _same("code blocks", ours.shows_code_blocks, effect["supports_code_blocks"])
    if "len_of_wave_emoji" in effect:
        _same("length unit", text_length("\N{WAVING HAND SIGN}", ours.len_unit), effect["len_of_wave_emoji"])


def _check_results(case: Case, got: list[frames.ConnectorFrame], effect: Case) -> None:
    """The first answer to the request that waits wins; ids are told by their shape."""
    answers = [frame for frame in got if isinstance(frame, frames.OutboundResult)]
    waiting = next((f.request_id for f in answers if re.fullmatch(r"[0-9a-f]{32}", f.request_id)), None)
    first = next((f.result for f in answers if f.request_id == waiting), None)
    returned: dict[str, Any] = effect["transport_returned"] or {}
    if first is None:
        assert not returned.get("success"), "no answer for the waiting request"
        return
    for name in ("success", "message_id", "error", "code"):
        _same(
            f"result {name}",
            getattr(first, name),
            _text(returned.get(name, False if name == "success" else None)),
        )


def _check_forward(got: list[frames.ConnectorFrame], decoded: Case) -> None:
    forwards = [frame.forward for frame in got if isinstance(frame, frames.PassthroughForward)]
    _same("forwards", len(forwards), 1)
    ours = forwards[0]
    for name in ("platform", "bot_id", "method", "path"):
        _same(name, getattr(ours, name), decoded[name])
    _same("headers", [list(pair) for pair in ours.headers], decoded["headers"])
    _same("body", ours.body[:DECODED_BODY_BYTES].hex(), decoded["body_hex"])
    _same("body length", len(ours.body), decoded["body_len"])


def _check_delivered(got: list[frames.ConnectorFrame], effect: Case) -> None:
    taken: list[events.MessageEvent] = []
    for frame in got:
        if isinstance(frame, frames.Inbound):
            with suppress(events.EventInvalidError):
                taken.append(events.decode_event(frame.event))
    _same("delivered", len(taken), len(effect["delivered"]))
    for ours, theirs in zip(taken, effect["delivered"], strict=True):
        _check_event(ours, {"text": theirs} if isinstance(theirs, str) else theirs)


def _check_event(ours: events.MessageEvent, theirs: Case) -> None:
    _same("text", ours.text, _text(theirs["text"]) or "")
    for name in ("message_type", "message_id", "reply_to_message_id"):
        if name in theirs:
            _same(name, getattr(ours, name), _text(theirs[name]))
    if "media_urls" in theirs:
        _same("media_urls", list(ours.media_urls), theirs["media_urls"])
    if "channel_context" in theirs:
        _same("context", events.context_text(ours), theirs["channel_context"])
    source = ours.source.to_wire()
    source["platform"] = events.stock_platform(ours.source.platform)
    theirs_source: dict[str, Any] = theirs.get("source", {})
    for name, value in theirs_source.items():
        _same(f"source {name}", source.get(name), _text(value))
    if "source" in theirs:
        unexpected = {
            name
            for name in ("scope_id", "guild_id", "parent_chat_id", "user_id_alt", "chat_id_alt", "profile")
            if source.get(name) is not None and name not in theirs["source"]
        }
        _same("source keys that 0.19.0 does not see", sorted(unexpected), [])
    if "session_key" in theirs:
        _same("session_key", stock_session_key(ours.source), theirs["session_key"])


# Answers of model endpoints.


def check_answer(case: Case) -> None:
    """The kind of an answer, and whether another way of asking may be tried (its detail is ours to word)."""
    answer = Answer(
        status=case["status"],
        transport=_transport(case.get("transport") or ""),
        content_type=(case.get("content_type") or "").partition(";")[0].strip().lower(),
        body=(case.get("body") or "").encode(),
    )
    verdict = classify(Question(answer=answer, subject=case["feature"], rung=case["sent"], word="skep"))
    _same("class", verdict.kind, case["expect"]["class"])
    _same("fallback", verdict.fallback, case["expect"]["fallback"])


def _transport(name: str) -> Transport | None:
    """Return what httpx calls `name`."""
    if not name:
        return None
    if "Timeout" in name:
        return "connect_timeout" if name.startswith("Connect") else "read_timeout"
    return "connection"


# Prose.


def check_behaviour(case: Case) -> None:
    """Measured by hand on the released client: prose."""
    raise NotForUs("prose, held by the integration tests")


GROUPS: Final = (
    Group(key="mint", fields=frozenset({"payload", "secret", "ttl_seconds"}), check=check_mint),
    Group(key="verify", fields=frozenset({"token", "secrets"}), check=check_verify),
    Group(key="delivery_superseded", fields=frozenset({"signature", "keys"}), check=check_delivery),
    Group(key="cases", fields=frozenset({"source", "session_key"}), check=check_session_key),
    Group(key="gateway_session_key", fields=frozenset({"source", "key"}), check=check_stored_key),
    Group(key="cases", fields=frozenset({"in", "dial"}), check=check_urls),
    Group(key="frames", fields=frozenset({"direction", "type"}), check=check_frame),
    Group(key="cases", fields=frozenset({"feature", "sent", "expect"}), check=check_answer),
    Group(key="behaviours", fields=frozenset({"what", "measured"}), check=check_behaviour),
)
"""To run another kind of cases, add a line and its function."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
