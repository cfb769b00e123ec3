"""The results as a table, and the page that keeps it."""

from __future__ import annotations

BEGIN = "<!-- made by `make reliability`; do not edit -->"
END = "<!-- end -->"


def cell(result):
    """What stands in a cell: repeats of the bound, and seconds."""
    if result is None:
        return "–"
    if result.unavailable:
        return "not run"
    if result.error:
        return "✗"
    return f"✓ {result.account.repeats:,}/{result.account.bound:,}"


def render(results, transports, faults, seconds):
    """The Markdown table, one line a fault, one column a transport: the longer list goes down."""
    found = {(result.transport, result.fault): result for result in results}
    names = [transport.name for transport in transports]
    lines = [f"| fault | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for fault in faults:
        cells = [cell(found.get((name, fault.name))) for name in names]
        lines.append(f"| {fault.name} | {' | '.join(cells)} |")
    growth = max((result.account.growth for result in results if result.account), default=0)
    total = sum(result.seconds for result in results)
    lines += ["", f"{len(results)} cells in {seconds:,.0f} s ({total:,.0f} s one after the other); "]
    lines[-1] += f"the process that grew most grew by {growth / 2**20:,.0f} MiB."
    return "\n".join(lines)


def seconds_of(results, transports, faults):
    """The same table with seconds in its cells."""
    found = {(result.transport, result.fault): result for result in results}
    names = [transport.name for transport in transports]
    lines = [f"| seconds | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for fault in faults:
        cells = [found.get((name, fault.name)) for name in names]
        lines.append(f"| {fault.name} | {' | '.join('–' if c is None else f'{c.seconds:.0f}' for c in cells)} |")
    return "\n".join(lines)


def write(path, results, seconds):
    """Put the tables between the marks of a page."""
    from tests.faults.faults import FAULTS
    from tests.faults.transports import TRANSPORTS

    text = path.read_text(encoding="utf-8")
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert mark, f"{path} has no line {BEGIN}"
    assert end, f"{path} has no line {END}"
    table = render(results, TRANSPORTS, FAULTS, seconds)
    times = seconds_of(results, TRANSPORTS, FAULTS)
    path.write_text(f"{before}{BEGIN}\n\n{table}\n\n{times}\n\n{END}{after}", encoding="utf-8")
