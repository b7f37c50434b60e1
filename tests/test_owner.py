"""Kernels tell each other apart, and the living from the dead."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from bknb.owner import Owner


def test_the_living_and_the_dead(tmp_path: Path) -> None:
    """One lives until it is released; then its file goes, unless something belongs to it still."""
    one, two = Owner(tmp_path), Owner(tmp_path)
    assert not one.is_dead(two.token) and not two.is_dead(one.token) and not one.is_dead(one.token)
    one.tidy(set())
    assert not one.is_dead(two.token)
    two.release()
    assert one.is_dead(two.token) and one.is_dead("4711-never")


def test_one_that_begins_while_another_tidies_up_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is seen before it is locked, and removed: it takes another."""
    first = Owner(tmp_path)
    whole, asked = fcntl.flock, []

    def tidied(fd: int, operation: int) -> None:
        asked.append(fd)
        if len(asked) == 1:
            monkeypatch.setattr(fcntl, "flock", whole)
            first.tidy(set())
        whole(fd, operation)

    monkeypatch.setattr(fcntl, "flock", tidied)
    second = Owner(tmp_path)
    assert not first.is_dead(second.token)
    second.release()
    assert first.is_dead(second.token)
    first.release()
    assert not list(tmp_path.iterdir())
