"""Channels: one destination at one URL, and the drivers that serve the URLs."""

import logging

# What a library logs is shown by programs that ask for it; without a handler Python would print it to stderr.
logging.getLogger("simlink").addHandler(logging.NullHandler())
