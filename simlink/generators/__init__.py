"""Records from a seed: fields, generators, arrivals, replay, and what turns any of them into a source of chunks."""
