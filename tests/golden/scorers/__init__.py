"""Golden files of scorers: answers, and what the benchmarks' own programs make of them."""
import json
import pathlib


def read(name: str) -> dict:
    return json.loads((pathlib.Path(__file__).parent / f"{name}.json").read_text())
