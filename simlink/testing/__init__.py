"""For tests: the conformance suite, real brokers without containers, the pytest plugin."""
