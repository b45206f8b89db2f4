"""vlmjax: trains, ablates and diagnoses vision-language models in JAX, from a laptop CPU to a TPU pod."""
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`vlmjax.load` (pretrained.py), imported when it is first used: `import vlmjax` alone starts no JAX."""
    if name == "load":
        from vlmjax.pretrained import load
        return load
    raise AttributeError(f"module 'vlmjax' has no attribute {name!r}")
