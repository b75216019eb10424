"""skep.foundation.settings, against the control protocol, section 12."""

from __future__ import annotations

from pathlib import Path

import pytest

from skep.foundation.errors import SettingError
from skep.foundation.paths import Home
from skep.foundation.settings import default_home, load, origins, parse_listen


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty installation."""
    return Home(tmp_path)


def test_without_a_file_everything_has_a_default(home: Home) -> None:
    """The first minute needs no file."""
    settings = load(home, env={})

    assert settings.connector.listen == "127.0.0.1:7433"
    assert settings.web.listen == "localhost:7434"
    assert settings.hive.quiet_ms == {"default": 500, "web": 0}


def test_a_flag_beats_the_environment_beats_the_file(home: Home) -> None:
    """The nearest to the person wins."""
    home.config.write_text('[log]\nlevel = "error"\nformat = "json"\n[connector]\nbuffer_days = 3\n')
    settings = load(
        home, env={"SKEP_LOG_LEVEL": "warning", "SKEP_LOG_FORMAT": "text"}, flags={"log.level": "debug"}
    )

    assert (settings.log.level, settings.log.format, settings.connector.buffer_days) == ("debug", "text", 3)
    where = {name: origin for name, _, origin in origins(home, env={"SKEP_LOG_FORMAT": "text"})}
    assert where["log.level"] == "skep.toml:2"
    assert where["log.format"] == "environment SKEP_LOG_FORMAT"
    assert where["connector.listen"] == "default"


def test_a_map_is_merged_with_its_default(home: Home) -> None:
    """Naming one platform keeps what holds for the others."""
    home.config.write_text("[hive]\nquiet_ms = { telegram = 900 }\n")

    assert load(home, env={}).hive.quiet_ms == {"default": 500, "web": 0, "telegram": 900}


REFUSED = {
    "unknown key": ('[web]\nlisten = "a:1"\nlissten = "b"\n', "line 3: no setting `web.lissten`", "`listen`"),
    "unknown section": ("[conector]\n", "line 1: no section `[conector]`", "`connector`"),
    "not TOML": ("[web\n", "is not TOML", "mend"),
    "wrong type": ('[connector]\nbuffer_days = "x"\n', "`connector.buffer_days` (skep.toml:2)", "settings"),
    "wrong choice": ('[log]\nlevel = "loud"\n', "`log.level` (skep.toml:2)", "settings"),
    "not built": (
        '[connector]\nstore = "postgresql://x"\n',
        "`connector.store` cannot be changed yet",
        "remove",
    ),
    "not a section": ("web = 1\n", "`web` is not a section", "[web]"),
}


@pytest.mark.parametrize(("text", "problem", "hint"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_file_says_where_and_what_instead(home: Home, text: str, problem: str, hint: str) -> None:
    """Nothing is guessed: file, line and the nearest name."""
    home.config.write_text(text)
    with pytest.raises(SettingError) as raised:
        load(home, env={})

    assert problem in raised.value.problem
    assert hint in raised.value.hint
    assert raised.value.exit_code == 2


def test_an_unknown_variable_of_a_known_section_is_refused(home: Home) -> None:
    """A typo in the environment is a typo too."""
    with pytest.raises(SettingError) as raised:
        load(home, env={"SKEP_WEB_LISTN": "x"})

    assert "SKEP_WEB_LISTEN" in raised.value.hint


@pytest.mark.parametrize("listen", ["7433", "127.0.0.1", "127.0.0.1:", "h:70000", "h:x"])
def test_an_address_without_host_or_port_is_refused(listen: str) -> None:
    """HOST:PORT, both."""
    with pytest.raises(SettingError):
        parse_listen(listen, "web.listen")


def test_home_is_where_the_environment_says() -> None:
    """SKEP_HOME, else the user's data directory."""
    assert default_home({"SKEP_HOME": "/srv/skep"}).root == Path("/srv/skep")
    assert default_home({"XDG_DATA_HOME": "/data"}).root == Path("/data/skep")
    assert default_home({}).root == Path.home() / ".local/share/skep"
