"""vlmjax: trains, ablates and diagnoses vision-language models in JAX, from a laptop CPU to a TPU pod."""

__version__ = "0.1.0"
