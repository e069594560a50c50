from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import measure
from bench.measure import Command, CommandFailed, Watch, checked, run

MIB = 1 << 20
_HOLD = "data = bytearray(%d); data[::4096] = b'x' * len(data[::4096]);"
_READY = "print('ready', flush=True); input()"


def python(script: str) -> Command:
    return Command((sys.executable, "-c", script))


def test_output_code_and_errors_are_kept(tmp_path: Path) -> None:
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    done = run(python(script), tmp_path)
    assert (done.output, done.errors, done.code) == ("out\n", "err\n", 7)
    assert 0 < done.seconds <= done.durable
    with pytest.raises(CommandFailed, match="ended with 7: err"):
        checked(python(script), tmp_path)


def test_stdout_may_go_to_a_file(tmp_path: Path) -> None:
    done = run(Command(("echo", "kept"), stdout=tmp_path / "file"), tmp_path)
    assert done.output == ""
    assert (tmp_path / "file").read_text() == "kept\n"


def test_environment_and_folder(tmp_path: Path) -> None:
    script = "import os; print(os.environ['BENCH_TEST'], os.getcwd())"
    command = Command((sys.executable, "-c", script), {"BENCH_TEST": "yes"}, tmp_path)
    assert checked(command, tmp_path).output == f"yes {tmp_path}\n"


def peak_of(script: str) -> int:
    """What is seen of a process that is looked at when it says that it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        watch = Watch(process.pid)
        watch.start()
        watch.stop()
        process.communicate(b"\n")
    return watch.peak


def test_memory_of_a_process_is_seen() -> None:
    assert 96 * MIB < peak_of(f"{_HOLD % (96 * MIB)} {_READY}") < 300 * MIB


def test_a_command_is_watched_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends once its memory was seen; that is what the run has as its peak."""
    seen = tmp_path / "seen"

    class Telling(Watch):
        def look(self) -> None:
            super().look()
            if self.peak > 96 * MIB:
                seen.touch()

    monkeypatch.setattr(measure, "Watch", Telling)
    monkeypatch.setattr(measure, "_own_peak", lambda usage: 0)
    script = f"import os\n{_HOLD % (96 * MIB)}\nwhile not os.path.exists({str(seen)!r}): pass"
    assert run(python(script), tmp_path).peak > 96 * MIB


def test_memory_is_summed_over_the_tree() -> None:
    child = f"{_HOLD % (64 * MIB)} {_READY}"
    script = (
        "import subprocess, sys, time\n"
        f"child = {child!r}\n"
        "how = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)\n"
        "two = [subprocess.Popen([sys.executable, '-c', child], **how) for _ in range(2)]\n"
        "[one.stdout.readline() for one in two]\n"
        f"{_READY}\n"
        "[one.communicate(b'\\n') for one in two]\n"
    )
    assert peak_of(script) > 128 * MIB


def test_a_short_peak_between_two_looks_is_not_missed() -> None:
    # The high-water mark stays with the process after the memory has been given back.
    assert peak_of(f"{_HOLD % (96 * MIB)} del data; {_READY}") > 96 * MIB


def test_cpu_of_children_counts(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    assert run(python(script), tmp_path).cpu >= 0.2
