# SPDX-License-Identifier: MIT
"""Medians of the rounds, their spread and ratios, and the tables of them."""

import statistics

import workloads


def summary(measured):
    """{workload: {peer: {"rounds": [...], column: {"median", "low", "high", ratios}}}}.

    The ratios: "to_none" and "to_best", the best of the rivals in that column.
    """
    result = {}
    for workload in workloads.ALL:
        peers = {
            name: rounds
            for name, rounds in measured.get(workload.name, {}).items()
            if rounds["rounds"]
        }
        rows = {name: _medians(workload, rounds) for name, rounds in peers.items()}
        for column in workload.columns:
            if column.better:
                _add_ratios(rows, column, {name for name in rows if peers[name]["is_rival"]})
        if rows:
            result[workload.name] = rows
    return result


def _medians(workload, measured):
    row = {"rounds": measured["rounds"]}
    for column in workload.columns:
        values = [figures[column.key] for figures in measured["rounds"] if column.key in figures]
        if column.key == "calls" and measured.get("calls"):
            values = [measured["calls"]["total"]]
            row["calls by name"] = measured["calls"]
        if values:
            row[column.key] = {
                "median": statistics.median(values),
                "low": min(values),
                "high": max(values),
            }
    return row


def _add_ratios(rows, column, rivals):
    medians = {name: row[column.key]["median"] for name, row in rows.items() if column.key in row}
    of_rivals = [median for name, median in medians.items() if name in rivals]
    best = (max if column.better > 0 else min)(of_rivals) if of_rivals else None
    for name, median in medians.items():
        if best:
            rows[name][column.key]["to_best"] = median / best
        if medians.get("none") and name != "none":
            rows[name][column.key]["to_none"] = median / medians["none"]


def _cell(figure, column):
    if figure is None:
        return "-"
    text = f"{figure['median']:.{column.digits}f}"
    spread = figure["high"] - figure["low"]
    if column.better and spread and figure["median"]:
        text += f" ±{abs(50 * spread / figure['median']):.0f}%"
    ratios = [f"{figure[key]:.2f}" if key in figure else "-" for key in ("to_none", "to_best")]
    if column.better and ratios != ["-", "-"]:
        text += f" ({'; '.join(ratios)})"
    return text


def _table(workload, rows):
    columns = [c for c in workload.columns if any(c.key in row for row in rows.values())]
    yield f"\n## {workload.name}: {workload.title}\n"
    if workload.remark:
        yield workload.remark + "\n"
    yield "| peer | " + " | ".join(c.title for c in columns) + " | rounds |"
    yield "|---|" + "---:|" * (len(columns) + 1)
    for name, row in rows.items():
        cells = [_cell(row.get(c.key), c) for c in columns]
        yield f"| {name} | " + " | ".join(cells) + f" | {len(row['rounds'])} |"


def _calls(workload, rows):
    lines = []
    for name, row in rows.items():
        counted = sorted(row.get("calls by name", {}).items(), key=lambda item: -item[1])
        words = [f"{call} {n:.2f}" for call, n in counted if n >= 0.005 and call != "total"]
        if words:
            lines.append(f"- {name}: {', '.join(words)}")
    if lines:
        yield f"\nSystem calls, {workload.name}:\n"
        yield from lines


def markdown(machine, notes, result):
    """All of it as one text."""
    lines = ["# TCP proxies side by side\n"]
    lines += [f"- {name}: {fact}" for name, fact in machine.items()]
    lines += [
        "",
        "Medians ± half of the range, over all rounds; in brackets the ratio to no proxy, and to",
        "the best of the other proxies in that column. A proxy's time is that of its own",
        "processes. Compare within one run alone.",
    ]
    for workload in workloads.ALL:
        if workload.name in result:
            lines += _table(workload, result[workload.name])
            lines += _calls(workload, result[workload.name])
    if notes:
        lines += ["\n## Left out\n", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"
