"""Logs: one JSON line (or one line of text on a terminal) per unit of work, on stderr.

Never logged at any level: what people or agents write, tokens, keys, cookies, frame bodies.
Configured once, by `cli`. structlog is imported on first use, so that `skep --help` stays quick.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["LogFormat", "Logger", "configure", "get_logger"]

LogFormat = Literal["auto", "json", "text"]

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_QUIET: Final = ("asyncio", "aiohttp", "httpx", "httpx2", "httpcore", "websockets")


class _State:
    is_configured = False
    is_debug = False


_state: Final = _State()


class Logger:
    """A logger that finds its set-up at its first line; before `configure` it writes nothing."""

    __slots__ = ("_bound", "_facts")

    def __init__(self, facts: dict[str, object]) -> None:
        self._facts = facts
        self._bound: FilteringBoundLogger | None = None

    def debug(self, event: str, **facts: object) -> None:
        """Log what only a developer wants."""
        if _state.is_debug and (logger := self._logger()) is not None:
            logger.debug(event, **facts)

    def info(self, event: str, **facts: object) -> None:
        """Log a unit of work or a change of state."""
        if (logger := self._logger()) is not None:
            logger.info(event, **facts)

    def warning(self, event: str, **facts: object) -> None:
        """Log what gets worse if nobody acts."""
        if (logger := self._logger()) is not None:
            logger.warning(event, **facts)

    def error(self, event: str, *, exc_info: BaseException | None = None, **facts: object) -> None:
        """Log what somebody must act on."""
        if (logger := self._logger()) is not None:
            logger.error(event, exc_info=exc_info, **facts)

    def _logger(self) -> FilteringBoundLogger | None:
        if not _state.is_configured:
            return None
        if self._bound is None:
            import structlog

            self._bound = structlog.get_logger(**self._facts)
        return self._bound


def get_logger(**facts: object) -> Logger:
    """Return a logger that adds `facts` to each line."""
    return Logger(facts)


def configure(*, process: str, level: str = "info", log_format: LogFormat = "auto") -> None:
    """Set up logging for this process, once.

    Args:
        process: Name of the process, a fact of every line.
        level: Lowest level that is written.
        log_format: `json`, `text`, or `auto`: text on a terminal.
    """
    import logging

    import structlog
    from structlog.tracebacks import ExceptionDictTransformer

    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    render: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
        if as_text
        else [
            # The ready-made `dict_tracebacks` prints local variables: what people wrote, and keys.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(stream=sys.stderr, level=LEVELS[level], format="%(levelname)s %(name)s %(message)s")
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(LEVELS[level], logging.WARNING))
    _state.is_configured = True
    _state.is_debug = level == "debug"
