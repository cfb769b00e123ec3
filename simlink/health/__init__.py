"""Who is alive: failure detectors, one per endpoint, and the membership that acts on what they say.

Pure judgement: no thread, no timer, no clock. Every method takes ``now``, in seconds of one monotonic clock, and the
next moment at which there is something to decide can be asked for.
"""
