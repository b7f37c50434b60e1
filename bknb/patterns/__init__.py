r"""Ignore patterns: `.dockerignore` files, `--exclude`, and the filters of local sources.

The rules are those of moby/patternmatcher (vendor/github.com/moby/patternmatcher in BuildKit), the oddities
with them, since they decide which files enter a build:

- A pattern that matches a folder matches all below it; later patterns win; `!` takes back.
- Without wildcards a pattern is compared as text. With them it becomes a regular expression of Go's
  (`goregex`), and what it does not escape means what it means there: `[^a]` matches a slash, `\d` a digit,
  and `a|b*` is an alternative, whose first half is anchored at the start only and the second at the end only.
- A pattern can be accepted and yet have no regular expression (`C:\x`): the error comes at the first match.

Patterns and paths are `str`; bytes that are not UTF-8 are surrogate escapes, as `os.fsdecode` gives them.
Paths are relative to the context, with slashes, without `./`.
"""

from __future__ import annotations

from bknb.patterns.ignore_file import PatternError, clean_path, read_ignore_file
from bknb.patterns.matcher import MatchInfo, Pattern, PatternMatcher

__all__ = ["MatchInfo", "Pattern", "PatternError", "PatternMatcher", "clean_path", "read_ignore_file"]
