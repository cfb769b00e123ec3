"""Places where nobody may be let in, or be trusted: secured receivers and brokers, and what must be refused there.

Every secret has the word `HIDDEN` in it, so that one look finds it wherever it was written.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
import uuid
from pathlib import Path
from urllib.parse import urlencode

from simlink.testing.brokers import Certificates
from simlink.testing.brokers.ports import free_ports
from tests.faults.places import TLS, Place, Wrong
from tests.support.certificates import Authority

HIDDEN = "hidden"
RIGHT = f"{HIDDEN}-right-for-everybody"
WRONG = f"{HIDDEN}-wrong-for-everybody"
USER = "ann"

LOCAL = "127.0.0.1"
EXPIRED = r"its certificate has expired$"
MISNAMED = r"its certificate is for another name than the one it was called by$"


class Papers:
    """An authority and what it has signed."""

    def __init__(self, folder):
        authority = Authority(folder)
        self.ca = authority.ca
        self.good = authority.issue(LOCAL)
        self.expired = authority.issue(LOCAL, expired=True)
        self.misnamed = authority.issue("other.example")


_lock = threading.Lock()
_made = []


def papers():
    """One set for all cells, for as long as the process lives."""
    with _lock:
        if not _made:
            folder = tempfile.TemporaryDirectory(prefix="simlink-papers-")
            _made.extend((Papers(Path(folder.name)), folder))
        return _made[0]


def guarded():
    """What a broker is started with: TLS, and one user."""
    good = papers().good
    return {"tls": Certificates(good.cert, good.key), "user": USER, "password": RIGHT}


class Door:
    """A server that shows a certificate and hears whether anybody goes on behind it."""

    def __init__(self, files):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files.cert, files.key)
        self._listener = socket.create_server((LOCAL, 0))
        self.port = self._listener.getsockname()[1]
        self.knocks = 0
        self.entered = 0
        self._thread = threading.Thread(target=self._serve, name="fault-door")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.knocks += 1
            # Who trusts the certificate ends the handshake; who does not, breaks it off.
            with contextlib.suppress(OSError), sock:
                sock.settimeout(5.0)
                self._context.wrap_socket(sock, server_side=True).close()
                self.entered += 1


def _with(url, **params):
    return f"{url}{'&' if '?' in url else '?'}{urlencode(params)}"


@contextlib.contextmanager
def listening(transport, needs):
    """Without a broker: the receiver asks for `transport.secret`, and shows a certificate where it has one."""
    signed = TLS in needs or not transport.bare
    scheme = f"{transport.scheme}s" if signed else transport.scheme
    name = f"fault-{uuid.uuid4().hex[:12]}"

    def at(port, files=None, secret=RIGHT):
        params = {transport.secret: secret}
        if signed:
            params |= {"cert": files.cert, "key": files.key} if files else {"ca": papers().ca}
        return _with(f"{scheme}://{LOCAL}:{port}/{name}{transport.params}", **params)

    good, old, other = free_ports(3)
    wrong = [Wrong("wrong secret", at(good, secret=WRONG), transport.denied)]
    others = []
    if TLS in needs:
        wrong += [Wrong("expired certificate", at(old), EXPIRED), Wrong("another's name", at(other), MISNAMED)]
        others = [at(old, papers().expired), at(other, papers().misnamed)]
    files = papers().good if signed else None
    yield Place(at(good), at(good, files), direct_url=at(good), others=tuple(others), wrong=tuple(wrong))


@contextlib.contextmanager
def brokered(transport, needs):
    """A broker with one user and a certificate. It has only one, so an expired one is shown at a door beside it."""
    broker = transport.guarded.start()
    name = f"fault-{uuid.uuid4().hex[:12]}"
    scheme, plus, client = transport.scheme.partition("+")

    def at(host=LOCAL, port=broker.port, password=RIGHT):
        # Kafka's client stands behind the scheme: kafkas+python.
        url = f"{scheme}s{plus}{client}://{USER}:{password}@{host}:{port}/{name}{transport.params}"
        return _with(url, ca=papers().ca)

    with contextlib.ExitStack() as stack:
        place = Place(at(), at(), None, broker, at(), joins=True)
        if TLS in needs:
            place.door = stack.enter_context(Door(papers().expired))
            place.wrong = (
                Wrong("expired certificate", at(port=place.door.port), EXPIRED),
                Wrong("another's name", at(host="localhost"), MISNAMED),
            )
        else:
            place.wrong = (Wrong("wrong password", at(password=WRONG), transport.denied),)
        yield place
