"""Moved functions behave as before: closures, generators, exceptions and their line numbers."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from runtime.shim.warm.immortal import supported

STORY = textwrap.dedent("""
    import ctypes, os, sys, traceback
    sys.path.insert(0, sys.argv[1])
    from runtime.shim.warm.immortal import immortalise
    from runtime.shim.warm.packing import fill_gaps, pack, snapshot

    def tiny(n): return n + 1
    def outer(start):
        total = start
        def inner(step=2):
            nonlocal total
            total += step
            return total
        return inner
    def numbers(limit):
        for n in range(limit):
            got = yield n if n % 2 else -n
            if got:
                return
    def careful(value):
        try:
            with open("/dev/null") as file:
                return [int(value), file.closed]
        except ValueError as error:
            raise KeyError(value) from error
        finally:
            tiny(1)
    def never(): return "never"
    class Thing:
        __slots__ = ("n",)
        def __init__(self, n=7, *rest, key=None): self.n = n
        @property
        def double(self): return self.n * 2
        def __repr__(self): return f"Thing({super().__repr__()[:1]}{self.n})"

    def story():
        said = [tiny(1), list(numbers(6)), careful("5"), Thing(3).double, repr(Thing())]
        inner = outer(10)
        said += [inner(), inner(5)]
        try:
            careful("x")
        except KeyError as error:
            said.append([(f.name, f.lineno) for f in traceback.extract_tb(error.__traceback__)][1:])
            said.append(type(error.__cause__).__name__)
        return said

    functions = [tiny, outer, numbers, careful, Thing.__init__, Thing.__repr__, story]
    old, still = [f.__code__ for f in functions], never.__code__
    before = snapshot()
    first = [story() for _ in range(8)]
    assert pack(before, but={never, story}) >= {*functions} - {story}
    assert story.__code__ is old[-1]
    assert story in pack(before)
    assert not any(f.__code__ is code for f, code in zip(functions, old))
    assert never.__code__ is still
    assert all(sys.getsizeof(f.__code__) > 512 for f in functions)
    assert [story() for _ in range(200)] == first[:1] * 200, story()
    immortalise()
    fill_gaps()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if story() == first[0] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    spread = {id(f.__code__) // 4096 for f in functions}
    assert max(spread) - min(spread) < 512, sorted(spread)  # with what else ran between them
    print("fine", flush=True)
    os._exit(0)
""")


@pytest.mark.skipif(not supported(), reason="immortal objects came with Python 3.12")
def test_moved_functions_behave_as_before() -> None:
    root = str(Path(__file__).parents[4])
    command = [sys.executable, "-I", "-S", "-c", STORY, root]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
