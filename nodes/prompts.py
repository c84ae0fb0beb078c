"""Prompts as a user writes them."""


def prompt_lines(text: str) -> list[str]:
    """A prompt a line; empty lines are none."""
    return [line for line in map(str.strip, text.splitlines()) if line]
