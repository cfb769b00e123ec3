"""Several endpoints behind one channel: balanced, watched, and nothing lost when one dies."""
