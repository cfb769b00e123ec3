"""Who gets the next batch: pure choice over the endpoints that are eligible now.

A `Balancer` knows no socket, thread or timer: the clock and the random source are given to it, decisions come out. The
pool that does I/O with them lives in channels.
"""
