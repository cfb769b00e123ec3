"""`verify`: make again what should have come, from the seed, and compare."""

from simlink.verification.oracle import Oracle
from simlink.verification.result import Difference, Verification
from simlink.verification.verifier import Verifier, verify

__all__ = ["Difference", "Oracle", "Verification", "Verifier", "verify"]
