"""Channels: one destination at one URL, and the drivers that serve the URLs."""
