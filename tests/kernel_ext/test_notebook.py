"""What of a notebook's folder is no source."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_ext.notebook import notebook_path, withheld


def test_the_open_notebook_is_withheld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook's path below the context is a pattern, with its special characters taken literally."""
    monkeypatch.chdir(tmp_path)
    path = notebook_path({"JPY_SESSION_NAME": str(tmp_path / "a[1].ipynb")}, {})
    assert withheld(str(tmp_path), path) == ("**/.ipynb_checkpoints", "a\\[1\\].ipynb")


def test_a_notebook_elsewhere_is_not(tmp_path: Path) -> None:
    """Only what lies below the context can be withheld."""
    assert withheld(str(tmp_path / "src"), str(tmp_path / "x.ipynb")) == ("**/.ipynb_checkpoints",)
    assert notebook_path({}, {}) == ""


def test_vs_code_names_it_in_the_namespace(tmp_path: Path) -> None:
    """VS Code's variable comes before the server's."""
    (tmp_path / "n.ipynb").write_text("")
    assert notebook_path(
        {"JPY_SESSION_NAME": "other.ipynb"}, {"__vsc_ipynb_file__": str(tmp_path / "n.ipynb")}
    ) == str(tmp_path / "n.ipynb")
