"""The table of lengths of a source under one tokenizer and template."""
from vlmjax.data.example import Source
from vlmjax.data.lengths import LengthTable
from vlmjax.data.processor import Processor


def table(source: Source, processor: Processor, objective: str, length: int) -> LengthTable:
    """What the examples of a source cost in the rows of an objective; `length`: places of a caption's row."""
    if objective == "contrastive":
        return processor.measure_captions(source.examples, length)
    return processor.measure(source.examples)
