"""DataFrames in a real JupyterLab: commands are no mathematics."""

from __future__ import annotations

import pytest

from tests.ui.conftest import Lab, Server

pytestmark = pytest.mark.browser

MAKE = """import pandas
from bknb.api.frames import table
plain = pandas.DataFrame({"command": ['RUN name="$name"; sleep 0.3; echo $name'], "size": [3]})
ours = table(plain)"""


def test_a_dollar_sign_is_one(lab: Lab, server: Server) -> None:
    """What pandas' own frame shows as a formula stays a command in ours, and in what is made of it."""
    server.write("frames.ipynb", [MAKE, "ours", 'ours.groupby("command").sum()', "plain"])
    lab.open("frames.ipynb")
    for index in range(4):
        lab.run(index)
    lab.cell(3).locator(".jp-OutputArea-output mjx-container").first.wait_for()  # the page typesets
    for index in (1, 2):
        output = lab.cell(index).locator(".jp-OutputArea-output")
        assert 'RUN name="$name"; sleep 0.3; echo $name' in output.first.inner_text()
        assert output.locator("mjx-container").count() == 0
