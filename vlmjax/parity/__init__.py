"""Parity: what vlmjax computes from bytes to text, compared stage by stage with transformers."""
