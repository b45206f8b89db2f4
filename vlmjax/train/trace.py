"""A trace of some steps of a stage, as XProf and TensorBoard's profile page read it: WORKDIR/trace/STAGE."""
import pathlib
import tempfile

import jax
from etils import epath

from vlmjax import files
from vlmjax.train.metrics import LoggingConfig, say

ENDINGS = (".xplane.pb", ".trace.json.gz")  # what the profiler writes of a host, behind the host's name


class Trace:
    """Traces `trace_steps` steps of a stage, `trace_start` steps after the first of this process, or earlier where the stage would end before.

    Each process that traces writes plugins/profile/steps_FIRST_LAST/processN.xplane.pb. It is made on a local disk first, since the directory may be
    in an object store.
    """

    def __init__(self, directory: epath.PathLike, config: LoggingConfig, first: int, total: int):
        steps = min(config.trace_steps, total - first) if config.trace_process in (-1, jax.process_index()) else 0
        begin = min(first + config.trace_start, total - steps)
        self._directory, self._span = epath.Path(directory), range(begin, begin + steps)
        self._local: tempfile.TemporaryDirectory | None = None

    def before(self, number: int, last: jax.Array) -> None:
        """Step `number` is about to be given to the devices; `last`: a result of the one before it."""
        if self._span and number in (self._span.start, self._span.stop):
            jax.block_until_ready(last)  # what came before is not in it, and all of its last step is
            if number == self._span.start:
                self._local = tempfile.TemporaryDirectory(prefix="vlmjax_trace_")
                jax.profiler.start_trace(self._local.name)
            else:
                self._end(keep=True)

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, kind, *_) -> None:
        if self._local is not None:
            self._end(keep=kind is None)

    def _end(self, keep: bool) -> None:
        """Writes the trace; one that an error has cut short is thrown away."""
        local, self._local = self._local, None
        name = f"steps_{self._span.start}_{self._span.stop - 1}"
        with local as root:
            jax.profiler.stop_trace()
            for path in pathlib.Path(root).glob("plugins/profile/*/*") if keep else ():
                if ending := next((ending for ending in ENDINGS if path.name.endswith(ending)), None):
                    files.write(self._directory / "plugins" / "profile" / name / f"process{jax.process_index()}{ending}", path.read_bytes())
        if keep:
            say(f"trace of steps {self._span.start} to {self._span.stop - 1}: xprof --logdir={self._directory}")
