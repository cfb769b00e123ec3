"""Simulated data from a seed, sent between machines over any transport, and proven to have arrived.

The public names are here, and are loaded when they are first used: importing this package loads neither NumPy nor any
client library.
"""

from __future__ import annotations

from importlib import import_module

# Type checkers know the name; importing it from typing would be most of this package's import time.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from simlink import aio as aio
    from simlink import arrivals as arrivals
    from simlink import errors as errors
    from simlink import faults as faults
    from simlink import fields as fields
    from simlink import generators as generators
    from simlink import testing as testing
    from simlink.balancing.balancer import Balancer as Balancer
    from simlink.balancing.consistent_hash import ConsistentHash as ConsistentHash
    from simlink.balancing.least_connections import LeastConnections as LeastConnections
    from simlink.balancing.least_estimated_delay import LeastEstimatedDelay as LeastEstimatedDelay
    from simlink.balancing.member import Member as Member
    from simlink.balancing.peak_ewma import PeakEwma as PeakEwma
    from simlink.balancing.pick import EndpointLoad as EndpointLoad
    from simlink.balancing.pick import Pick as Pick
    from simlink.balancing.pick import Verdict as Verdict
    from simlink.balancing.power_of_two import PowerOfTwoChoices as PowerOfTwoChoices
    from simlink.balancing.round_robin import RoundRobin as RoundRobin
    from simlink.balancing.slow_start import SlowStart as SlowStart
    from simlink.balancing.uniform import Random as Random
    from simlink.balancing.weighted_round_robin import WeightedRoundRobin as WeightedRoundRobin
    from simlink.block import Block as Block
    from simlink.channels.channel import Channel as Channel
    from simlink.channels.channel import queue as queue
    from simlink.channels.channel import topic as topic
    from simlink.channels.driver import Capabilities as Capabilities
    from simlink.channels.driver import Driver as Driver
    from simlink.channels.http.app import asgi_app as asgi_app
    from simlink.channels.pool.endpoint import Endpoint as Endpoint
    from simlink.channels.pool.opening import pool as pool
    from simlink.channels.receipt import Receipt as Receipt
    from simlink.channels.receiver import Receiver as Receiver
    from simlink.errors import AlreadySettled as AlreadySettled
    from simlink.errors import BatchError as BatchError
    from simlink.errors import ChannelClosed as ChannelClosed
    from simlink.errors import CodecError as CodecError
    from simlink.errors import ConfigError as ConfigError
    from simlink.errors import ConnectError as ConnectError
    from simlink.errors import ConnectTimeout as ConnectTimeout
    from simlink.errors import DecodeError as DecodeError
    from simlink.errors import EncodeError as EncodeError
    from simlink.errors import ForkError as ForkError
    from simlink.errors import InvalidURL as InvalidURL
    from simlink.errors import MissingExtra as MissingExtra
    from simlink.errors import NoEndpoints as NoEndpoints
    from simlink.errors import NotSupported as NotSupported
    from simlink.errors import ReceiveError as ReceiveError
    from simlink.errors import ReceiveTimeout as ReceiveTimeout
    from simlink.errors import SendError as SendError
    from simlink.errors import SendTimeout as SendTimeout
    from simlink.errors import SimlinkError as SimlinkError
    from simlink.errors import StateError as StateError
    from simlink.errors import TransportError as TransportError
    from simlink.errors import UnknownScheme as UnknownScheme
    from simlink.generators.combine import concat as concat
    from simlink.generators.combine import cycle as cycle
    from simlink.generators.combine import mix as mix
    from simlink.generators.evolution import evolve as evolve
    from simlink.generators.filtered import where as where
    from simlink.generators.fitting.entry import fit as fit
    from simlink.generators.generator import Generator as Generator
    from simlink.generators.own_types.entry import from_type as from_type
    from simlink.generators.record import record as record
    from simlink.generators.replay.replay import Replay as Replay
    from simlink.generators.replay.replay import replay as replay
    from simlink.health.detector import FailureDetector as FailureDetector
    from simlink.health.empirical import EmpiricalAccrual as EmpiricalAccrual
    from simlink.health.heartbeat import Heartbeat as Heartbeat
    from simlink.health.phi import PhiAccrual as PhiAccrual
    from simlink.ledger import Ledger as Ledger
    from simlink.message import Batch as Batch
    from simlink.message import Delivery as Delivery
    from simlink.message import Message as Message
    from simlink.running.job import Job as Job
    from simlink.running.progress import Progress as Progress
    from simlink.running.report import Report as Report
    from simlink.running.run import run as run
    from simlink.running.run import start as start
    from simlink.running.signals import Interrupted as Interrupted
    from simlink.serializers.json import Json as Json
    from simlink.serializers.protobuf import Protobuf as Protobuf
    from simlink.serializers.raw import Bytes as Bytes
    from simlink.serializers.serializer import Serializer as Serializer
    from simlink.serializers.text import Text as Text
    from simlink.verification import Verification as Verification
    from simlink.verification import verify as verify

__version__ = "0.1.0"

_MODULES = ("aio", "arrivals", "errors", "faults", "fields", "generators", "testing")

_HOMES = {
    "Balancer": "balancing.balancer",
    "ConsistentHash": "balancing.consistent_hash",
    "LeastConnections": "balancing.least_connections",
    "LeastEstimatedDelay": "balancing.least_estimated_delay",
    "Member": "balancing.member",
    "PeakEwma": "balancing.peak_ewma",
    "EndpointLoad": "balancing.pick",
    "Pick": "balancing.pick",
    "Verdict": "balancing.pick",
    "PowerOfTwoChoices": "balancing.power_of_two",
    "RoundRobin": "balancing.round_robin",
    "SlowStart": "balancing.slow_start",
    "Random": "balancing.uniform",
    "WeightedRoundRobin": "balancing.weighted_round_robin",
    "Block": "block",
    "Channel": "channels.channel",
    "pool": "channels.pool.opening",
    "queue": "channels.channel",
    "topic": "channels.channel",
    "Capabilities": "channels.driver",
    "Driver": "channels.driver",
    "asgi_app": "channels.http.app",
    "Endpoint": "channels.pool.endpoint",
    "Receipt": "channels.receipt",
    "Receiver": "channels.receiver",
    "AlreadySettled": "errors",
    "BatchError": "errors",
    "ChannelClosed": "errors",
    "CodecError": "errors",
    "ConfigError": "errors",
    "ConnectError": "errors",
    "ConnectTimeout": "errors",
    "DecodeError": "errors",
    "EncodeError": "errors",
    "ForkError": "errors",
    "InvalidURL": "errors",
    "MissingExtra": "errors",
    "NoEndpoints": "errors",
    "NotSupported": "errors",
    "ReceiveError": "errors",
    "ReceiveTimeout": "errors",
    "SendError": "errors",
    "SendTimeout": "errors",
    "SimlinkError": "errors",
    "StateError": "errors",
    "TransportError": "errors",
    "UnknownScheme": "errors",
    "concat": "generators.combine",
    "cycle": "generators.combine",
    "mix": "generators.combine",
    "evolve": "generators.evolution",
    "where": "generators.filtered",
    "fit": "generators.fitting.entry",
    "Generator": "generators.generator",
    "from_type": "generators.own_types.entry",
    "record": "generators.record",
    "Replay": "generators.replay.replay",
    "replay": "generators.replay.replay",
    "FailureDetector": "health.detector",
    "EmpiricalAccrual": "health.empirical",
    "Heartbeat": "health.heartbeat",
    "PhiAccrual": "health.phi",
    "Ledger": "ledger",
    "Batch": "message",
    "Delivery": "message",
    "Message": "message",
    "Job": "running.job",
    "Progress": "running.progress",
    "Report": "running.report",
    "run": "running.run",
    "start": "running.run",
    "Interrupted": "running.signals",
    "Json": "serializers.json",
    "Protobuf": "serializers.protobuf",
    "Bytes": "serializers.raw",
    "Serializer": "serializers.serializer",
    "Text": "serializers.text",
    "Verification": "verification",
    "verify": "verification",
}

__all__ = sorted([*_MODULES, *_HOMES])  # noqa: PLE0605 – one table, not two that may differ


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"simlink.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'simlink' has no attribute {name!r}")
    value = getattr(import_module(f"simlink.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
