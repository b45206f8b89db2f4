"""Where a model lies: a directory, or `hf://org/name[@revision]`, of which a copy is kept by huggingface_hub."""
from etils import epath
import huggingface_hub
from huggingface_hub import errors

from vlmjax.errors import UserError

HUB = "hf://"
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")  # no pickles, no other frameworks


def locate(path: epath.PathLike) -> epath.Path:
    """→ the directory, fetched first if it is on the hub."""
    if not str(path).startswith(HUB):
        return epath.Path(path).expanduser()
    name, _, revision = str(path).removeprefix(HUB).partition("@")
    if name.count("/") != 1:
        raise UserError(f"{path}: is not hf://org/name or hf://org/name@revision")
    try:
        return epath.Path(huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=WANTED))
    except errors.LocalEntryNotFoundError:
        raise UserError(f"{path}: the hub cannot be reached and no copy is kept here; copy the model's directory to this machine and give its path") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from None
    except (OSError, errors.HfHubHTTPError) as error:
        raise UserError(f"{path}: cannot be fetched: {str(error).splitlines()[0]}") from None
