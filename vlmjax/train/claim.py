"""One run at a time in a directory: who computes there has left its number in a file."""
import json
import os
import pathlib
import socket

from etils import epath

from vlmjax import files
from vlmjax.errors import UserError

FILE = ".running"


def claim(directory: epath.Path) -> None:
    """UserError where another process of this machine computes there. Of another machine nobody here can say whether its run still goes on, and one that was taken away
    must not keep others out; so what it left counts for nothing, and nothing need be removed at the end."""
    held, mine = files.read_json(directory / FILE) or {}, {"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())}
    if held != mine and held.get("host") == mine["host"] and held.get("began") and _began(held.get("pid")) == held["began"]:
        raise UserError(f"{directory}: process {held['pid']} of this machine computes there; wait for it, stop it, or give another --workdir")
    files.write(directory / FILE, json.dumps(mine) + "\n")


def _began(pid: int | None) -> str:
    """When a process began, in ticks since the machine did: numbers are given again. Empty where it is gone, or where the system has no /proc."""
    try:
        state, *facts = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else facts[18]
