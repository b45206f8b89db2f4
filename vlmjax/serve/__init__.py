"""A model behind HTTP, as OpenAI's chat completions, and a page to talk with it."""
