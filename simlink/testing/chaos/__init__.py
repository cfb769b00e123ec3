"""Faults on the way between two ends of any transport over TCP: a proxy on loopback that misbehaves on demand.

How to use it: put it between a client and a server, and break things while they talk::

    from simlink.testing.chaos import FaultProxy

    with FaultProxy("127.0.0.1:7001") as proxy:
        with simlink.queue(f"tcp://{proxy.address}/orders") as orders:  # instead of 127.0.0.1:7001
            orders.send({"id": 1})
            proxy.cut()               # the next data pass in part, then the connection is closed: mid-frame
            proxy.reset()             # every connection ends now, with a reset (RST)
            proxy.stall(10)           # nothing passes for 10 s; nobody is told
            proxy.slice(1, 7)         # from now on in pieces of 1 to 7 bytes
            proxy.throttle(50_000)    # from now on 50,000 bytes a second, each way of each connection
            proxy.lose_replies(10)    # every 10th reply is lost after the work was done
            proxy.silence()           # half-open: what is said is swallowed, connections stay up
            proxy.refuse()            # nobody listens any more: connection refused …
            proxy.accept()            # … until now
            proxy.heal()              # all of the above off
            print(proxy.counts)

Each call returns when it is in force, may come from any thread, and leaves the other faults as they are. Which bytes a
cut takes and how long the pieces are is drawn from ``seed``. A server whose clients come back at an address that it
tells them (Kafka) must tell the proxy's: see ``KafkaBroker(advertised=…)``.
"""

from __future__ import annotations

from simlink.testing.chaos.proxy import Direction, FaultProxy

__all__ = ["Direction", "FaultProxy"]
