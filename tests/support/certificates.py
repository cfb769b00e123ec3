"""Certificates made on the spot: an authority, a server's, a client's, and the wrong ones."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import trustme

_LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Files:
    """Paths of PEM files."""

    cert: str
    key: str


class Authority:
    """A CA with its file ``ca``, and what it signs."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._authority = trustme.CA(organization_name=name)
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        self.ca = str(self._folder / "ca.pem")
        self._authority.cert_pem.write_to_path(self.ca)

    def issue(self, *names: str, expired: bool = False) -> Files:
        """A certificate for these host names and addresses, and its key."""
        leaf = self._authority.issue_cert(
            *names,
            not_after=_LONG_AGO if expired else None,
            not_before=_LONG_AGO - dt.timedelta(days=30) if expired else None,
        )
        stem = names[0].replace("*", "_") + ("-expired" if expired else "")
        files = Files(str(self._folder / f"{stem}.pem"), str(self._folder / f"{stem}.key"))
        Path(files.cert).write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(files.key)
        return files
