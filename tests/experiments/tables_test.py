"""Tables that are made of files in this repository say what those files say."""
import pathlib
import re

import pytest

from experiments import tables

PLACES = {"plan": ("launch/README.md", tables.plans), "benchmarks": ("vlmjax/evaluate/README.md", tables.benchmarks), **{name: ("experiments/README.md", lambda name=name: tables.measured(name)) for name in tables.MEASURED}}


@pytest.mark.parametrize("name", PLACES)
def test_a_table_is_what_its_files_give(name, monkeypatch):
    monkeypatch.syspath_prepend(tables.TOP / "experiments")  # as `python experiments/tables.py` finds the benchmarks
    file, make = PLACES[name]
    (written,) = re.findall(rf"<!-- {name}-table:[^>]*-->\n(.*?)\n<!-- /{name}-table -->", (pathlib.Path(tables.TOP) / file).read_text(), re.DOTALL)
    assert written == make()
