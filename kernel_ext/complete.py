"""What Tab offers inside of a ``%%dockerfile`` cell and on its line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from bknb.options import parser
from kernel_ext.verbs import VERBS

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_INSTRUCTIONS = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "ONBUILD", "RUN", "SHELL",
    "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip
_FLAGS = {
    "RUN": ("--mount=type=", "--network=", "--security="),
    "COPY": ("--from=", "--chown=", "--chmod=", "--link", "--parents", "--exclude="),
    "ADD": ("--chown=", "--chmod=", "--link", "--keep-git-dir=", "--checksum=", "--unpack=", "--exclude="),
    "FROM": ("--platform=",),
    "HEALTHCHECK": ("--interval=", "--timeout=", "--start-period=", "--start-interval=", "--retries="),
}
_MOUNTS = ("bind", "cache", "tmpfs", "secret", "ssh")
_STAGE = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*\S+\s+AS\s+(\S+)", re.IGNORECASE | re.MULTILINE)


def add_matcher(shell: InteractiveShell) -> None:
    """Add the matcher, once."""
    if _matcher not in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.insert(0, _matcher)


def remove_matcher(shell: InteractiveShell) -> None:
    """Take it back."""
    if _matcher in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(_matcher)


@context_matcher()  # type: ignore[untyped-decorator]
def _matcher(context: CompletionContext) -> Any:
    lines = context.full_text.split("\n")
    number = context.cursor_line
    before = lines[number][: context.cursor_position] if number < len(lines) else ""
    if before.lstrip().startswith("%bknb "):
        return _answer(before, lambda word: [verb for verb in VERBS if verb.startswith(word)])
    if number == 0 and re.match(r"\s*%%?dockerfile\s", before):
        words = [
            word
            for action in parser("", cell=True)._actions
            for word in action.option_strings
            if word.startswith("--")
        ]
        return _answer(
            before,
            lambda word: [w for w in words if word.startswith("-") and w.startswith(word)] or _paths(word),
        )
    if number > 0 and lines[0].lstrip().startswith("%%dockerfile"):
        text = "\n".join(lines[1:])
        return _answer(before, lambda word: complete_instruction(before, word, text), suppress=True)
    return {"completions": []}


def complete_instruction(before: str, word: str, text: str) -> list[str]:
    """Completions for the word before the cursor, in a line of a Dockerfile whose whole text is given."""
    if before.strip() == word:
        return [name for name in _INSTRUCTIONS if name.startswith(word.upper())]
    instruction = before.split()[0].upper()
    stages = list(dict.fromkeys(_STAGE.findall(text)))
    if word.startswith("--mount=type="):
        return [
            f"--mount=type={kind}" for kind in _MOUNTS if kind.startswith(word.removeprefix("--mount=type="))
        ]
    if word.startswith("--from="):
        return [f"--from={stage}" for stage in stages if stage.startswith(word.removeprefix("--from="))]
    if word.startswith("-"):
        return [flag for flag in _FLAGS.get(instruction, ()) if flag.startswith(word)]
    if instruction == "FROM":
        return [stage for stage in stages if stage.startswith(word)]
    if instruction in ("COPY", "ADD"):
        return _paths(word)
    if word.startswith("$"):
        names = re.findall(r"^\s*(?:ARG|ENV)\s+([A-Za-z_]\w*)", text, re.IGNORECASE | re.MULTILINE)
        return [f"${name}" for name in dict.fromkeys(names) if name.startswith(word.lstrip("${"))]
    return []


def _answer(before: str, find: Callable[[str], list[str]], *, suppress: bool = False) -> Any:
    word = re.split(r"\s", before)[-1]
    found = find(word)
    return {
        "completions": [SimpleCompletion(text, type="dockerfile") for text in found],
        "suppress": suppress or bool(found),
        "matched_fragment": word,
        "ordered": True,
    }


def _paths(word: str) -> list[str]:
    folder, base = os.path.split(word)
    try:
        with os.scandir(folder or ".") as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError:
        return []
    return [
        os.path.join(folder, name) + ("/" if is_dir else "")
        for name, is_dir in found
        if name.startswith(base) and (base.startswith(".") or not name.startswith("."))
    ]
