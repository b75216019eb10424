"""Ask one endpoint and judge what it answers.

Source: secrets and providers, sections B1 and B4. Some endpoints want one field of a request called otherwise, or
left out: that is asked once more, and remembered; it has nothing to do with the ladder of JSON modes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from skep.foundation.clock import Clock
from skep.foundation.redaction import Redactor
from skep.foundation.secret import Secret
from skep.providers.answers import Answer, Rung, Subject
from skep.providers.classify import Case, Verdict, classify
from skep.providers.completion import error_inside
from skep.providers.dialects import Body, Delta, Dialect
from skep.providers.endpoint import Endpoint
from skep.providers.exchange import Event, Exchange, Streamed
from skep.providers.strict_json import NotJsonError, parse_json

__all__ = ["MAX_TOKENS", "Asker", "Reply", "StreamReply"]

MAX_TOKENS: Final = 256
"""Of a short answer; four times as many when it was cut."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Reply:
    """An answer and what it is."""

    answer: Answer
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StreamReply:
    """A streamed answer, read.

    Attributes:
        first_ms: When the first text or thought came; `None` if none did.
        last_ms: When the last event came.
        pieces: Events that brought text or thought.
    """

    answer: Answer
    verdict: Verdict
    text: str = ""
    reasoning: str = ""
    finish: str = ""
    first_ms: int | None = None
    last_ms: int = 0
    pieces: int = 0
    tokens_out: int | None = None


class Asker:
    """Asks the model of one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        dialect: Dialect,
        exchange: Exchange,
        *,
        redactor: Redactor,
        clock: Clock,
        new_word: Callable[[], str],
    ) -> None:
        self.endpoint: Final = endpoint
        self.dialect: Final = dialect
        self.exchange: Final = exchange
        self.redactor: Final = redactor
        self.clock: Final = clock
        self.new_word: Final = new_word
        self._renamed: set[str] = set()

    @property
    def token_field(self) -> str:
        """What the endpoint calls the limit on an answer."""
        return "max_completion_tokens" if "max_tokens" in self._renamed else "max_tokens"

    def question(self, text: str | Sequence[Mapping[str, Any]], *, max_tokens: int = MAX_TOKENS) -> Body:
        """Return the body of a plain question."""
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
        return self.dialect.chat(self.endpoint.model, messages, max_tokens=max_tokens)

    async def ask(
        self,
        body: Body,
        *,
        subject: Subject = "chat",
        rung: Rung = "none",
        word: str = "",
        key: Secret | None = None,
    ) -> Reply:
        """Return the answer to `body`."""
        while True:  # each turn more learns a field, of which there are two
            answer = await self.exchange.post(self.dialect.chat_path, self._adapted(body), key=key)
            verdict = classify(Case(answer=answer, subject=subject, rung=rung, word=word))
            if not self._learns(body, verdict):
                return Reply(answer=answer, verdict=verdict)

    async def ask_in_stream(self, body: Body) -> StreamReply:
        """Return the answer to `body`, event by event."""
        body = self.dialect.stream(body)
        while True:
            streamed = await self.exchange.stream(self.dialect.chat_path, self._adapted(body))
            reply = self._read(streamed)
            if not self._learns(body, reply.verdict):
                return reply

    def _adapted(self, body: Body) -> Body:
        body = dict(body)
        if "max_tokens" in self._renamed and "max_tokens" in body:
            body[self.token_field] = body.pop("max_tokens")
        if "stream_options" in self._renamed:
            body.pop("stream_options", None)
        return body

    def _learns(self, body: Body, verdict: Verdict) -> bool:
        """Return whether the endpoint asks for another form of the same question, and remember it."""
        if (verdict.kind, verdict.detail) != ("other", "bad_request"):
            return False
        wanted = {
            "max_tokens": "max_tokens" in verdict.said and "max_completion_tokens" in verdict.said,
            "stream_options": "stream_options" in verdict.fields or "stream_options" in verdict.said,
        }
        new = {name for name, is_wanted in wanted.items() if is_wanted and name in body} - self._renamed
        self._renamed |= new
        return bool(new)

    def _read(self, streamed: Streamed) -> StreamReply:
        answer = streamed.answer
        if not streamed.events:
            verdict = classify(Case(answer=answer, subject="streaming", rung="none"))
            if verdict.kind == "ok":  # a whole answer, where events were asked for
                verdict = Verdict(kind="content", detail="not_streamed", fallback=False)
            return StreamReply(answer=answer, verdict=verdict)
        deltas: list[tuple[Event, Delta]] = []
        for event in streamed.events:
            if event.data.strip() in self.dialect.end_marks:
                break
            try:
                value = parse_json(event.data)
            except NotJsonError:
                return self._of_deltas(answer, deltas, _malformed())
            if error_inside(value):
                inside = Answer(status=200, content_type="application/json", body=event.data.encode())
                verdict = classify(Case(answer=inside, subject="streaming", rung="none"))
                return self._of_deltas(answer, deltas, verdict)
            deltas.append((event, self.dialect.read_delta(value)))
        if answer.transport is not None:
            verdict = classify(Case(answer=answer, subject="streaming", rung="none"))
        elif streamed.is_broken or answer.is_cut:
            verdict = _malformed()
        else:
            verdict = Verdict(kind="ok", detail="answered", fallback=False)
        return self._of_deltas(answer, deltas, verdict)

    def _of_deltas(self, answer: Answer, deltas: list[tuple[Event, Delta]], verdict: Verdict) -> StreamReply:
        speaking = [event.at_ms for event, delta in deltas if delta.text or delta.reasoning]
        counts = [delta.tokens_out for _, delta in deltas if delta.tokens_out is not None]
        return StreamReply(
            answer=answer,
            verdict=verdict,
            text="".join(delta.text for _, delta in deltas),
            reasoning="".join(delta.reasoning for _, delta in deltas),
            finish=next((delta.finish for _, delta in reversed(deltas) if delta.finish), ""),
            first_ms=speaking[0] if speaking else None,
            last_ms=deltas[-1][0].at_ms if deltas else 0,
            pieces=len(speaking),
            tokens_out=counts[-1] if counts else None,
        )


def _malformed() -> Verdict:
    return Verdict(kind="other", detail="malformed", fallback=False)
