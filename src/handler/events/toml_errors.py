"""Where a file stops being TOML, in our own words: the parser's text may quote the file."""

from __future__ import annotations

import re
import tomllib

from ..errors import SourceError

# The parser has a text and, until Python 3.14, no line of its own.
_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)$")
# Texts of tomllib by their beginning, with what they mostly mean.
_MEANINGS = {
    "Illegal character '\\n'": "the text is not closed",
    "Unterminated string": "the text is not closed",
    "Illegal character": "a control character, which has to be written as an escape",
    "Unescaped": "an unknown escape; text in single quotes keeps its backslashes",
    "Invalid value": "the value is missing, or a text without quotes",
    "Invalid statement": "neither a key, a table nor a comment",
    "Invalid initial character": "the key is missing",
    "Expected '='": "the key has no value",
    "Expected newline": "something follows the value",
    "Expected ']'": "the table's name is not closed",
    "Unclosed": "the list or table is not closed",
    "Cannot overwrite": "the key is there twice",
    "Duplicate": "the key is there twice",
    "Cannot declare": "the table is there twice",
}


def not_toml(file: str, text: str, error: tomllib.TOMLDecodeError) -> SourceError:
    """Return the mistake in ``file``, which holds ``text``, with its line."""
    described = str(error)
    meaning = next((words for start, words in _MEANINGS.items() if described.startswith(start)), "it is not")
    if place := _PLACE.search(described):
        return SourceError(file, int(place[1]), f"expected TOML: {meaning} (column {place[2]})")
    return SourceError(file, len(text.splitlines()), f"expected TOML: {meaning} (found at the end of the file)")
