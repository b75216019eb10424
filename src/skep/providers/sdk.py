"""The check `sdk_chat`: the same question through the `openai` library, because agents use it.

Source: secrets and providers, section B1. Its retries are off: with them it hides an endpoint that flaps. It is
given no key: the header is set on the way out, so that nothing of the library holds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from importlib.util import find_spec
from typing import Final, cast

from skep.providers.answers import Answer
from skep.providers.asking import MAX_TOKENS, Asker
from skep.providers.classify import Case, Verdict, classify
from skep.providers.endpoint import Limits
from skep.providers.report import Check, row

__all__ = ["check_sdk_chat"]

_NAME: Final = "sdk_chat"


async def check_sdk_chat(asker: Asker, *, limits: Limits, max_tokens: int = MAX_TOKENS) -> Check:
    """Return the check `sdk_chat`; skipped where the library is not installed, or speaks another protocol."""
    if asker.endpoint.api != "openai":
        return Check(name=_NAME, status="skip", detail="other_protocol")
    if find_spec("openai") is None:
        return Check(name=_NAME, status="skip", detail="not_installed")
    start = asker.clock.monotonic_ms()
    answer, text = await _ask(asker, limits, max_tokens)
    ms = asker.clock.monotonic_ms() - start
    if answer.status == 200:
        verdict = Verdict(kind="ok", detail="answered", fallback=False)
        failed = "" if text.strip() else "empty"
        return row(_NAME, verdict, answer, redactor=asker.redactor, ms=ms, failed=failed)
    verdict = classify(Case(answer=answer, subject="chat", rung="none"))
    return row(_NAME, verdict, answer, redactor=asker.redactor, ms=ms)


async def _ask(asker: Asker, limits: Limits, max_tokens: int) -> tuple[Answer, str]:
    """Return what came, and its text; with status 200 only for a completion."""
    import httpx2
    import openai

    headers = asker.dialect.headers(asker.endpoint.key)

    class Header(httpx2.Auth):
        def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
            request.headers.pop("authorization", None)
            request.headers.update(headers)
            yield request

    class Bounded(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            request.headers["accept-encoding"] = "identity"
            response = await super().handle_async_request(request)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise httpx2.DecodingError("packed")
            stream = cast("AsyncIterator[bytes]", response.stream)
            body = bytearray()
            async for part in stream:
                body += part
                if len(body) > limits.body_bytes:
                    raise httpx2.DecodingError("too long")
            await response.aclose()
            return httpx2.Response(response.status_code, headers=response.headers, content=bytes(body))

    http = httpx2.AsyncClient(
        auth=Header(),
        transport=Bounded(),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(limits.first_byte_s, connect=limits.connect_s),
    )
    client = openai.AsyncOpenAI(
        api_key="given on the way out", base_url=asker.endpoint.base_url, max_retries=0, http_client=http
    )
    answer, text = Answer(status=200), ""
    try:
        async with asyncio.timeout(limits.total_s), client:
            said = await client.chat.completions.create(
                model=asker.endpoint.model,
                messages=[{"role": "user", "content": "Say hello in one short sentence."}],
                extra_body={asker.token_field: max_tokens},
            )
            text = said.choices[0].message.content or ""
    except openai.APIStatusError as exc:
        kind = exc.response.headers.get("content-type", "").partition(";")[0].lower()
        answer = Answer(status=exc.status_code, content_type=kind, body=exc.response.content)
    except openai.APITimeoutError:
        answer = Answer(transport="read_timeout")
    except TimeoutError:
        answer = Answer(transport="total_timeout")
    except openai.APIConnectionError:
        answer = Answer(transport="connection")
    except (openai.OpenAIError, httpx2.HTTPError, ValueError, TypeError, AttributeError, IndexError):
        answer = Answer(is_cut=True)  # what came is no completion
    return answer, text
