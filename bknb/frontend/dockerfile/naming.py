"""How steps are named: ``[linux/arm64 build 2/5] RUN make``."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.args import is_plain
from bknb.frontend.dockerfile.gotext import trim_space, upper
from bknb.frontend.dockerfile.stages import BuildStage
from bknb.frontend.dockerfile.words import Lex
from bknb.platforms import Platform

_NOTHING: Final[Mapping[str, str]] = {}


def step_name(
    stage: BuildStage,
    text: str,
    *,
    on_build: bool = False,
    platform: Platform | None = None,
    env: Mapping[str, str] = _NOTHING,
) -> str:
    """The name of a stage's next step; counts it.

    Args:
        stage: which.
        text: the instruction.
        on_build: it is a trigger of the base.
        platform: given where results are named by platform.
        env: tells what is built for, when that is another platform.
    """
    if not stage.steps_total:
        return text
    shown = ""
    if platform is not None:
        shown = platform.format_all() + _cross(platform, env) + " "
    if stage.shown:
        shown += stage.shown + " "
    stage.steps_done += 1
    width = int(1 + math.log10(stage.steps_total))
    trigger = "ONBUILD " if on_build else ""
    return f"[{shown}{stage.steps_done:>{width}}/{stage.steps_total}] {trigger}{text}"


def _cross(base: Platform, env: Mapping[str, str]) -> str:
    target = _target(env)
    if target is None:
        return ""
    target = replace(
        target, os=target.os or base.os, architecture=target.architecture or base.architecture
    ).normalize()
    if target.os != base.os:
        return "->" + target.format_all()
    if target.architecture == base.architecture:
        return ""
    return f"->{target.architecture}" + (f"/{target.variant}" if target.variant else "")


def _target(env: Mapping[str, str]) -> Platform | None:
    """What the stage's arguments say that it builds for."""
    if "TARGETPLATFORM" in env:
        with contextlib.suppress(ValueError):
            return Platform.parse(env["TARGETPLATFORM"])
    system, machine, variant = (env.get(name) for name in ("TARGETOS", "TARGETARCH", "TARGETVARIANT"))
    if system is machine is variant is None:
        return None
    return Platform(system or "", machine or "", variant or "")


def instruction_name(text: str, lex: Lex, env: Mapping[str, str]) -> str:
    """An instruction with its variables expanded, its word in capitals; as it is where that fails."""
    if not is_plain(text):
        with contextlib.suppress(DockerfileError):
            text = lex.process_word(text, env).text
    word, space, rest = text.partition(" ")
    return upper(word) + space + rest


def summary(document: str) -> str:
    """The first line of a here-document, and whether there is more."""
    lines = trim_space(document).replace("\r\n", "\n").split("\n")
    return lines[0] + ("..." if len(lines) > 1 else "")
