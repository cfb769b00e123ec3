from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_QUEUE: _ClassVar[Mode]
    MODE_TOPIC: _ClassVar[Mode]

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODE_UNSPECIFIED: _ClassVar[Code]
    CODE_VERSION: _ClassVar[Code]
    CODE_PROTOCOL: _ClassVar[Code]
    CODE_TOO_LARGE: _ClassVar[Code]
    CODE_TIMEOUT: _ClassVar[Code]
    CODE_NO_RECEIVER: _ClassVar[Code]
    CODE_MODE: _ClassVar[Code]
    CODE_CLOSING: _ClassVar[Code]
    CODE_BUSY: _ClassVar[Code]
    CODE_REPLACED: _ClassVar[Code]
    CODE_SECRET: _ClassVar[Code]
MODE_UNSPECIFIED: Mode
MODE_QUEUE: Mode
MODE_TOPIC: Mode
CODE_UNSPECIFIED: Code
CODE_VERSION: Code
CODE_PROTOCOL: Code
CODE_TOO_LARGE: Code
CODE_TIMEOUT: Code
CODE_NO_RECEIVER: Code
CODE_MODE: Code
CODE_CLOSING: Code
CODE_BUSY: Code
CODE_REPLACED: Code
CODE_SECRET: Code

class Frame(_message.Message):
    __slots__ = ("hello", "welcome", "batch", "accept", "settle", "returned", "void", "moved", "heartbeat", "bye", "error", "challenge", "proof", "subscribed")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    VOID_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    welcome: Welcome
    batch: Batch
    accept: Accept
    settle: Settle
    returned: Returned
    void: Void
    moved: Moved
    heartbeat: Heartbeat
    bye: Bye
    error: Error
    challenge: Challenge
    proof: Proof
    subscribed: Subscribed
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping[str, object]]] = ..., welcome: _Optional[_Union[Welcome, _Mapping[str, object]]] = ..., batch: _Optional[_Union[Batch, _Mapping[str, object]]] = ..., accept: _Optional[_Union[Accept, _Mapping[str, object]]] = ..., settle: _Optional[_Union[Settle, _Mapping[str, object]]] = ..., returned: _Optional[_Union[Returned, _Mapping[str, object]]] = ..., void: _Optional[_Union[Void, _Mapping[str, object]]] = ..., moved: _Optional[_Union[Moved, _Mapping[str, object]]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping[str, object]]] = ..., bye: _Optional[_Union[Bye, _Mapping[str, object]]] = ..., error: _Optional[_Union[Error, _Mapping[str, object]]] = ..., challenge: _Optional[_Union[Challenge, _Mapping[str, object]]] = ..., proof: _Optional[_Union[Proof, _Mapping[str, object]]] = ..., subscribed: _Optional[_Union[Subscribed, _Mapping[str, object]]] = ...) -> None: ...

class Runs(_message.Message):
    __slots__ = ("firsts", "counts")
    FIRSTS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    firsts: _containers.RepeatedScalarFieldContainer[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, firsts: _Optional[_Iterable[int]] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("sender", "destination", "mode", "subscription", "incarnation", "low", "next", "heartbeat_ms", "max_frame_bytes", "nonce", "lease_ms")
    SENDER_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    sender: bytes
    destination: str
    mode: Mode
    subscription: str
    incarnation: bytes
    low: int
    next: int
    heartbeat_ms: int
    max_frame_bytes: int
    nonce: bytes
    lease_ms: int
    def __init__(self, sender: _Optional[bytes] = ..., destination: _Optional[str] = ..., mode: _Optional[_Union[Mode, str]] = ..., subscription: _Optional[str] = ..., incarnation: _Optional[bytes] = ..., low: _Optional[int] = ..., next: _Optional[int] = ..., heartbeat_ms: _Optional[int] = ..., max_frame_bytes: _Optional[int] = ..., nonce: _Optional[bytes] = ..., lease_ms: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("incarnation", "accepted", "settled", "settled_runs", "rejected", "returned", "returned_handed", "credit", "credit_bytes", "heartbeat_ms", "max_frame_bytes", "subscriptions", "addressable")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    SETTLED_RUNS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_HANDED_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSABLE_FIELD_NUMBER: _ClassVar[int]
    incarnation: bytes
    accepted: int
    settled: int
    settled_runs: Runs
    rejected: Runs
    returned: Runs
    returned_handed: Runs
    credit: int
    credit_bytes: int
    heartbeat_ms: int
    max_frame_bytes: int
    subscriptions: _containers.RepeatedScalarFieldContainer[str]
    addressable: bool
    def __init__(self, incarnation: _Optional[bytes] = ..., accepted: _Optional[int] = ..., settled: _Optional[int] = ..., settled_runs: _Optional[_Union[Runs, _Mapping[str, object]]] = ..., rejected: _Optional[_Union[Runs, _Mapping[str, object]]] = ..., returned: _Optional[_Union[Runs, _Mapping[str, object]]] = ..., returned_handed: _Optional[_Union[Runs, _Mapping[str, object]]] = ..., credit: _Optional[int] = ..., credit_bytes: _Optional[int] = ..., heartbeat_ms: _Optional[int] = ..., max_frame_bytes: _Optional[int] = ..., subscriptions: _Optional[_Iterable[str]] = ..., addressable: _Optional[bool] = ...) -> None: ...

class Subscribed(_message.Message):
    __slots__ = ("subscriptions",)
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    subscriptions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, subscriptions: _Optional[_Iterable[str]] = ...) -> None: ...

class Challenge(_message.Message):
    __slots__ = ("nonce", "proof")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    proof: bytes
    def __init__(self, nonce: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class Proof(_message.Message):
    __slots__ = ("proof",)
    PROOF_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    def __init__(self, proof: _Optional[bytes] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("position", "low", "bodies", "keys", "keys_present", "content_types", "headers", "producers", "producer_of", "lows", "sequence_firsts", "sequence_counts", "sequences_present", "timestamps", "timestamps_present", "subscriptions")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    BODIES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    KEYS_PRESENT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPES_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    PRODUCERS_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_OF_FIELD_NUMBER: _ClassVar[int]
    LOWS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIRSTS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_PRESENT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_PRESENT_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    position: int
    low: int
    bodies: _containers.RepeatedScalarFieldContainer[bytes]
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    keys_present: bytes
    content_types: _containers.RepeatedScalarFieldContainer[str]
    headers: _containers.RepeatedCompositeFieldContainer[HeaderColumn]
    producers: _containers.RepeatedScalarFieldContainer[bytes]
    producer_of: _containers.RepeatedScalarFieldContainer[int]
    lows: _containers.RepeatedScalarFieldContainer[int]
    sequence_firsts: _containers.RepeatedScalarFieldContainer[int]
    sequence_counts: _containers.RepeatedScalarFieldContainer[int]
    sequences_present: bytes
    timestamps: _containers.RepeatedScalarFieldContainer[int]
    timestamps_present: bytes
    subscriptions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, position: _Optional[int] = ..., low: _Optional[int] = ..., bodies: _Optional[_Iterable[bytes]] = ..., keys: _Optional[_Iterable[bytes]] = ..., keys_present: _Optional[bytes] = ..., content_types: _Optional[_Iterable[str]] = ..., headers: _Optional[_Iterable[_Union[HeaderColumn, _Mapping[str, object]]]] = ..., producers: _Optional[_Iterable[bytes]] = ..., producer_of: _Optional[_Iterable[int]] = ..., lows: _Optional[_Iterable[int]] = ..., sequence_firsts: _Optional[_Iterable[int]] = ..., sequence_counts: _Optional[_Iterable[int]] = ..., sequences_present: _Optional[bytes] = ..., timestamps: _Optional[_Iterable[int]] = ..., timestamps_present: _Optional[bytes] = ..., subscriptions: _Optional[_Iterable[str]] = ...) -> None: ...

class HeaderColumn(_message.Message):
    __slots__ = ("name", "values", "present")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedScalarFieldContainer[str]
    present: bytes
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ..., present: _Optional[bytes] = ...) -> None: ...

class Accept(_message.Message):
    __slots__ = ("below", "credit", "credit_bytes")
    BELOW_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    below: int
    credit: int
    credit_bytes: int
    def __init__(self, below: _Optional[int] = ..., credit: _Optional[int] = ..., credit_bytes: _Optional[int] = ...) -> None: ...

class Settle(_message.Message):
    __slots__ = ("below", "settled", "rejected", "credit", "credit_bytes")
    BELOW_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    below: int
    settled: Runs
    rejected: Runs
    credit: int
    credit_bytes: int
    def __init__(self, below: _Optional[int] = ..., settled: _Optional[_Union[Runs, _Mapping[str, object]]] = ..., rejected: _Optional[_Union[Runs, _Mapping[str, object]]] = ..., credit: _Optional[int] = ..., credit_bytes: _Optional[int] = ...) -> None: ...

class Returned(_message.Message):
    __slots__ = ("fresh", "handed")
    FRESH_FIELD_NUMBER: _ClassVar[int]
    HANDED_FIELD_NUMBER: _ClassVar[int]
    fresh: Runs
    handed: Runs
    def __init__(self, fresh: _Optional[_Union[Runs, _Mapping[str, object]]] = ..., handed: _Optional[_Union[Runs, _Mapping[str, object]]] = ...) -> None: ...

class Void(_message.Message):
    __slots__ = ("first", "count")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Moved(_message.Message):
    __slots__ = ("positions",)
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    positions: Runs
    def __init__(self, positions: _Optional[_Union[Runs, _Mapping[str, object]]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("low",)
    LOW_FIELD_NUMBER: _ClassVar[int]
    low: int
    def __init__(self, low: _Optional[int] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "retryable")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    code: Code
    message: str
    retryable: bool
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., message: _Optional[str] = ..., retryable: _Optional[bool] = ...) -> None: ...
