"""The folder that a run leaves: ``result.json``, pictures, ``report.md`` and ``report.html``.

Each file is replaced in one step, so that a run that is cut short leaves whole ones. Files of an
earlier run with the same names are replaced, others are left alone.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from bench import pictures
from bench.markdown import markdown
from bench.page import page
from bench.record import Result, as_text
from stages import durable
from stages.system.files import SystemFiles

RESULT, TEXT, REPORT, PICTURES = "result.json", "report.md", "report.html", "pictures"


def prepare(folder: Path) -> None:
    """Make the folder, and see that files can be put there. Raises ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe{durable.TEMP_MARK}{secrets.token_hex(4)}"
    probe.touch()
    probe.unlink()


def keep(folder: Path, result: Result) -> None:
    """Write the result file alone: after each scenario, for whoever is interrupted."""
    _put(folder / RESULT, as_text(result))


def write(folder: Path, result: Result) -> list[Path]:
    """Write everything; what was written, the report last. Raises ``OSError``."""
    keep(folder, result)
    found, drawn = [folder / RESULT], {}
    for outcome in result.scenarios:
        drawn[outcome.scenario] = pictures.of(outcome)
        for picture in drawn[outcome.scenario]:
            base = folder / PICTURES / f"{outcome.scenario}-{picture.name}"
            base.parent.mkdir(exist_ok=True)
            for suffix, data in ((".svg", picture.svg), (".png", picture.png)):
                found.append(base.with_name(base.name + suffix))
                _put(found[-1], data)
    found.append(folder / TEXT)
    _put(found[-1], markdown(result))
    _put(folder / REPORT, page(result, drawn, pictures.missing()))
    return [*found, folder / REPORT]


def _put(path: Path, data: str | bytes) -> None:
    encoded = data.encode() if isinstance(data, str) else data
    durable.replace(SystemFiles(), str(path.absolute()), encoded, token=secrets.token_hex(8))
