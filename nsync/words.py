"""Words in prompts: where they stand, and how to write marks in their places."""

import re
from collections.abc import Mapping

_EITHER_SIDE = r"(?<!\w)(?:{})(?!\w)"


def standing_alone(*words: str) -> re.Pattern:
    """Finds any of the words standing by itself, in any case of letters; the longest first."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(_EITHER_SIDE.format("|".join(map(re.escape, longest_first))), re.IGNORECASE)


def contains_word(text: str, word: str) -> bool:
    """Whether the word stands in the text by itself, in any case of letters."""
    return standing_alone(word).search(text) is not None


def spell(text: str, counts: Mapping[str, int], mark: str) -> tuple[str, list[str]]:
    """The text with so many marks in the place of each of the words.

    Returns:
        The text, and the words that were found in it, in their order.
    """
    if not counts:
        return text, []
    names, found = {word.lower(): word for word in counts}, []

    def replaced(match: re.Match) -> str:
        found.append(names[match.group().lower()])
        return " ".join([mark] * counts[found[-1]])

    return standing_alone(*counts).sub(replaced, text), found
