"""Items end to end in one row of tokens, equal beginnings once: no padding, and the model's own layers."""
