"""skep.secrets.reference, against secrets and providers, sections A2 and A7."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.secrets.problems import SecretError
from skep.secrets.reference import Reference, check_env_name, parse_reference

RIGHT = {
    "/home-platform/providers:OLLAMA_CLOUD_API_KEY": Reference(
        path="/home-platform/providers", key="OLLAMA_CLOUD_API_KEY"
    ),
    "vault!/home-platform/providers:ollama#api_key@3": Reference(
        store="vault", path="/home-platform/providers", key="ollama", field="api_key", version=3
    ),
    "/:K": Reference(path="/", key="K"),
    "/a.b/c_d:k-e.y@12": Reference(path="/a.b/c_d", key="k-e.y", version=12),
}
WRONG = [
    "/a/../b:KEY",
    "a/b:KEY",
    "/a//b:KEY",
    "/a:",
    ":KEY",
    "/a:K E Y",
    "/a:K?Y",
    "/a:K#",
    "/a:#F",
    "/a:K#F#G",
    "/a:%2e",
    "/a:K\n",
    "/a\n:K",
    "/a/:K",
    "//:K",
    "/a",
    "",
    "/./a:K",
    "/a%2fb:K",
    "/a?x=1:K",
    "/a:K@",
    "/a:K@0",
    "/a:K@-1",
    "/a:K@1@2",
    "!/a:K",
    "A!/a:K",
    "b!c!/a:K",
    "/a:1K",
    "/ä:K",
    "/a:" + "K" * 201,
    "/a:K٣",
]


@pytest.mark.parametrize(("text", "reference"), RIGHT.items())
def test_a2_a_reference_is_read_and_written(text: str, reference: Reference) -> None:
    """A reference has one form."""
    assert parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize("text", WRONG)
def test_a7_a_wrong_reference_is_a_usage_fault(text: str) -> None:
    """Nothing is sent for a reference that is not one."""
    with pytest.raises(SecretError) as raised:
        parse_reference(text)

    assert raised.value.exit_code == 2


@given(st.text(alphabet="/:#@!.%aA1_- \n?", max_size=20))
def test_a_reference_that_is_accepted_names_no_other_place(text: str) -> None:
    """Whatever the text: what is accepted has plain segments and comes back as it was written."""
    try:
        reference = parse_reference(text)
    except SecretError:
        return
    assert str(reference) == text
    assert not {"", ".", ".."} & set(reference.segments)
    assert reference.url_key == reference.key


@pytest.mark.parametrize("name", ["lower", "1A", "A-B", "", "A" * 129, "A\n", "É"])
def test_a7_a_wrong_name_of_a_variable(name: str) -> None:
    """Lower case, and what no shell takes, is refused."""
    with pytest.raises(SecretError) as raised:
        check_env_name(name)

    assert raised.value.outcome == "usage"
