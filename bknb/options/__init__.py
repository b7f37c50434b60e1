"""The options of a build: words in, one frozen `BuildOptions` out.

The cell magic and ``bknb build`` read the same words, those of ``docker buildx build``, with the same parser.
A word that is not understood is one line, with the nearest word that is.
"""

from bknb.options.grammar import CALLS, FORMATS, PROGRESS, parser, words_parser
from bknb.options.model import BuildOptions
from bknb.options.store import prune_parser, usage_parser
from bknb.options.values import Output, size
from bknb.options.words import parse, split, wants_help, with_environment

__all__ = [
    "BuildOptions",
    "CALLS",
    "FORMATS",
    "Output",
    "PROGRESS",
    "parse",
    "parser",
    "prune_parser",
    "size",
    "split",
    "usage_parser",
    "wants_help",
    "with_environment",
    "words_parser",
]
