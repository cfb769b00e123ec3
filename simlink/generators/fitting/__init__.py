"""A generator that is like a sample: its marginals, categories, keys, and how they go together."""
