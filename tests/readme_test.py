"""What the README says exists, exists."""
import pathlib
import re

from vlmjax.__main__ import COMMANDS

TOP = pathlib.Path(__file__).parent.parent
README = (TOP / "README.md").read_text()


def test_the_tree_is_the_tree():
    tree = README.split("## The house")[1].split("```")[1]
    inside, listed = None, set()
    for line in tree.strip().splitlines():
        name = line.split()[0]
        inside = inside if line.startswith(" ") else name
        path = TOP / (inside + name if line.startswith(" ") else name)
        assert path.exists(), path
        listed.add(name.rstrip("/"))
    rooms = {p.name for p in (TOP / "vlmjax").iterdir() if not p.name.startswith("_")} - {"errors.py", "files.py"}
    assert rooms <= listed


def test_every_command_is_listed_and_no_other():
    assert set(re.findall(r"`vlmjax (\w+)[ `]", README.split("## Commands")[1].split("## ")[0])) == set(COMMANDS)


def test_every_named_file_exists():
    for path in re.findall(r"`((?:vlmjax|tests|experiments|launch)/[\w/.]+)`", README):
        assert (TOP / path).exists(), path
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (TOP / path).exists(), path
