"""skep.hive.door.text, against the control protocol, section 4."""

from __future__ import annotations

import pytest

from skep.hive.door.text import MAX_BODY_BYTES, Command, cut_body, read_command, read_mention

COMMANDS = {
    "stop": ("/stop", Command(name="stop")),
    "blanks around": ("  /help \n", Command(name="help")),
    "upper case": ("/WhoAmI", Command(name="whoami")),
    "words after it": ("/agent scribe", Command(name="agent", words="scribe")),
    "addressed to a bot": ("/stop@skep_bot now", Command(name="stop", words="now")),
    "not one of ours": ("/etc/hosts is gone", None),
    "in the middle": ("please /stop", None),
    "empty": ("", None),
}

MENTIONS = {
    "at the start": ("@scribe count this", ("scribe", "count this")),
    "colon": ("@Scribe: count", ("scribe", "count")),
    "alone": ("@scribe", ("scribe", "")),
    "an address": ("@scribe.example is down", None),
    "later": ("tell @scribe", None),
}


@pytest.mark.parametrize(("text", "command"), COMMANDS.values(), ids=COMMANDS.keys())
def test_read_command(text: str, command: Command | None) -> None:
    """A command is the whole message; what we do not know is ordinary text."""
    assert read_command(text) == command


@pytest.mark.parametrize(("text", "mention"), MENTIONS.values(), ids=MENTIONS.keys())
def test_read_mention(text: str, mention: tuple[str, str] | None) -> None:
    """Only a name at the start picks an agent."""
    assert read_mention(text) == mention


def test_a_body_that_fits_is_not_touched() -> None:
    """Exactly 64 KiB is whole."""
    text = "ä" * (MAX_BODY_BYTES // 2)

    assert cut_body(text) == (text, 0)


GRAPHEMES = {
    "ascii": "a",
    "two bytes": "ä",
    "combining mark": "e\u0301",
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "skin tone": "\U0001f44d\U0001f3fd",
    "flag": "\U0001f1e9\U0001f1ea",
    "line end": "\r\n",
    "hangul": "\u1112\u1161\u11ab",
}


@pytest.mark.parametrize("grapheme", GRAPHEMES.values(), ids=GRAPHEMES.keys())
def test_do_05_a_body_is_cut_between_graphemes(grapheme: str) -> None:
    """The cut body fits, ends with the line that says how much is missing, and splits no character."""
    text = grapheme * 40_000 + "x" * MAX_BODY_BYTES

    body, missing = cut_body(text)

    kept, note = body.rsplit("\n[cut: ", 1)
    assert len(body.encode()) <= MAX_BODY_BYTES
    assert note == f"{missing} more bytes]"
    assert len(kept.encode()) + missing == len(text.encode())
    assert kept.removesuffix("x" * kept.count("x")) == grapheme * kept.count(grapheme[0])
