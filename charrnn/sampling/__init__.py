"""Using a model: from logits to characters, and from a text to its surprise."""
