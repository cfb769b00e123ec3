"""How fast do records become bytes, and bytes records? Ours beside the loop that one would write by hand.

    python bench/bench_serialize.py [--rows 131072] [--repeats 7] [--json]

The records are `clickstream`'s, whole and with the four fields of the usual example. Blocks are made beforehand; each
side turns columns into bodies, so `tolist()` is inside the clock for both. All bodies of a pass are kept in memory
until it ends: encoders that look fast when their output is thrown away are not (the allocator). Sides take turns within
each repeat, and the medians are compared. The clock is the process's own CPU time: everything here is one thread that
never waits, and other programs on the machine then do not count.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from simlink.block import Block
from simlink.generators.catalog import clickstream
from simlink.serializers import Json, Protobuf

FOUR = ("user_id", "action", "timestamp", "page_url")
Side = Callable[[Any], list[Any]]


def hand_json(block: Block) -> Side:
    """A Struct with the right fields, and a loop over zipped columns."""
    row = msgspec.defstruct("Row", list(block.schema), gc=False)
    encode = msgspec.json.Encoder().encode

    def side(block: Block) -> list[bytes]:
        return [encode(row(*cells)) for cells in zip(*(c.tolist() for c in block.columns.values()), strict=True)]

    return side


def hand_protobuf(message: Any, block: Block) -> Side:
    """The comprehension ``[M(a=a, b=b, …).SerializeToString() for a, b, … in zip(…)]``."""
    names = list(block.schema)
    cells = ", ".join(f"v{i}" for i in range(len(names)))
    arguments = ", ".join(f"{name}=v{i}" for i, name in enumerate(names))
    source = f"lambda columns: [M({arguments}).SerializeToString() for {cells} in zip(*columns)]"
    loop = eval(source, {"M": message, "zip": zip})

    def side(block: Block) -> list[bytes]:
        return loop([c.tolist() for c in block.columns.values()])

    return side


def hand_protobuf_dicts(message: Any, block: Block) -> Side:
    names = list(block.schema)
    optional = {n for n, t in block.schema.fields.items() if t.optional}
    shown = ", ".join(
        f"{n!r}: m.{n} if m.HasField({n!r}) else None" if n in optional else f"{n!r}: m.{n}" for n in names
    )
    return eval(f"lambda bodies: [{{{shown}}} for m in map(parse, bodies)]", {"parse": message.FromString, "map": map})


def hand_loads(bodies: Sequence[bytes]) -> list[Any]:
    decode = msgspec.json.Decoder().decode
    return [decode(body) for body in bodies]


def one_by_one(dumps: Callable[[Any], bytes]) -> Side:
    return lambda rows: [dumps(row) for row in rows]


def cases(blocks: list[Block]) -> list[tuple[str, str, Side, Side, list[Any]]]:
    """``(what, the floor's name, floor, ours, inputs)``."""
    first = blocks[0]
    plain, derived = Json(), Protobuf(first.schema)
    raw = msgspec.json.Encoder().encode
    rows = [[dict(row) for row in block[0 : len(block)].rows()] for block in blocks]
    jsons = [plain.dumps_many(block) for block in blocks]
    messages = [derived.dumps_many(block) for block in blocks]
    return [
        ("JSON, block → bodies", "Struct loop by hand", hand_json(first), plain.dumps_many, blocks),
        ("JSON, list of dicts → bodies", "encode loop by hand", one_by_one(raw), plain.dumps_many, rows),
        ("JSON, dicts one by one", "encode loop by hand", one_by_one(raw), one_by_one(plain.dumps), rows),
        ("JSON, bodies → dicts", "decode loop by hand", hand_loads, plain.loads_many, jsons),
        (
            "Protobuf, block → bodies",
            "upb loop by hand",
            hand_protobuf(derived.message_class, first),
            derived.dumps_many,
            blocks,
        ),
        (
            "Protobuf, bodies → dicts",
            "upb loop by hand",
            hand_protobuf_dicts(derived.message_class, first),
            derived.loads_many,
            messages,
        ),
    ]


def rate(side: Side, inputs: list[Any]) -> float:
    """Records a second, with everything kept until the clock has stopped."""
    gc.collect()
    started = time.process_time()
    kept = [side(part) for part in inputs]
    seconds = time.process_time() - started
    return sum(map(len, kept)) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=131_072, help="records a pass (rounded up to whole blocks)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()

    whole = clickstream(seed=7)
    results = []
    for name, generator in (("clickstream", whole), ("four fields", whole.select(*FOUR))):
        blocks = list(generator.blocks(0, options.rows))
        for what, floor_name, floor, ours, inputs in cases(blocks):
            assert floor(inputs[0]) == ours(inputs[0]), f"{what}: the two sides do not do the same work"
            floors, rates = [], []
            for _ in range(options.repeats):
                floors.append(rate(floor, inputs))
                rates.append(rate(ours, inputs))
            low, high = statistics.median(floors), statistics.median(rates)
            results.append({"records": name, "what": what, "floor": floor_name, "floor_rate": low, "rate": high})
            if not options.json:
                ours_shown = f"{name:12} {what:30} {high / 1e6:6.2f} M/s"
                print(f"{ours_shown}   {floor_name:20} {low / 1e6:6.2f} M/s   {high / low:5.2f}×", flush=True)
    if options.json:
        print(json.dumps({"python": platform.python_version(), "cpus": os.cpu_count(), "results": results}))


if __name__ == "__main__":
    main()
