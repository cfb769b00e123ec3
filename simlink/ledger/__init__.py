"""The accounts of a receiving end: what came, what came twice, what came out of order, what is missing."""

from __future__ import annotations

from simlink.ledger.accounts import Account, Ledger
from simlink.ledger.latency import Latencies
from simlink.ledger.rows import RowSet

__all__ = ["Account", "Latencies", "Ledger", "RowSet"]
