"""The group `ignore`: ignore patterns and paths -> matched or not."""

from __future__ import annotations

from typing import Any

from bknb.patterns import MatchInfo, PatternError, PatternMatcher, read_ignore_file


def ignore(request: dict[str, Any]) -> dict[str, Any]:
    """Answers one case."""
    answer: dict[str, Any] = {}
    patterns = request.get("patterns")
    try:
        if patterns is None:
            answer["patterns"] = patterns = read_ignore_file(request["file"])
        matcher = PatternMatcher.parse(patterns)
    except PatternError as error:
        return {**answer, "error": str(error)}
    answer["exclusions"] = matcher.exclusions
    answer["results"] = {path: _path(matcher, path) for path in request["paths"]}
    return answer


def _path(matcher: PatternMatcher, path: str) -> dict[str, Any]:
    try:
        return {
            "match": matcher.matches(path),
            "walk": _walk(matcher, path),
            "single": matcher.walk(path)[0],
        }
    except PatternError as error:
        return {"error": str(error)}


def _walk(matcher: PatternMatcher, path: str) -> bool:
    parts = path.split("/")
    matched = False
    info: MatchInfo | None = None
    for count in range(len(parts)):
        matched, info = matcher.walk("/".join(parts[: count + 1]), info)
    return matched
