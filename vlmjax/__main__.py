"""`vlmjax COMMAND …`: finds the command, and turns a mistake of the user into one line and exit status 2."""
import ctypes
import importlib
import os
import sys
import time
import traceback
from typing import Any

from vlmjax.errors import Stopped, UserError, did_you_mean

COMMANDS = {"train": "train a model in stages, or resume", "preflight": "check a run's data before its first step, and show it", "evaluate": "score a model with controls", "diagnose": "where a model fails: what is there, how many, where, small things", "report": "write report.html of a run", "chat": "talk with a model about images",
            "serve": "a model behind HTTP, as OpenAI's API, and a page",
            "ablate": "train every row of a sweep under several seeds, and compare", "plan": "does a run fit on a TPU slice, and what does it cost",
            "data": "build and check data sets", "convert": "write a model as transformers reads it", "parity": "compare with transformers, stage by stage",
            "list": "what exists: encoders, projectors, decoders, tasks, TPU slices"}

WAIT = 3.0  # seconds until an error counts as this process's own


def keep_freed_memory() -> None:
    """Lets glibc keep what XLA frees after each step, instead of returning it and faulting it in again: on a CPU a third of
    a step. Works only before anything has started a thread, so before any import of weight."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # not glibc
    # Two arenas: what the threads that compile leave behind in theirs would make lists of thousands of free blocks that every step searches (a tenth of it), and take
    # pieces of the large ones. No block is a mapping of its own, however large (a threshold has a largest value, and a step's buffers exceed it); nothing is trimmed.
    for option, value in ((-8, 2), (-4, 0), (-1, -1)):  # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD
        mallopt(option, value)


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: vlmjax COMMAND …   (vlmjax COMMAND --help says more)\n" + "\n".join(f"  {name:9} {what}" for name, what in COMMANDS.items()))
        return 0
    try:
        if argv[0] not in COMMANDS:
            raise UserError(f"no command {argv[0]!r}{did_you_mean(argv[0], COMMANDS)}")
        keep_freed_memory()
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        importlib.import_module(f"vlmjax.commands.{argv[0]}").main(argv[1:])
        if job := _with_others():
            job.close()
        return 0
    except UserError as error:
        return _stop(str(error), 2)
    except Stopped as error:
        return _stop(str(error), error.status, everywhere=False)
    except KeyboardInterrupt:
        return _stop("interrupted; the same command resumes", 130)
    except Exception as error:
        if job := _with_others():
            time.sleep(WAIT)  # a collective that fails because another process is gone: then the job says so and ends here
            traceback.print_exc()
            job.fail(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", 1)
        raise


def _with_others() -> Any:
    """The job of this process, where it has others. A command that has not asked for one has none; `plan` wants to be before JAX."""
    job = sys.modules["vlmjax.hosts"].job() if "vlmjax.hosts" in sys.modules else None
    return job if job and job.count > 1 else None


def _stop(text: str, status: int, everywhere: bool = True) -> int:
    """everywhere: the other processes of the job do not know yet that they end, too."""
    if job := _with_others():
        (job.fail if everywhere else job.leave)(text, status)
    print(f"vlmjax: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
