"""How a script ended, as its own exit handlers find it out: in real processes, many at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.support.command import COMMAND
from tests.support.exit_status import BEGIN, in_words, run_all

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

# What ends a script, and whether its exit code is 0.
ENDINGS = {
    "end": ("pass", True),
    "sys.exit()": ("import sys; sys.exit()", True),
    "sys.exit(None)": ("import sys; sys.exit(None)", True),
    "sys.exit(0)": ("import sys; sys.exit(0)", True),
    "sys.exit(False)": ("import sys; sys.exit(False)", True),
    "sys.exit(256)": ("import sys; sys.exit(256)", True),
    "sys.exit((0,))": ("import sys; sys.exit((0,))", True),
    "sys.exit(IntEnum 0)": ("import sys, enum; sys.exit(enum.IntEnum('E', {'A': 0}).A)", True),
    "sys.exit(1)": ("import sys; sys.exit(1)", False),
    "sys.exit(True)": ("import sys; sys.exit(True)", False),
    "sys.exit(-1)": ("import sys; sys.exit(-1)", False),
    "sys.exit(2**70)": ("import sys; sys.exit(2**70)", False),
    "sys.exit(0.0)": ("import sys; sys.exit(0.0)", False),
    "sys.exit('')": ("import sys; sys.exit('')", False),
    "sys.exit(text)": ("import sys; sys.exit('CUDA out of memory')", False),
    "sys.exit((0, 0))": ("import sys; sys.exit((0, 0))", False),
    "sys.exit(exception)": ("import sys; sys.exit(SystemExit(3))", False),
    "exit(1)": ("exit(1)", False),
    "quit(2)": ("quit(2)", False),
    "exit()": ("exit()", True),
    "quit(0)": ("quit(0)", True),
    "argparse": ("import argparse; argparse.ArgumentParser().parse_args(['--what'])", False),
    "argparse help": ("import argparse; argparse.ArgumentParser().parse_args(['-h'])", True),
    "exception": ("1 / 0", False),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", False),
    "asyncio": (
        "import asyncio, sys\nasync def fail():\n    sys.exit(1)\nasyncio.run(fail())",
        False,
    ),
    "signal": (
        "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(0))\nsignal.raise_signal(15)",
        True,
    ),
    "caught": ("import sys\ntry:\n    sys.exit(1)\nexcept SystemExit:\n    pass", True),
    "in a thread": (
        "import sys, threading\nt = threading.Thread(target=sys.exit, args=(1,))\nt.start()",
        True,
    ),
    "caught, then another": (
        "import sys\ntry:\n    sys.exit(1)\nexcept SystemExit:\n    pass\nsys.exit(0)",
        True,
    ),
    "raised again": (
        "import sys\ntry:\n    sys.exit(1)\nexcept SystemExit:\n    print()\n    raise",
        False,
    ),
    "raised again by name": (
        "import sys\ntry:\n    sys.exit(1)\nexcept SystemExit as error:\n    raise error",
        False,
    ),
    "finally": ("import sys\ntry:\n    sys.exit(1)\nfinally:\n    print()", False),
    "finally 0": ("import sys\ntry:\n    sys.exit(0)\nfinally:\n    print()", True),
    "with": (
        "import sys, contextlib\nwith contextlib.ExitStack():\n    sys.exit(1)",
        False,
    ),
    "a help that is caught": (
        (
            "import argparse, contextlib, sys\nwith contextlib.suppress(SystemExit):\n"
            "    argparse.ArgumentParser().parse_args(['-h'])\nsys.exit(4)"
        ),
        False,
    ),
    "one that is caught on the way of another": (
        (
            "import sys\ntry:\n    sys.exit(3)\nfinally:\n    try:\n        sys.exit(0)\n"
            "    except SystemExit:\n        pass"
        ),
        False,
    ),
    "replaced by another": (
        "import sys\ntry:\n    sys.exit(0)\nexcept SystemExit:\n    sys.exit(3)",
        False,
    ),
    "replaced by an exception": ("import sys\ntry:\n    sys.exit(0)\nfinally:\n    1 / 0", False),
    "caught and kept": (
        (
            "import sys\nkept = []\ntry:\n    sys.exit(1)\nexcept SystemExit as error:\n"
            "    kept.append(error)\nsys.exit(0)"
        ),
        True,
    ),
    "printed before, then 0": ("import sys\nsys.last_value = ValueError()\nsys.exit(0)", True),
    "printed before, then an exception": (
        "import sys\nsys.last_value = ValueError()\n1 / 0",
        False,
    ),
    "printed before, then its end": (
        "import sys\nsys.last_value = ValueError()",
        True,
    ),
}

# SystemExit without sys.exit, on the level of the module: the code is there to be read.
OF_THE_MODULE = {
    "raise SystemExit": ("raise SystemExit", True),
    "raise SystemExit()": ("raise SystemExit()", True),
    "raise SystemExit(0)": ("raise SystemExit(0)", True),
    "raise SystemExit(None)": ("raise SystemExit(None)", True),
    "raise SystemExit(1)": ("raise SystemExit(1)", False),
    "raise SystemExit(300)": ("raise SystemExit(300)", False),
    "raise SystemExit(text)": ("raise SystemExit('no data')", False),
    "raise SystemExit(variable 1)": ("code = 1\nraise SystemExit(code)", False),
    "raise SystemExit(variable 0)": ("code = 0\nraise SystemExit(code)", True),
    "raise SystemExit in an if": ("code = 1\nif code: raise SystemExit(2)", False),
    "the constant after another": (
        "import sys\ntry:\n    sys.exit(0)\nexcept SystemExit:\n    raise SystemExit(2)",
        False,
    ),
    "on lines": ("raise SystemExit(\n    'a long text'\n)", False),
    "on lines, 1": ("raise SystemExit(\n    1\n)", False),
    "on lines, 0": ("raise SystemExit(\n    0\n)", True),
    "on lines, none": ("raise SystemExit(\n)", True),
    "on lines, f-string": ("raise SystemExit(\n    f'{main()} gone'\n    ' and away'\n)", False),
    "on lines, in a for": ("for _ in range(2):\n    raise SystemExit(\n        1\n    )", False),
    "on lines, in an if": ("if main:\n    raise SystemExit(\n        1\n    )", False),
    "on lines, in a with": ("with open('w', 'w'):\n    raise SystemExit(\n        1\n    )", False),
    "on lines, in a finally": ("try:\n    pass\nfinally:\n    raise SystemExit(\n  1\n)", False),
    "on lines, from": ("raise SystemExit(\n    1\n) from (\n    None\n)", False),
    "on lines, early": ("early(\n    3\n)", False),
    "on lines, early 0": ("early(\n    0\n)", True),
    "a variable": ("error = SystemExit(3)\nraise error", False),
    "a variable 0": ("error = SystemExit(0)\nraise error", True),
    "str": ("raise SystemExit(str(main()))", False),
    "repr": ("raise SystemExit(\n    repr(main())\n)", False),
    "f-string": ("code = 3\nraise SystemExit(f'{code} ranks are gone')", False),
    "f-string alone": ("code = 0\nraise SystemExit(f'{code}')", False),
    "printed before": ("import sys\nsys.last_value = ValueError()\nraise SystemExit(0)", True),
    "from sys import exit before": ("early(3)", False),
    "from sys import exit before, 0": ("early(0)", True),
    "from sys import exit before, none": ("early()", True),
}

GUESSED = {
    "raise SystemExit(main())": ("raise SystemExit(main())", True),
    "raise SystemExit(main(1))": ("raise SystemExit(int(0))", True),
    "exit(main()) from sys": ("early(main())", True),
    "on lines": ("raise SystemExit(\n    main()\n)", True),
    "on lines, a choice": ("raise SystemExit(\n    0\n    if main\n    else 1\n)", False),
    "on lines, early": ("early(\n    main()\n)", True),
    "a method": (
        "class A:\n    def run(self):\n        return 0\nraise SystemExit(A().run())",
        True,
    ),
    "int(not ok)": ("raise SystemExit(int(not main))", True),
    "a str of its own": ("def str(_):\n    return 0\nraise SystemExit(str(1))", True),
    "raise SystemExit(format)": ("raise SystemExit('{} gone'.format(3))", False),
    "in a function": ("def check():\n    raise SystemExit('no GPU')\ncheck()", False),
    "after a caught one in main": (
        (
            "import sys\ndef go():\n    try:\n        sys.exit(0)\n    except SystemExit:\n"
            "        pass\n    raise SystemExit(3)\ngo()"
        ),
        False,
    ),
    "instead of a caught one in main": (
        (
            "import sys\ndef go():\n    try:\n        sys.exit(0)\n    except SystemExit:\n"
            "        raise SystemExit(3)\ngo()"
        ),
        False,
    ),
    "instead of a caught one, by a variable": (
        (
            "import sys\ndef go():\n    try:\n        sys.exit(0)\n    except SystemExit:\n"
            "        other = SystemExit(3)\n        raise other\ngo()"
        ),
        False,
    ),
    "after a caught and kept one": (
        (
            "import sys\nkept = []\ndef go():\n    try:\n        sys.exit(0)\n"
            "    except SystemExit as error:\n        kept.append(error)\n    raise_in(3)\ngo()"
        ),
        False,
    ),
    "after a caught help": (
        (
            "import argparse, contextlib\ndef go():\n    with contextlib.suppress(SystemExit):\n"
            "        argparse.ArgumentParser().parse_args(['-h'])\n    raise_in(3)\ngo()"
        ),
        False,
    ),
    "0 after a caught one in main": (  # as of any raise in a function
        (
            "import sys\ndef go():\n    try:\n        sys.exit(1)\n    except SystemExit:\n"
            "        pass\n    raise SystemExit(0)\ngo()"
        ),
        False,
    ),
    "in a function, after a caught one": (
        "import sys\ntry:\n    sys.exit(0)\nexcept SystemExit:\n    pass\nraise_in(1)",
        False,
    ),
}

# Runs each of many sources as a script, in a process that it forks: quicker than to start them.
# Each ends by itself, through the interpreter. The name is that of what runs modules.
RUNNER = """
__name__ = "runpy"
import json, os, sys, watched
from otel_dllogger.diagnostics import DIAGNOSTICS
DIAGNOSTICS.warn = lambda _reason, message: print(message, file=sys.stderr)  # a child is silent
cases = json.load(open("cases.json"))
codes = []
for number, source in enumerate(cases):
    child = os.fork()
    if not child:
        sys.argv[:] = ["train.py"]
        for descriptor, kind in ((1, "out"), (2, "err")):
            file = os.open(f"{number}.{kind}", os.O_CREAT | os.O_WRONLY)
            os.dup2(file, descriptor)
        exec(compile(source, "train.py", "exec"), {"__name__": "__main__"})
        break
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    json.dump(codes, open("codes.json", "w"))
"""


IMPORTED_LATE = """
import sys
def main():
    from watched import watch
    watch()
    return 1
sys.exit(main())
"""


def run_forked(
    folder: Path, sources: dict[str, str]
) -> dict[str, subprocess.CompletedProcess[str]]:
    """Run sources as scripts, in forked processes, and give what each said."""
    (folder / "cases.json").write_text(json.dumps(list(sources.values())))
    runner = run_all(folder, {"runner": [sys.executable, "-c", RUNNER]})["runner"]
    assert "" == runner.stderr
    codes = json.loads((folder / "codes.json").read_text())
    said = ((folder / f"{number}.out", folder / f"{number}.err") for number in range(len(codes)))
    return {
        name: subprocess.CompletedProcess([], code, out.read_text(), err.read_text())
        for name, code, (out, err) in zip(sources, codes, said, strict=True)
    }


def test_only_code_0_is_a_clean_end(tmp_path):
    """Whatever ends a script, on its own level and in a function; Python's code is the judge."""
    sources, clean = {}, {}
    for name, (source, is_clean) in ENDINGS.items():
        clean[name] = clean[f"{name} in main"] = is_clean
        sources[name] = BEGIN + source
        within = textwrap.indent(source, "    ")
        sources[f"{name} in main"] = f"{BEGIN}def run():\n{within}\nrun()"
    done = run_forked(tmp_path, sources)
    assert clean == {name: one.returncode == 0 for name, one in done.items()}
    assert in_words(clean) == {name: one.stdout.splitlines()[-1] for name, one in done.items()}
    assert [] == [one.stderr for one in done.values() if "exit code cannot be seen" in one.stderr]


def test_a_system_exit_of_the_module_says_its_code(tmp_path):
    """Where it was raised without sys.exit, in the script's own code."""
    sources = {name: BEGIN + source for name, (source, _) in OF_THE_MODULE.items()}
    done = run_forked(tmp_path, sources)
    clean = {name: is_clean for name, (_, is_clean) in OF_THE_MODULE.items()}
    assert clean == {name: one.returncode == 0 for name, one in done.items()}
    assert in_words(clean) == {name: one.stdout.splitlines()[-1] for name, one in done.items()}
    assert [] == [one.stderr for one in done.values() if "exit code cannot be seen" in one.stderr]


def test_what_is_guessed_is_warned_of(tmp_path):
    """A result of main() is most likely 0, a SystemExit out of a function an error."""
    commands = {
        name: [sys.executable, "-c", BEGIN + source] for name, (source, _) in GUESSED.items()
    }
    commands["imported within main"] = [sys.executable, "-c", IMPORTED_LATE]
    done = run_all(tmp_path, commands)
    clean = {name: is_clean for name, (_, is_clean) in GUESSED.items()}
    clean["imported within main"] = True
    assert in_words(clean) == {name: one.stdout.splitlines()[-1] for name, one in done.items()}
    for name, one in done.items():
        assert 1 == one.stderr.count("exit code cannot be seen"), name
        assert f"the run counts as {'finished' if clean[name] else 'failed'};" in one.stderr


SPAWN = """
import multiprocessing, sys
from watched import ask, watch
def child(what):
    watch()
    if what == "close":
        ask()
    if what == "exit":
        sys.exit(1)
    if what == "raise":
        raise ValueError(what)
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    process = context.Process(target=child, args=(sys.argv[2],))
    process.start(); process.join()
"""


LATE = """
import sys
from watched import watch
def main(code):
    watch()
    return code
def entry(code):
    sys.exit(main(code))
"""


def test_a_backend_that_is_made_within_main(tmp_path):
    """``sys.exit(main())`` looks ``sys.exit`` up before ``main`` makes one."""
    codes = {"0": True, "None": True, "1": False, "'no data'": False}
    sources, clean = {}, {}
    for code, is_clean in codes.items():
        for leave in ("sys.exit(main({}))", "entry({})", "exit(main({}))"):
            name = leave.format(code)
            sources[name], clean[name] = LATE + name, is_clean
    done = run_forked(tmp_path, sources)
    assert clean == {name: one.returncode == 0 for name, one in done.items()}
    assert in_words(clean) == {name: one.stdout.splitlines()[-1] for name, one in done.items()}
    assert [] == [one.stderr for one in done.values() if "exit code cannot be seen" in one.stderr]


def test_however_a_script_is_started(tmp_path):
    """As a file, a module, a package, text, an archive's folder; or under our own command."""
    failing = BEGIN + "import sys\ndef go(code):\n    sys.exit(code)\ngo(int(sys.argv[1]))"
    (tmp_path / "train.py").write_text(failing)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(failing)
    (tmp_path / "spawn.py").write_text(SPAWN)
    (tmp_path / "raise.py").write_text(BEGIN + "raise_in(1)")
    (tmp_path / "raise0.py").write_text(BEGIN + "raise_in(0)")
    (tmp_path / "fail.py").write_text(BEGIN + "1 / 0")
    ours = [*COMMAND, "run", "-q", "--port", "0"]
    commands, clean = {}, {}
    for code in (0, 1):
        for way in (
            ["train.py"],
            ["-m", "train"],
            ["-m", "package"],
            ["package"],
            ["-c", failing],
            [*ours[1:], "-m", "package"],
        ):
            name = f"{' '.join(way)[:60]} {code}"
            commands[name] = [sys.executable, *way, str(code)]
            clean[name] = code == 0
    for name, is_clean in (("raise", False), ("raise0", True), ("fail", False)):
        commands[f"run {name}"] = [*ours, f"{name}.py"]
        clean[f"run {name}"] = is_clean
    for what, is_clean in (("end", True), ("exit", False), ("raise", False)):
        commands[f"spawn {what}"] = [sys.executable, "spawn.py", "spawn", what]
        clean[f"spawn {what}"] = is_clean
        if sys.version_info >= (3, 13):  # else there are no exit handlers in them
            for method in ("fork", "forkserver"):
                commands[f"{method} {what}"] = [sys.executable, "spawn.py", method, what]
                clean[f"{method} {what}"] = is_clean
    commands["fork close"] = [sys.executable, "spawn.py", "fork", "close"]
    clean["fork close"] = True
    done = run_all(tmp_path, commands)
    found = {name: (one.stdout.splitlines() or [one.stderr])[-1] for name, one in done.items()}
    assert in_words(clean) == found
    assert [] == [one.stderr for one in done.values() if "exit code cannot be seen" in one.stderr]


LATE_THREAD = """
import sys, threading
def late():
    threading.main_thread().join()
    ask()
threading.Thread(target=late).start()
sys.exit(1)
"""


def test_close_on_the_way_out(tmp_path):
    """In finally, with, an exit handler of the script's and a thread that outlives it."""
    way_out = {
        "finally 1": ("import sys\ntry:\n    sys.exit(1)\nfinally:\n    ask()", False),
        "finally 0": ("import sys\ntry:\n    sys.exit(0)\nfinally:\n    ask()", True),
        "raise in finally": ("try:\n    raise SystemExit(1)\nfinally:\n    ask()", False),
        "exception": ("try:\n    1 / 0\nfinally:\n    ask()", False),
        "in the middle": ("ask()\nimport sys\nsys.exit(1)", True),
        "exit handler": ("import atexit, sys\natexit.register(ask)\nsys.exit(1)", False),
        "exit handler, end": ("import atexit\natexit.register(ask)", True),
        "exit handler that exits": (
            "import atexit, sys\natexit.register(ask)\natexit.register(sys.exit, 1)",
            True,
        ),
        "a thread at its end": (LATE_THREAD, False),
    }
    begin = "from watched import EXIT_STATUS, ask\nEXIT_STATUS.watch()\n"
    done = run_forked(tmp_path, {name: begin + source for name, (source, _) in way_out.items()})
    expected = in_words({name: is_clean for name, (_, is_clean) in way_out.items()})
    assert expected == {name: one.stdout.strip() for name, one in done.items()}
