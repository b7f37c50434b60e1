"""The group `shlex`: word and environment -> expansion."""

from __future__ import annotations

from typing import Any

from bknb.frontend.dockerfile.gotext import replace_invalid
from bknb.frontend.dockerfile.words import Lex, Result, WordError


def shlex(request: dict[str, Any]) -> dict[str, Any]:
    """Answers one case."""
    flags = ("raw_quotes", "raw_escapes", "skip_process_quotes", "skip_unset_env")
    lex = Lex(request.get("escape", "\\"), **{name: request.get(name, False) for name in flags})
    env = dict(entry.partition("=")[::2] for entry in request["env"])
    answer: dict[str, Any] = {}
    looked_up: Result | WordError
    try:
        looked_up = lex.process_word(request["word"], env)
        answer["result"] = replace_invalid(looked_up.text)
    except WordError as error:
        looked_up = error
        answer["error"] = error.message
    answer["matched"] = sorted(looked_up.matched)
    answer["unmatched"] = sorted(looked_up.unmatched)
    try:
        answer["words"] = [replace_invalid(word) for word in lex.process_words(request["word"], env)]
    except WordError as error:
        answer["words_error"] = error.message
    return answer
