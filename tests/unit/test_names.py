"""Names that users give become files' names, on every system."""

import pytest

from nsync.errors import InputError
from nsync.names import check_name, cut_to_bytes


@pytest.mark.parametrize(
    "name", ["monet", " two words ", "sd1.5", "console", "com10", "\u6c34" * 60, "x" * 100]
)
def test_a_plain_name_is_taken_without_the_spaces_around_it(name: str) -> None:
    assert check_name(name) == name.strip()


@pytest.mark.parametrize(
    "name",
    ["", "  ", "..", ".hidden", "a/b", "a\\b", "a:b", "end.", "x" * 101, "\u6c34" * 61,
     "CON", "nul", "Aux.v2", "COM1", "lpt9.x"],
)  # fmt: skip
def test_what_some_system_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="`name`: expected a file name of at most 100 characters"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "most", "left"), [("abc", 2, "ab"), ("\u6c34\u6c34", 5, "\u6c34"), ("a", 9, "a")]
)
def test_a_text_is_cut_between_characters(text: str, most: int, left: str) -> None:
    assert cut_to_bytes(text, most) == left
