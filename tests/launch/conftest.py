import shutil

import pytest

from tests.launch.cloud import Cloud


def copy_of(cloud, folder):
    shutil.copytree(cloud.folder, folder, symlinks=True, dirs_exist_ok=True)
    return Cloud(folder, like=cloud)


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    made = Cloud(tmp_path_factory.mktemp("empty"))
    yield made
    made.end()


@pytest.fixture(scope="session")
def up(empty, tmp_path_factory):
    """With the slice `one` up and the code installed."""
    made = copy_of(empty, tmp_path_factory.mktemp("up"))
    made.run("up", "one")
    yield made
    made.end()


@pytest.fixture
def cloud(empty, tmp_path):
    made = copy_of(empty, tmp_path)
    yield made
    made.end()


@pytest.fixture
def there(up, tmp_path):
    """With the slice `one` up."""
    made = copy_of(up, tmp_path)
    yield made
    made.end()


@pytest.fixture
def untouched(empty):
    """An empty cloud that tests share, since they change nothing."""
    yield empty
    assert not empty.calls() and not empty.slices and not (empty.repo / "runs").exists()
