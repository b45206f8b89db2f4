"""The house: imports go downwards, rooms on one layer do not know each other, and files stay small."""
import ast
import pathlib

PACKAGE = pathlib.Path(__file__).parent.parent / "vlmjax"

# From the top down. A room may import from any layer below its own.
LAYERS = (("__main__",), ("commands",), ("report", "plan", "ablate", "serve"), ("evaluate", "parity"), ("export",), ("pretrained",), ("bundle",), ("train", "decode"), ("optim", "sharding", "kernels"),
          ("data", "models", "weights", "losses"), ("config", "files", "param_rules", "layout"), ("stacks", "hosts", "sweep"), ("errors", "__init__"))
ALSO = {("weights", "models")}  # name tables speak of the sizes of models
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
LONGEST = 350


def room(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: pathlib.Path):
    """Rooms that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "vlmjax":
                yield parts[1] if len(parts) > 1 and parts[1] in LEVEL else "__init__"


def test_imports_go_downwards():
    wrong = [f"{path.relative_to(PACKAGE)} imports {target}" for path in sorted(PACKAGE.rglob("*.py")) if room(path) != "__init__"
             for target in imported(path) if target != room(path) and (room(path), target) not in ALSO and LEVEL[target] <= LEVEL[room(path)]]
    assert not wrong


def test_every_room_is_on_the_map():
    assert {room(path) for path in PACKAGE.rglob("*.py")} <= set(LEVEL)


def test_no_file_is_long():
    long = {str(path.relative_to(PACKAGE)): lines for path in PACKAGE.rglob("*.py") if (lines := len(path.read_text().splitlines())) > LONGEST}
    assert not long
