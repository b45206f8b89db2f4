"""Makes a golden file of answers and what a benchmark's own program makes of them.

`python -m tests.golden.scorers NAME CHECKOUT` imports the official program from a checkout of its repository (named in NAME.py) and writes NAME.json here; tests read that without it.
"""
import importlib
import json
import pathlib
import subprocess
import sys

name, checkout = sys.argv[1:]
maker = importlib.import_module(f"tests.golden.scorers.{name}")
commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
found = {"made by": f"python -m tests.golden.scorers {name} CHECKOUT", "of": f"{maker.CODE} at {commit[:10]}", **maker.make(pathlib.Path(checkout))}
(pathlib.Path(__file__).parent / f"{name}.json").write_text(json.dumps(found, indent=0, ensure_ascii=False) + "\n")
