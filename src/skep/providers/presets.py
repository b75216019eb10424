"""Endpoints that many people use: address, protocol, and the name that their key usually goes by.

Source: secrets and providers, section B1. A preset fills in what was not given; it decides nothing later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["PRESETS", "Api", "Preset"]

Api = Literal["openai", "anthropic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One such endpoint; `key` is `None` where none is asked for."""

    title: str
    base_url: str
    api: Api = "openai"
    key: str | None = None


PRESETS: Final[dict[str, Preset]] = {
    "ollama": Preset(title="Ollama on this machine", base_url="http://127.0.0.1:11434/v1"),
    "ollama-cloud": Preset(
        title="Ollama Cloud", base_url="https://ollama.com/v1", key="env:OLLAMA_CLOUD_API_KEY"
    ),
    "llama.cpp": Preset(title="llama.cpp's server on this machine", base_url="http://127.0.0.1:8080/v1"),
    "openai": Preset(title="OpenAI", base_url="https://api.openai.com/v1", key="env:OPENAI_API_KEY"),
    "anthropic": Preset(
        title="Anthropic",
        base_url="https://api.anthropic.com",
        api="anthropic",
        key="env:ANTHROPIC_API_KEY",
    ),
    "gemini": Preset(
        title="Google Gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key="env:GEMINI_API_KEY",
    ),
    "openrouter": Preset(
        title="OpenRouter", base_url="https://openrouter.ai/api/v1", key="env:OPENROUTER_API_KEY"
    ),
}
