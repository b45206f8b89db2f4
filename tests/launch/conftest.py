import pathlib
import shutil

import pytest

from tests.launch.cloud import Cloud


@pytest.fixture(scope="session")
def clouds(tmp_path_factory):
    """An empty cloud, and one whose slice `one` is up with the code installed; tests work in copies."""
    empty, there = (tmp_path_factory.mktemp(name) for name in ("empty", "there"))
    Cloud(empty)
    shutil.copytree(empty, there, symlinks=True, dirs_exist_ok=True)
    Cloud(there).run("up", "one")
    (there / "calls.jsonl").write_text("")
    return empty, there


def copy(source: pathlib.Path, to: pathlib.Path):
    shutil.copytree(source, to, symlinks=True, dirs_exist_ok=True)
    cloud = Cloud(to)
    yield cloud
    cloud.end()


@pytest.fixture
def cloud(clouds, tmp_path):
    yield from copy(clouds[0], tmp_path)


@pytest.fixture
def untouched(clouds):
    """An empty cloud that tests share, since they change nothing."""
    cloud = Cloud(clouds[0])
    yield cloud
    assert not cloud.calls() and not cloud.slices() and not (cloud.repo / "runs").exists()


@pytest.fixture
def there(clouds, tmp_path):
    """With the slice `one` up."""
    yield from copy(clouds[1], tmp_path)
