"""The encoded image of a key, from a store that may fail for a moment."""
import time

from vlmjax import files
from vlmjax.data.example import Source
from vlmjax.errors import UserError

# Seconds before a read that failed is tried again: what a store denies for a moment should not become part of a run's record.
RETRIES = (0.1, 1.0)


def image_file(source: Source, key: str) -> bytes:
    """The encoded image. UserError with a reason that can be counted: without the file's name, which stands before a colon. A store that fails is asked again."""
    for pause in (*RETRIES, None):
        try:
            return source.read_image(key)
        except (UserError, OSError) as error:
            if pause is None or isinstance(error, (UserError, FileNotFoundError, PermissionError, IsADirectoryError)):
                raise UserError(files.reason(error).rsplit(": ", 1)[-1]) from None
            time.sleep(pause)
