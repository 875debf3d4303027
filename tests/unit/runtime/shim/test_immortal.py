"""Immortal objects: an interpreter with them continues to work, and one without support is not changed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from runtime.shim.warm.immortal import supported

STORY = textwrap.dedent("""
    import ctypes, gc, json, os, sys
    sys.path.insert(0, sys.argv[1])
    from runtime.shim.warm.immortal import immortalise
    class Thing:
        def __init__(self): self.me = self
    kept = Thing()
    constant = "a text" " of two"
    count = immortalise()
    gc.freeze()
    def references(item): return ctypes.c_uint32.from_address(id(item)).value
    if count:
        for item in (kept, Thing, immortalise, json, constant):
            assert 1 << 31 <= references(item) < 0xFFFFFFFF + (sys.version_info < (3, 14)), item
        others, before = [kept] * 1000, references(kept)
        more = [kept] * 1000
        assert references(kept) == before
        del others, more
    for n in range(2000):
        thing = Thing()
        json.loads(json.dumps({"n": n, "list": [1, 2.5, None, "x" * 50]}))
        kept.__dict__[str(n)] = thing
    kept.__dict__.clear()
    del thing
    assert gc.collect() > 0  # new garbage is still found and freed
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    print(count, flush=True)
    os._exit(0)
""")


def test_the_interpreter_continues_to_work() -> None:
    root = str(Path(__file__).parents[4])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", STORY, root], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) > 1000) == supported()


def test_supported_interpreters() -> None:
    assert not supported() if sys.version_info < (3, 12) else True
