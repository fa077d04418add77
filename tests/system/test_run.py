"""``otel-dllogger run``: scripts written for dllogger, unchanged, in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otel_dllogger.identity import host_name
from tests.support.command import COMMAND, TIMEOUT_S, assert_user_error, environment, otel_dllogger

NOT_OF_THIS_MACHINE = "192.0.2.1"  # RFC 5737: for documentation

# What a script may do to see its own page: ask the kernel for the ports it listens on.
SCRAPE = """
import json, pathlib, urllib.request

def scrape(rank=0, folder="discovery"):
    path, = pathlib.Path(folder).glob(f"dllogger_*_{rank}_*.json")
    address = json.loads(path.read_text())[0]["targets"][0]
    page = urllib.request.urlopen(f"http://{address}/metrics", timeout=20).read().decode()
    return [line for line in page.splitlines() if line.startswith("dl_")]
"""


@pytest.fixture
def run(tmp_path):
    """Write a script and run it in its folder, with a discovery folder and any free port."""
    (tmp_path / "scrape.py").write_text(SCRAPE)

    def run(source, *arguments, options=(), name="train.py", **variables):
        (tmp_path / name).write_text(source)
        settings = ("--port", "0", "--discovery-dir", "discovery", "-q", *options)
        return otel_dllogger("run", *settings, name, *arguments, cwd=tmp_path, **variables)

    return run


def assert_ok(done):
    """Check that a script came to its end, and give what it printed."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


LOG_AND_SCRAPE = """
from scrape import scrape
{imports}
{init}
{log}
print(*scrape(), sep="\\n")
"""


@pytest.mark.parametrize(
    ("imports", "init", "log"),
    [
        ("import dllogger", "dllogger.init([])", "dllogger.log((0, 1), {'loss': 0.5})"),
        (
            (
                "import dllogger as DLLogger\n"
                "from dllogger import StdOutBackend, JSONStreamBackend, Verbosity"
            ),
            (
                "DLLogger.init(backends=[StdOutBackend(Verbosity.VERBOSE), "
                "JSONStreamBackend(Verbosity.VERBOSE, 'log.json')])"
            ),
            "DLLogger.GLOBAL_LOGGER.log(step=(0, 1), data={'loss': 0.5})",
        ),
        (
            "from dllogger.logger import Logger, StdOutBackend",
            "logger = Logger([StdOutBackend(0)])",
            "logger.log((0, 1), {'loss': 0.5})",
        ),
        (
            "import dllogger.logger as L",
            "logger = L.Logger([L.JSONStreamBackend(1, 'log.json')])",
            "logger.log((0, 1), {'loss': 0.5}, 2)",
        ),
        (
            "import tcap_dllogger\nfrom tcap_dllogger import Logger, StdOutBackend, Verbosity",
            "logger = Logger([StdOutBackend(Verbosity.DEFAULT)])",
            "logger.info('start'); logger.log(step=(0, 1), data={'rank': '0', 'loss': '0.5'})",
        ),
        (
            "from dllogger import *",
            "init([])",
            "metadata('loss', {'unit': None}); log((0, 1), {'loss': 0.5}); flush()",
        ),
    ],
    ids=["empty", "nvidia", "submodule", "submodule-as", "tcap", "star"],
)
def test_a_script_is_watched_however_it_imports_dllogger(run, imports, init, log):
    """Whatever a script initialises, its values are on the page."""
    script = LOG_AND_SCRAPE.format(imports=imports, init=init, log=log)
    series = assert_ok(run(script, options=["--run", "r1"])).splitlines()[-1]
    assert (
        series == 'dl_loss{granularity="iteration",kind="loss",metric="loss",rank="0",run="r1"} 0.5'
    )


def test_the_real_dllogger_is_hidden(run, tmp_path):
    """Where NVIDIA's own package is installed, the script gets this one nevertheless."""
    real = tmp_path / "site" / "dllogger"
    real.mkdir(parents=True)
    (real / "__init__.py").write_text("raise SystemExit('the real one')")
    out = assert_ok(run("import dllogger; print(dllogger.__name__)", PYTHONPATH=str(real.parent)))
    assert out == "otel_dllogger\n"


RANK = """
import os
import dllogger
from scrape import scrape
rank = int(os.environ["RANK"])
dllogger.init([dllogger.JSONStreamBackend(1, "log.json")] if rank == 0 else [])
dllogger.log((3,), {"val.loss": rank + 0.5})
print(*scrape(rank), sep="\\n")
"""


def test_ranks_that_initialise_nothing_are_watched_too(run):
    """Every rank that a launcher starts has its page, where only rank 0 writes a log."""
    for rank in range(2):
        out = run(
            RANK,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="2",
            TORCHELASTIC_RUN_ID="job7",
        )
        expected = (
            f'dl_loss{{granularity="epoch",kind="loss",metric="val.loss",rank="{rank}",run="job7",'
            f'stage="val"}} {rank}.5\n'
        )
        assert expected == assert_ok(out)


def test_ranks_count_their_ports_up_and_say_where_they_are(tmp_path):
    """Rank 1 serves on the next port, and prints its address."""
    (tmp_path / "train.py").write_text("import dllogger")
    for rank, port in ((0, 23471), (1, 23472)):
        done = otel_dllogger(
            "run", "--port", "23471", "--run", "r1", "train.py",
            cwd=tmp_path, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
            OTEL_DLLOGGER_DISCOVERY_DIR="none",
        )  # fmt: skip
        line = f"otel-dllogger: metrics of rank {rank}, run r1: http://127.0.0.1:{port}/metrics\n"
        assert (0, line) == (done.returncode, done.stderr)


ABOUT_ITSELF = """
import sys
print([__name__, __file__, __package__, __spec__ and __spec__.name, sys.argv, sys.path[0]])
print(sys.modules["__main__"].__dict__ is globals())
"""


@pytest.mark.parametrize("name", [["about.py"], ["link/about.py"], ["-m", "sub.about"]])
def test_a_script_sees_what_python_would_show_it(tmp_path, name):
    """Names, arguments and paths are those of ``python SCRIPT`` and ``python -m MODULE``."""
    arguments = ["--port", "3", "--help", "-m", "--", "x y"]
    (tmp_path / "about.py").write_text(ABOUT_ITSELF)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "about.py").write_text(ABOUT_ITSELF)
    (tmp_path / "link").symlink_to("sub")
    python = [sys.executable, *name, *arguments]
    expected = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, check=True)
    done = otel_dllogger("run", "-q", "--port", "0", *name, *arguments, cwd=tmp_path)
    assert expected.stdout == assert_ok(done)


@pytest.mark.parametrize("kind", ["folder", "archive", "package"])
def test_a_main_module_is_run(tmp_path, kind):
    """A folder, a zip archive and a package with a ``__main__.py`` run as in Python."""
    folder = tmp_path / "about"
    folder.mkdir()
    (folder / "__main__.py").write_text(ABOUT_ITSELF)
    name = ["about"] if kind == "folder" else ["-m", "about"]
    if kind == "archive":
        zipapp = [sys.executable, "-m", "zipapp", "about", "-o", "about.pyz"]
        subprocess.run(zipapp, cwd=tmp_path, check=True)
        name = ["about.pyz"]
    python = [sys.executable, *name, "a"]
    expected = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, check=True)
    done = otel_dllogger("run", "-q", "--port", "0", *name, "a", cwd=tmp_path)
    assert expected.stdout == assert_ok(done)


def without_frames_of_python(stderr):
    """Give the lines of a traceback without those of ``python -m`` itself."""
    lines = [line for line in stderr.splitlines() if "<frozen " not in line]
    begins = [number for number, line in enumerate(lines) if line.startswith("Traceback")]
    if begins and len(lines) > begins[0] + 1 and "SyntaxError" in lines[-1]:
        del lines[begins[0]]  # there is no frame left
    return lines


ENDINGS = (
    "def f():\n    return 1 / 0\nf()",
    "x = = 3",
    "import sys; sys.exit('no data')",
    "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)",
    "import sys; sys.exit(7)",
    "import sys; sys.exit()",
    "import os; os._exit(9)",
    "import sys; print('oh', file=sys.stderr)",
    "import atexit; atexit.register(print, 'bye'); raise KeyError('lr')",
    "import json; json.loads('{')",
    "import nothing_of_this_name",
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM); import time; time.sleep(9)",
    "import sys; sys.excepthook = lambda *e: print('hook', *e[:2]); 1 / 0",
    "import sys\ndef hook(*_):\n    {}['no hook']\nsys.excepthook = hook\n1 / 0",
    "import sys; sys.excepthook = lambda *_: sys.exit(5); 1 / 0",
    "import sys; sys.excepthook = None; 1 / 0",
    "import sys; del sys.excepthook; 1 / 0",
    "import click; raise click.ClickException('mine')",
    "# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))",
)


@pytest.mark.parametrize(
    ("source", "name"),
    [(source, ["train.py"]) for source in ENDINGS]
    + [(source, ["-m", "train"]) for source in ENDINGS[:4]],
)
def test_a_script_ends_as_under_python(tmp_path, source, name):
    """Exit code, output and traceback are those of Python itself, without our frames."""
    (tmp_path / "train.py").write_text(source, encoding="latin-1")
    expected = subprocess.run(
        [sys.executable, *name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    done = otel_dllogger("run", "-q", "--port", "0", *name, cwd=tmp_path)
    assert (expected.returncode, expected.stdout) == (done.returncode, done.stdout)
    assert without_frames_of_python(expected.stderr) == done.stderr.splitlines()


def test_exit_handlers_still_log(run, tmp_path):
    """What a script logs in its exit handlers is in its log, and watched."""
    source = (
        "import atexit, dllogger\nfrom scrape import scrape\n"
        "dllogger.init([dllogger.JSONStreamBackend(1, 'log.json')])\n"
        "atexit.register(lambda: (dllogger.log(2, {'late': 1}), print(*scrape())))\n"
    )
    assert 'metric="late"' in assert_ok(run(source))
    assert '"late":1' in (tmp_path / "log.json").read_text()
    assert list((tmp_path / "discovery").iterdir()) == []


CHILDREN = """
import multiprocessing, os, sys
import dllogger
from scrape import scrape

class Local:
    pass

def train(rank, local):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    dllogger.init([dllogger.JSONStreamBackend(1, f"log{rank}.json")])
    dllogger.metadata("train.loss", {"STAGE": "TRAIN", "GOAL": "MINIMIZE"})
    dllogger.log((0, 1), {"train.loss": rank + 0.5})
    print(*scrape(rank), type(local).__module__, sep="\\n", flush=True)

def stay_silent(_number):
    return dllogger.__name__

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        print(pool.map(stay_silent, range(2)), flush=True)
    for rank in range(2):
        child = context.Process(target=train, args=(rank, Local()))
        child.start()
        child.join()
        print(child.exitcode, flush=True)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("as_module", [False, True], ids=["script", "module"])
def test_children_of_multiprocessing_are_watched_when_they_log(tmp_path, method, as_module):
    """Spawned ranks import dllogger too, and have a page of their own once they log."""
    (tmp_path / "scrape.py").write_text(SCRAPE)
    (tmp_path / "train.py").write_text(CHILDREN)
    name = ["-m", "train"] if as_module else ["train.py"]
    options = ["--port", "0", "--discovery-dir", "discovery", "--run", "r1", "-q"]
    done = otel_dllogger("run", *options, *name, method, cwd=tmp_path)
    expected = ["['otel_dllogger', 'otel_dllogger']"]
    for rank in range(2):
        expected.append(
            'dl_loss{goal="minimize",granularity="iteration",kind="loss",metric="train.loss",'
            f'rank="{rank}",run="r1",stage="train"}} {rank}.5'
        )
        expected += ["__mp_main__", "0"]
    assert expected == assert_ok(done).splitlines()
    assert (tmp_path / "log1.json").exists()


def test_the_last_values_wait_for_one_more_scrape(tmp_path):
    """With --linger, a script that has ended is still there for one scrape."""
    (tmp_path / "train.py").write_text(
        "import dllogger, atexit\n"
        "dllogger.init([])\n"
        "dllogger.log((), {'accuracy': 0.9})\n"
        "print('done', flush=True)\n"
    )
    (tmp_path / "scrape.py").write_text(SCRAPE)
    options = ["run", "-q", "--port", "0", "--discovery-dir", "d", "--linger", "30", "train.py"]
    scrape = [sys.executable, "-c", "from scrape import scrape; print(*scrape(folder='d'))"]
    with subprocess.Popen(
        [*COMMAND, *options], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "done\n"
        # A scrape that comes before the wait begins is not the one that ends it.
        pages, deadline_s = "", time.monotonic() + TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline_s:
            page = subprocess.run(scrape, cwd=tmp_path, capture_output=True, text=True, check=False)
            pages += page.stdout
        assert "dl_accuracy" in pages
        assert process.wait(TIMEOUT_S) == 0


def test_ctrl_c_reaches_the_script(tmp_path):
    """A script that handles KeyboardInterrupt ends as it wants to."""
    (tmp_path / "train.py").write_text(
        "import dllogger, time\n"
        "try:\n    print('ready', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('saved'); raise SystemExit(3)\n"
    )
    with subprocess.Popen(
        [*COMMAND, "run", "-q", "--port", "0", "train.py"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "saved\n"
        assert process.wait(TIMEOUT_S) == 3


def test_what_cannot_be_run_is_one_line(tmp_path):
    """A missing script, module or __main__.py is named with the next step."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    for arguments, words in {
        ("nope.py",): ("no script 'nope.py'", "-m"),
        ("empty",): ("'empty' has no __main__.py", "name the script"),
        ("-m", "nope"): ("no module 'nope'", "check the name"),
        ("-m", "package.nope.x"): ("no module 'package.nope.x'",),
        ("-m", "package"): ("'package' has no __main__", "name a module in it"),
        ("-m", "nope.py"): ("leave -m out",),
        ("-m", "..x"): ("'..x'",),
        ("-m", "sys"): ("'sys'",),
    }.items():
        done = otel_dllogger("run", "--port", "0", *arguments, cwd=tmp_path)
        assert_user_error(done, *words)


def test_a_parent_package_that_raises_shows_its_own_traceback(tmp_path):
    """What is wrong in the user's own package is the user's own traceback."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("1 / 0")
    (package / "train.py").touch()
    done = otel_dllogger("run", "-q", "--port", "0", "-m", "package.train", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert "otel_dllogger" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", NOT_OF_THIS_MACHINE], ("not an address of this machine", "--host 127.0.0.1")),
        (["--host", "no host"], ("unknown", "--host 127.0.0.1")),
        (["--port", "0", "--discovery-dir", "/proc/x"], ("/proc/x", "--discovery-dir")),
        (["--port", "0", "--linger", "-1"], ("--linger", "--help")),
    ],
)
def test_a_run_that_cannot_be_watched_does_not_start(tmp_path, options, words):
    """Where no page can be had, the script is not run, and one line says why."""
    (tmp_path / "train.py").write_text("open('started', 'w')")
    done = otel_dllogger("run", *options, "train.py", cwd=tmp_path)
    assert_user_error(done, *words)
    assert not (tmp_path / "started").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a right up")
def test_a_port_that_needs_privileges_is_refused(tmp_path):
    """Port 80 without the right to it is one line, before the script starts."""
    limit = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    setpriv = shutil.which("setpriv")
    if setpriv is None or int(limit.read_text()) <= 80:
        pytest.skip("this machine gives port 80 to everyone")
    (tmp_path / "train.py").write_text("open('started', 'w')")
    bounds = ["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]
    done = subprocess.run(
        [setpriv, *bounds, *COMMAND, "run", "--port", "80", "train.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert_user_error(done, "port 80 needs privileges", "--port 0")
    assert not (tmp_path / "started").exists()


def test_settings_of_the_environment_hold_where_no_option_is_given(tmp_path):
    """OTEL_* variables choose port, folder and run as they do for the backend."""
    (tmp_path / "scrape.py").write_text(SCRAPE)
    (tmp_path / "train.py").write_text(
        "import dllogger, scrape; dllogger.init([]); dllogger.log(1, {'x': 1})\n"
        "print(*scrape.scrape(folder='elsewhere'))"
    )
    done = otel_dllogger(
        "run", "-q", "train.py", cwd=tmp_path, OTEL_EXPORTER_PROMETHEUS_PORT="0",
        OTEL_DLLOGGER_DISCOVERY_DIR="elsewhere", OTEL_DLLOGGER_RUN="r9",
    )  # fmt: skip
    assert 'run="r9"' in assert_ok(done)


def test_a_discovery_folder_of_the_environment_that_cannot_be_is_no_reason_not_to_train(tmp_path):
    """It may be set for all jobs of a cluster; the page is served, and one line says the rest."""
    (tmp_path / "train.py").write_text("print('ran')")
    done = otel_dllogger(
        "run", "--port", "0", "train.py", cwd=tmp_path, OTEL_DLLOGGER_DISCOVERY_DIR="/proc/x"
    )
    assert (0, "ran\n") == (done.returncode, done.stdout)
    warning, page = done.stderr.splitlines()
    assert warning.startswith("otel-dllogger: no discovery file in '/proc/x'")
    assert "set OTEL_DLLOGGER_DISCOVERY_DIR to a folder that can be written, or 'none'" in warning
    assert page.startswith("otel-dllogger: metrics of rank 0")


def test_ranks_announce_themselves_without_any_setting(tmp_path):
    """In the user's runtime folder, readable for a Prometheus in a container; or not at all."""
    (tmp_path / "train.py").write_text(
        "import os, pathlib\n"
        "folder = pathlib.Path(os.environ['XDG_RUNTIME_DIR'], 'otel-dllogger')\n"
        "files = list(folder.iterdir()) if folder.exists() else []\n"
        "print(*[f'{path.name} {path.stat().st_mode & 0o777:o}' for path in files])"
    )
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    options = ("--port", "0", "-q", "--run", "r")
    file = f"dllogger_r_0_{host_name()}.json 644"
    for more, expected in ((("--discovery-dir", "none"), ""), ((), file)):
        done = otel_dllogger(
            "run", *options, *more, "train.py", cwd=tmp_path, XDG_RUNTIME_DIR=str(runtime)
        )
        assert f"{expected}\n" == assert_ok(done)
    assert [] == list((runtime / "otel-dllogger").iterdir())


def test_a_module_that_is_not_there_announces_nothing(tmp_path):
    """Its page was open for a moment; an alert must not say that a run vanished."""
    options = ("--port", "0", "--discovery-dir", "discovery")
    done = otel_dllogger("run", *options, "-m", "no.such", cwd=tmp_path)
    assert_user_error(done, "no module 'no.such'")
    assert [] == list((tmp_path / "discovery").iterdir())


def test_a_wrong_setting_is_warned_of_in_a_line(tmp_path):
    """A variable that makes no sense does not keep the script from running."""
    (tmp_path / "train.py").write_text("print('ran')")
    done = otel_dllogger(
        "run", "-q", "train.py", cwd=tmp_path, OTEL_EXPORTER_PROMETHEUS_PORT="many"
    )
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "OTEL_EXPORTER_PROMETHEUS_PORT='many' is not a whole number" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_log_is_what_dllogger_would_have_written(run, tmp_path):
    """The page adds no line and no key to the script's own log."""
    assert_ok(
        run(
            "import dllogger\n"
            "dllogger.init([dllogger.JSONStreamBackend(0, 'log.json')])\n"
            "dllogger.metadata('loss', {'unit': None})\n"
            "dllogger.log((0, 1), {'loss': 0.5})\n"
            "dllogger.log((0, 2), {'loss': 0.5}, verbosity=2)\n"
        )
    )
    lines = (tmp_path / "log.json").read_text().splitlines()
    assert [json.loads(line[4:])["type"] for line in lines] == ["METADATA", "LOG"]


def test_a_script_that_was_changed_runs_as_it_is_now(tmp_path):
    """No cache of bytecode is read or written, even at equal size and time."""
    script = tmp_path / "train.py"
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    printed = []
    for rate in (2, 3):
        script.write_text(f"print('lr=0.{rate}')\n")
        os.utime(script, (1_700_000_000, 1_700_000_000))
        command = [sys.executable, "-m", "otel_dllogger", "run", "-q", "--port", "0", str(script)]
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=60, check=True
        )
        printed.append(done.stdout)
    assert printed == ["lr=0.2\n", "lr=0.3\n"]
    assert not (tmp_path / "__pycache__").exists()
