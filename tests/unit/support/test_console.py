"""support.console: the examples of a page are run, and a page that lies fails."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from support.console import run_page

TRUE = """
```console
$ name=bees
$ echo "hello $name"
hello bees
$ printf 'one\\ntwo\\nthree\\n'
one
…
$ for i in 1 2; do
>   echo "number $i of 2"
> done
number … of 2
number 2 of 2
$ echo 'error: no'; false
error: no
```
"""
LIES = {
    "other words": ("```console\n$ echo one\ntwo\n```\n", "printed:\none\ninstead of:\ntwo"),
    "more words": ("```console\n$ echo one; echo two\none\n```\n", "printed:\none\ntwo\ninstead of:\none"),
    "a failure": ("```console\n$ false\n```\n", "ended with 1"),
    "no failure": ("```console\n$ echo 'error: no'\nerror: no\n```\n", "ended with 0"),
}

SERVER = """
trap 'kill $!; echo stopped >> log; exit' INT
echo ready on port 7
sleep 60 & wait
"""


def test_a_true_page_passes(tmp_path: Path) -> None:
    """Commands share a shell, `…` stands for anything, and an error may be shown."""
    page = tmp_path / "page.md"
    page.write_text(TRUE)

    assert run_page(page, folder=tmp_path, environ={}) == 5


@pytest.mark.parametrize(("text", "reason"), LIES.values(), ids=LIES.keys())
def test_a_page_that_lies_fails(text: str, reason: str, tmp_path: Path) -> None:
    """The failure names the line, and what was printed."""
    page = tmp_path / "page.md"
    page.write_text(text)

    with pytest.raises(AssertionError, match=re.escape(reason)) as raised:
        run_page(page, folder=tmp_path, environ={})

    assert str(raised.value).startswith("page.md:1: $ ")


def test_a_command_that_stays_ends_with_the_page(tmp_path: Path) -> None:
    """A server runs while the rest of the page is read, and is then stopped as by Ctrl-C."""
    (tmp_path / "serve").write_text(SERVER)
    page = tmp_path / "page.md"
    page.write_text(
        textwrap.dedent("""\
        ```console stays
        $ bash serve
        ready on port …
        ```

        ```console
        $ echo asked >> log
        ```
        """)
    )

    assert run_page(page, folder=tmp_path, environ={}) == 2
    assert (tmp_path / "log").read_text() == "asked\nstopped\n"
