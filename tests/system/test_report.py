"""``otel-dllogger report``: the values that Prometheus has, and always the same bytes."""

from __future__ import annotations

import json
import math
import os
import subprocess

import pytest

from otel_dllogger.http.service_discovery import DiscoveryFile
from tests.support.bridge import log_line
from tests.support.command import COMMAND, assert_user_error, environment, otel_dllogger
from tests.support.past_run import HOSTILE, START_S, write_past_run
from tests.support.prometheus import Prometheus
from tests.support.service_discovery import ADDRESS, make_topology
from tests.support.timed_log import TimedLog

pytestmark = pytest.mark.newest_only

START_US = 1_700_000_000_000_000
FOREVER = ("--storage.tsdb.retention.time=100y",)


def report(*arguments, **options):
    return otel_dllogger("report", *map(str, arguments), **options)


def read_json(folder):
    done = report(folder, "--format", "json")
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs") / "resnet"
    write_past_run(folder)
    return folder


def test_best_values_are_those_of_promql(logs, tmp_path):
    """For the same logs, read by a real Prometheus after a backfill."""
    data = tmp_path / "prometheus" / "data"
    data.mkdir(parents=True)
    done = otel_dllogger("backfill", str(logs), "--to", "prometheus", str(data))
    assert done.returncode == 0, done.stderr
    (run,) = read_json(logs)["runs"]
    names = {(best["metric"], best["granularity"]) for best in run["best"]}
    assert names == {
        ("train.loss", "iteration"),
        ("train.loss", "run"),
        ("train.ips", "iteration"),
        ("val.accuracy", "epoch"),
    }
    configuration = data.parent / "prometheus.yml"
    configuration.write_text("global:\n  scrape_interval: 1m\n")
    with Prometheus(
        data.parent, discovery=data.parent, configuration=configuration, flags=FOREVER
    ) as server:

        def query(expression):
            answer = server.get("query", query=expression, time=str(run["end_s"] + 60))
            return {one["metric"].get("rank"): float(one["value"][1]) for one in answer["result"]}

        of_goal = {"minimize": "min", "maximize": "max"}
        for best in run["best"]:
            function = of_goal[best["goal"]]
            selector = best["series"].replace("{", '{run="resnet",', 1)
            by_rank = query(f"{function} by (rank) ({function}_over_time({selector}[1d]))")
            assert by_rank[str(best["rank"])] == best["value"]
            assert best["value"] == (min if function == "min" else max)(by_rank.values())
        for goal, function in of_goal.items():
            found = query(
                f'{function} by (rank) (last_over_time(dllogger_best{{run="resnet",'
                f'goal="{goal}",metric=~"train.*"}}[1d]))'
            )
            values = [
                best["value"]
                for best in run["best"]
                if best["goal"] == goal and best["metric"].startswith("train")
            ]
            least_or_greatest = min if function == "min" else max
            assert least_or_greatest(found.values()) == least_or_greatest(values)


def test_json_says_what_happened(logs):
    found = read_json(logs)
    (run,) = found["runs"]
    assert (found["format"], found["version"]) == ("otel-dllogger report", 1)
    assert (run["name"], run["state"], run["ranks"], run["attempts"]) == (
        "resnet",
        "finished",
        4,
        2,
    )
    assert (run["begin_s"], run["step"]) == (START_S, 399)
    assert [each["rank"] for each in run["by_rank"]][:2] == [1, 2]
    assert [each["rank"] for each in run["by_rank"] if each["is_straggler"]] == [2]
    (first,) = run["nonfinite"]
    assert (first["metric"], first["rank"], first["step"]) == ("train.loss", 1, 200)
    assert (first["count"], first["value"]) == (3, "NaN")
    (restart,) = run["restarts"]
    assert (restart["attempt"], restart["ranks"], restart["step"]) == (2, [0, 1, 2, 3], 299)
    assert {each["alert"] for each in run["findings"]} == {
        "DLLoggerNonFiniteLoss",
        "DLLoggerStraggler",
        "DLLoggerRunFinished",
    }
    assert run["parameters"] == {"batch_size": 256, "lr": 0.1, "optimizer": "sgd"}
    assert any("resnet/resnet_rank1.json" in line for line in found["doubts"])


def test_time_is_split_into_what_logs_say(logs):
    """The gap between the attempts is 90 s, each process takes 5 s before its first step."""
    (run,) = read_json(logs)["runs"]
    goodput = run["goodput"]
    assert goodput["down_s"] >= 4 * 90
    assert goodput["phases_s"]["startup"] == pytest.approx(4 * 10, rel=0.3)
    assert goodput["redone_s"] > 0
    assert goodput["redone_steps"] == 40
    assert sum(part["percent"] for part in goodput["parts"]) == pytest.approx(100)
    whole_s = math.fsum(part["seconds"] for part in goodput["parts"])
    assert whole_s == pytest.approx(4 * goodput["wall_s"])
    assert [each["rank"] for each in goodput["by_rank"]] == [0, 1, 2, 3]
    assert len(goodput["not_measured"]) == 2  # there are no phases


def test_all_forms_say_where_the_time_went_and_what_happened(tmp_path):
    """In the same words, from phases and events."""
    for rank in range(2):
        log = TimedLog(tmp_path / "logs", rank)
        log.wait(20)
        log.step(0)
        log.steps(1, 100)
        log.phase("checkpoint", 10)
        log.event("checkpoint_saved", 100)
        log.steps(101, 120)
        log.start(log.now_s + 30)
        log.phase("restore", 5)
        log.wait(15)
        log.step(101)
        log.steps(102, 101 + 200)
        log.close()
    (run,) = read_json(tmp_path / "logs")["runs"]
    assert {part["name"]: part["percent"] for part in run["goodput"]["parts"]} == {
        "productive": 75,
        "startup": 8.8,
        "restore": 1.2,
        "checkpoint": 2.5,
        "redone": 5,
        "down": 7.5,
    }
    assert run["goodput"]["at_risk_s"] == 200
    (event,) = run["events"]
    assert (event["name"], event["ranks"], event["step"]) == ("checkpoint_saved", [0, 1], 100)
    markdown = report(tmp_path / "logs", "--format", "md").stdout
    assert "| redone (20 steps) | 20 s | 5.0 % |" in markdown
    assert "At risk: 3 min 20 s of training since the last checkpoint" in markdown
    assert "checkpoint\\_saved | 2 ranks | 100 |" in markdown
    page = tmp_path / "page.html"
    assert report(tmp_path / "logs", "-o", page).returncode == 0
    text = page.read_text()
    assert "<h2>Where the time went</h2>" in text
    assert "Of 6 min 40 s x 2 ranks" in text
    assert "redone (20 steps)" in text
    assert "<h2>Events</h2>" in text


@pytest.mark.parametrize("form", ["html", "md", "json"])
def test_the_same_logs_give_the_same_bytes(tmp_path, form):
    """In processes with another order of sets, and in other time zones."""
    for run in ("one", "two", "three", "four", "five"):
        write_past_run(tmp_path / "logs", run=run, ranks=2, steps=40, hostile=True)
    outputs = []
    for number, (seed, zone) in enumerate([("1", "Asia/Tokyo"), ("2", "America/Lima")]):
        output = tmp_path / f"{number}.{form}"
        done = report(
            tmp_path / "logs", "--format", form, "-o", output, PYTHONHASHSEED=seed, TZ=zone
        )
        assert done.returncode == 0, done.stderr
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1]


def test_markdown_goes_to_standard_output_and_shows_names_as_text(tmp_path):
    write_past_run(tmp_path / "logs", hostile=True)
    done = report(tmp_path / "logs", "--format", "md")
    assert (0, "") == (done.returncode, done.stderr)
    assert "### resnet: finished" in done.stdout
    assert "| train.loss | 1 | 3 | 200 |" in done.stdout
    assert r"\<img src=x onerror=alert\(1\)\>" in done.stdout
    assert HOSTILE not in done.stdout


def test_names_hold_nothing_that_a_terminal_or_a_reader_of_json_chokes_on(tmp_path):
    """Control characters, lone surrogates and text that runs backwards; in names of files too."""
    name = "\x1b[31m\ud800\u202e"
    log = os.fsencode(tmp_path) + b"/\x1b[31m\xff_rank0.json"
    with open(log, "wb") as file:  # noqa: PTH123 - its name is not text
        file.write(log_line("PARAMETER", {name: name}, time_us=START_US))
        file.write(log_line([0, 0], {"loss": 0.5, name: 1}, time_us=START_US) * 3)  # doubtful
    done = report(tmp_path, "--format", "md")
    assert "Doubtful" in done.stdout
    assert not set(done.stdout) & {"\x1b", "\u202e", "\ufffd"}
    done = report(tmp_path, "--format", "json")
    text = json.dumps(json.loads(done.stdout), ensure_ascii=False)
    assert "\x1b" not in text
    text.encode()  # which lone surrogates cannot be


def test_metrics_beyond_the_limit_are_not_left_out_silently(tmp_path):
    """The report says how many values it does not have."""
    data = {f"metric{number}": 1.0 for number in range(12_000)}
    (tmp_path / "log.json").write_bytes(log_line([0, 0], data, time_us=START_US))
    done = report(tmp_path, "--format", "json")
    summary = json.loads(done.stdout)
    left_out = 12_000 - len(summary["runs"][0]["metrics"])
    assert left_out > 0
    assert any(f"{left_out:,} values of series beyond the limit" in s for s in summary["doubts"])


def test_it_is_written_without_a_standard_error(logs, tmp_path):
    """As some schedulers start programs: there is no place for a progress bar."""
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "report", logs, "-o", "r.html"]
    assert subprocess.run(command, cwd=tmp_path, env=environment(), check=False).returncode == 0
    assert (tmp_path / "r.html").stat().st_size


def test_html_goes_to_a_file(logs, tmp_path):
    done = report(logs, cwd=tmp_path)
    assert (0, "") == (done.returncode, done.stdout)
    assert "1 run in report.html" in done.stderr
    written = (tmp_path / "report.html").read_text()
    again = report(logs, "-q", cwd=tmp_path)  # over a report, which needs no -f
    assert (0, "") == (again.returncode, again.stderr)
    assert (tmp_path / "report.html").read_text() == written


def test_another_file_is_not_overwritten(logs, tmp_path):
    other = tmp_path / "report.html"
    other.write_text("<p>mine</p>")
    assert_user_error(report(logs, "-o", other), "is not a report", "-f")
    assert other.read_text() == "<p>mine</p>"
    assert report(logs, "-o", other, "-f").returncode == 0
    assert "resnet" in other.read_text()


def test_no_log_is_overwritten(logs):
    for name in ("resnet_rank0.json", "report.json"):
        done = report(logs, "--format", "json", "-f", "-o", logs / name)
        assert_user_error(done, "among the logs")
    assert not (logs / "report.json").exists()


def test_pages_are_refused(tmp_path):
    assert_user_error(report("127.0.0.1:9464"), "view", "watch", "127.0.0.1:9464")
    DiscoveryFile(tmp_path, make_topology(), address=ADDRESS)
    assert_user_error(report(tmp_path), "view", "watch")


def test_without_numpy_an_error_says_what_to_install(logs, tmp_path):
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('no', name='numpy')")
    assert_user_error(
        report(logs, PYTHONPATH=f"{tmp_path}"), "numpy", "pip install 'otel-dllogger[view]'"
    )


def test_logs_without_values_give_no_report(tmp_path):
    (tmp_path / "log.json").write_text(
        'DLLL {"timestamp": "1.0", "elapsedtime": "0", "datetime": "x", "type": "LOG", '
        '"step": "PARAMETER", "data": {}}\n'
    )
    done = report(tmp_path, cwd=tmp_path)
    assert (1, "") == (done.returncode, done.stdout)
    assert "nothing was written" in done.stderr
    assert not (tmp_path / "report.html").exists()
