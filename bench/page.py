"""The report as one page: everything in it, nothing loaded from elsewhere, no scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Protocol

from bench.page_style import STYLE
from bench.record import Result
from bench.results import Goal, Outcome
from bench.table import goal_line, limits, table_of

_MARKS = {"reached": "good", "short": "short", "not measured": "none"}
_TITLE = "Backstay, measured"


class Drawn(Protocol):
    """A picture: its title, and an ``svg`` element."""

    @property
    def title(self) -> str:
        """For who cannot see it."""
        ...

    @property
    def inline(self) -> str:
        """The element."""
        ...


def page(result: Result, drawn: Mapping[str, Sequence[Drawn]], lacking: str = "") -> str:
    """HTML; ``drawn`` by scenario; ``lacking`` says why there are no pictures."""
    sections = "".join(_section(one, drawn.get(one.scenario, ())) for one in result.scenarios)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_TITLE}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_TITLE}</h1>\n{_head(result, lacking)}{_contents(result)}{sections}"
        f"{_machine(result)}</main>\n</body>\n</html>\n"
    )


def _head(result: Result, lacking: str) -> str:
    machine = result.machine
    command = escape(" ".join(("bench", *_own(result.command))))
    memory = f"{machine.memory / (1 << 30):.1f} GiB"
    facts = (machine.cpu, f"{machine.cores} cores", memory, machine.file_system, machine.system)
    lines = [
        escape(", ".join(facts)),
        f"{escape(result.began)} · <code>{command}</code>",
    ]
    if machine.missing:
        names = escape(", ".join(machine.missing))
        lines.append(f"<strong>Not installed, left out:</strong> {names}")
    if lacking:
        lines.append(escape(lacking))
    wrong = [line for outcome in result.scenarios for line in outcome.wrong]
    told = f'<p class="wrong">WRONG DATA in {len(wrong)} copies, see below.</p>' if wrong else ""
    return told + "".join(f'<p class="lead">{line}</p>\n' for line in lines)


def _own(command: Sequence[str]) -> Sequence[str]:
    """The arguments without the command's own name."""
    return command[1:] if command[:1] == ("bench",) else command


def _contents(result: Result) -> str:
    """Each scenario with how many of its goals it reached."""
    rows = "".join(
        f'<tr><td class="left"><a href="#{_anchor(one)}">{escape(headed(one.title))}</a></td>'
        f"<td>{_counts(one.goals)}</td></tr>\n"
        for one in result.scenarios
    )
    heads = '<tr><th class="left">scenario</th><th>goals reached</th></tr>'
    return f'<div class="scroll"><table>{heads}\n{rows}</table></div>\n' if rows else ""


def headed(title: str) -> str:
    """As a heading begins."""
    return title[:1].upper() + title[1:]


def _counts(goals: Sequence[Goal]) -> str:
    held = [goal for goal in goals if goal.measured is not None]
    if not held:
        return "not measured" if goals else "–"
    reached = sum(goal.verdict == "reached" for goal in held)
    mark = "good" if reached == len(held) else "short"
    return f'<span class="mark {mark}">{reached} of {len(held)}</span>'


def _section(outcome: Outcome, drawn: Sequence[Drawn]) -> str:
    return (
        f'<section id="{_anchor(outcome)}">\n<h2>{escape(headed(outcome.title))}</h2>\n'
        f"{_table(outcome)}{_goals(outcome.goals)}"
        f"{_lines(limits(outcome), 'limits')}{_lines(outcome.wrong, 'wrong', 'WRONG DATA: ')}"
        f"{_lines(outcome.failed, 'failed', 'did not run: ')}"
        f"{''.join(map(_figure, drawn))}{_lines(outcome.notes, 'notes')}</section>\n"
    )


def _table(outcome: Outcome) -> str:
    found = table_of(outcome)
    if not found.rows:
        return ""
    heads = "".join(f"<th>{escape(heading)}</th>" for heading in found.headings)
    rows = "".join(
        f'<tr class="{row.role}{" leads" if row.leads else ""}">'
        f'<td class="left">{escape(row.subject)}</td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row.cells)
        + "</tr>\n"
        for row in found.rows
    )
    return (
        f'<div class="scroll"><table>\n<tr><th class="left">subject</th>{heads}</tr>\n{rows}'
        "</table></div>\n"
    )


def _goals(goals: Sequence[Goal]) -> str:
    items = "".join(
        f'<li><span class="mark {_MARKS[goal.verdict]}">{goal.verdict}</span> '
        f"{escape(goal_line(goal))}</li>\n"
        for goal in goals
    )
    return f'<ul class="goals">\n{items}</ul>\n' if items else ""


def _lines(lines: Iterable[str], kind: str, before: str = "") -> str:
    items = "".join(f"<li>{before}{escape(line)}</li>\n" for line in lines)
    return f'<ul class="{kind}">\n{items}</ul>\n' if items else ""


def _figure(drawn: Drawn) -> str:
    title = escape(drawn.title)
    labelled = drawn.inline.replace("<svg ", f'<svg aria-label="{title}" ', 1)
    return f"<figure>\n{labelled}\n<figcaption>{title}</figcaption>\n</figure>\n"


def _machine(result: Result) -> str:
    machine = result.machine
    rows = {
        "processor": f"{machine.cpu}, {machine.cores} cores",
        "memory": f"{machine.memory / (1 << 30):.1f} GiB",
        "system": f"{machine.system}, kernel {machine.kernel}",
        "file system of copies": machine.file_system,
        "Python": machine.python,
        "libraries": ", ".join(f"{name} {text}" for name, text in machine.libraries.items()),
        "programs": "; ".join(f"{name}: {text}" for name, text in machine.programs.items()),
        "not installed": ", ".join(machine.missing),
        "load before": " ".join(f"{one:g}" for one in result.load_before),
        "load after": " ".join(f"{one:g}" for one in result.load_after),
        "took": ", ".join(f"{name} {took:.0f} s" for name, took in result.took.items()),
        "source": result.revision or "installed, revision unknown",
    }
    cells = "".join(
        f'<tr><td class="left">{escape(name)}</td><td class="left wide">{escape(text)}</td></tr>\n'
        for name, text in rows.items()
        if text
    )
    return f"<section>\n<h2>The machine</h2>\n<table>\n{cells}</table>\n</section>\n"


def _anchor(outcome: Outcome) -> str:
    return escape(f"scenario-{outcome.scenario}", quote=True)
