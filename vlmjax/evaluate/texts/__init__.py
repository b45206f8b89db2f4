"""Answers as texts: how they are read, and how alike two of them are."""
