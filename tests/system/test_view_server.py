"""``otel-dllogger view`` as a server: what it tells, to whom, and how it ends."""

from __future__ import annotations

import math
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support.bridge import append, log_line, steps
from tests.support.command import assert_user_error, otel_dllogger
from tests.support.http import connect, wait_until
from tests.support.view import ViewProcess, merge

pytestmark = pytest.mark.newest_only

TOKEN = "s3cret token/&"
LOSS = 'dl_loss{granularity="iteration",metric="loss"}'


@pytest.fixture
def logs(tmp_path):
    """Two ranks of a run."""
    for rank in range(2):
        append(tmp_path / "run" / f"log_rank{rank}.json", steps(0, 20))
    return tmp_path / "run"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A page that needs a token."""
    folder = tmp_path_factory.mktemp("guarded") / "run"
    append(folder / "log_rank0.json", steps(0, 20))
    with ViewProcess(folder, "--token", TOKEN, "--allow-host", "proxy.example") as view:
        yield view


def test_it_tells_what_runs_do(logs):
    """Ranks, metrics and curves are those of the logs."""
    with ViewProcess(logs) as view:
        (run,) = view.wait_for_ranks(2)
        assert (run["name"], run["loss"], run["iteration"]) == ("run", LOSS, 19)
        (curve,) = view.json("/curves.json", ("metric", LOSS))
        assert curve["places"] == list(range(20))
        assert [line["rank"] for line in curve["lines"]] == [0, 1]
        assert curve["lines"][1]["mean"] == pytest.approx([8 / (1 + n) for n in range(20)])
        (part,) = view.json("/curves.json", ("metric", LOSS), ("from", "5"), ("to", "7"))
        assert part["places"] == [5, 6, 7]


def test_names_that_are_not_text_are_shown_all_the_same(tmp_path):
    """JSON has no lone surrogates, of which names of files and of parameters may be made."""
    folder = os.fsencode(tmp_path) + b"/\x1b\xff"
    os.mkdir(folder)  # noqa: PTH102 - its name is not text
    path = Path(os.fsdecode(folder + b"/log_rank0.json"))
    time_us = 1_700_000_000_000_000
    append(path, log_line("PARAMETER", {"\ud800name": "\ud800text"}, time_us=time_us))
    append(path, steps(0, 2))
    with ViewProcess(os.fsdecode(folder)) as view:
        (run,) = view.wait_for_ranks(1)
        assert [name for name in run["parameters"] if "name" in name]
        assert "??" in view.json("/state.json")["words"]
        assert b"\x1b" not in view.said


def test_every_address_is_one_that_a_proxy_and_a_browser_can_use(logs):
    """No redirect names a host, and a prefix is written as a browser writes it."""
    with ViewProcess(logs, "--path-prefix", "/a b?") as view:
        assert view.link.endswith("/a%20b%3F/")
        assert view.get("/a%20b%3F/runs.json").status == 200
        assert view.get("/runs.json/").status == 404


def test_a_page_gets_what_changes_and_no_more(logs):
    """After the whole, an event has the end of a curve; together they are the whole again."""
    with ViewProcess(logs) as view:
        view.wait_for_ranks(2)
        query = (("metric", LOSS), ("run", "run"))
        events = view.events(*query)
        _, known = next(events)
        assert known["is_whole"]
        append(logs / "log_rank1.json", steps(20, 23))
        append(logs / "log_rank1.json", steps(23, 24, loss=math.nan))
        while len(known["curves"][0]["places"]) < 24:
            name, message = next(events)
            assert not message["is_whole"]
            assert len(str(message["curves"])) < 1000
            known = merge(known, message)
        whole = view.json("/state.json", *query)
        assert known["curves"] == whole["curves"]
        assert whole["curves"][0]["lines"][1]["nonfinite"] == [[23, 1]]
        assert without_now(known["shown"]) == without_now(whole["shown"])
        # A page that comes back and has missed nothing does not get the whole again.
        assert not next(view.events(*query, last_id=name))[1]["is_whole"]


def without_now(runs):
    return [{**run, "now_s": None} for run in runs]


def test_many_pages_share_one_channel_and_leave_none_behind(logs):
    """Pages beyond the limit of different ones are refused in one line, until others close."""
    with ViewProcess(logs) as view:
        view.wait_for_ranks(2)
        open_pages = [view.events(("to", str(number))) for number in range(64)]
        for events in open_pages:
            next(events)
        same = view.events(("to", "0"))
        next(same)
        assert view.get("/events", ("to", "64")).status == 503
        for events in open_pages:
            events.close()
        wait_until(lambda: b" 200 " in view.raw(_request("/events?to=64")))
        next(same)


@pytest.mark.parametrize(
    "query",
    [
        "axis=sideways",
        "from=nan",
        "to=x",
        "lines=some",
        "rank=x:run",
        "rank=1",
        "rank=99999999999:run",
        "&".join(f"metric={n}" for n in range(17)),
        "&".join(f"run={n}" for n in range(17)),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(guarded, query):
    """It says what is wrong, and nothing of it reaches a log."""
    for path in ("state.json", "events", "curves.json", "runs.json"):
        answer = guarded.get(f"/{path}?{query}", Authorization=f"Bearer {TOKEN}")
        assert (answer.status, answer.body[:5], answer.body.count(b"\n")) == (400, b"400: ", 1)


def _request(target: str, *headers: str, method: str = "GET", host: str = "localhost") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers]
    return "\r\n".join([*lines, "", ""]).encode()


TARGETS = (
    "/",
    "//",
    "/runs.json",
    "/runs.json/",
    "/RUNS.JSON",
    "//runs.json",
    "/./runs.json",
    "/x/../runs.json",
    "/%2e%2e/runs.json",
    "/%2fruns.json",
    "/runs%2ejson",
    "/runs.json%00",
    "/runs.json;token=1",
    "/runs.json?token=",
    "/runs.json?token=wrong",
    "/runs.json?TOKEN=s3cret%20token%2F%26",
    "/state.json",
    "/curves.json",
    "/events",
    "/page.js",
    "/index.html",
    "/..%2fserver/access.py",
    "http://localhost/runs.json",
    "http://localhost:1/",
    "*",
)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "get", "POST", "OPTIONS", "PUT", "CONNECT", "X"])
def test_nothing_is_seen_without_the_token(guarded, target, method):
    """No path, no encoding of one and no method leads past it."""
    answer = guarded.raw(_request(target, method=method))
    status = int(answer.split()[1])
    assert status == (401 if method in ("GET", "HEAD") else 405) or status in (400, 404)
    assert b"dl_loss" not in answer
    assert b"Set-Cookie" not in answer
    if method in ("GET", "HEAD"):
        assert status in (400, 401)


@pytest.mark.parametrize(
    "headers",
    [
        ["Authorization: Bearer wrong"],
        ["AUTHORIZATION: bearer"],
        ["authorization: Basic czNjcmV0"],
        [f"authorization: {TOKEN}"],
        [f"X-Authorization: Bearer {TOKEN}"],
        ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: localhost", "Forwarded: for=127.0.0.1"],
        ["X-Original-URL: /", "X-Rewrite-URL: /", "X-HTTP-Method-Override: GET"],
        ["Cookie: otel-dllogger-{port}="],
        ["Cookie: otel-dllogger-{port}=1; otel-dllogger-{port}=" + TOKEN],
        ["Cookie: otel-dllogger=1;;=;\x01"],
        ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
         "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="],
    ],
)  # fmt: skip
def test_no_header_stands_in_for_the_token(guarded, headers):
    """Whatever a client says of itself, it has the token or it has not."""
    given = [header.replace("{port}", str(guarded.port)) for header in headers]
    answer = guarded.raw(_request("/runs.json", *given))
    assert int(answer.split()[1]) in (400, 401)
    assert b"dl_loss" not in answer


def test_the_token_is_exchanged_for_a_cookie(guarded):
    """The link leads to an address without the token, and then the cookie is enough."""
    answer = guarded.get("/", ("token", TOKEN), ("a", "b&c"))
    assert (answer.status, answer.headers["location"]) == (303, "?a=b%26c")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "SameSite=Lax"]
    name, _, value = cookie.partition("=")
    assert name == f"otel-dllogger-{guarded.port}"
    assert len(value) > 40
    assert guarded.get("/", ("token", TOKEN)).headers["location"] == "."
    assert guarded.get("/", Cookie=cookie).status == 200
    assert guarded.get("/runs.json", Cookie=f"other=1; {cookie}").status == 200
    assert guarded.get("/", Cookie=cookie[:-1]).status == 401
    assert guarded.get("/", Cookie=f"{name[:-1]}0={value}").status == 401
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = guarded.raw(_request("/", f"AUTHORIZATION: {scheme} {TOKEN}"))
        assert b" 200 " in answer


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("localhost", True),
        ("LOCALHOST:1234", True),
        ("127.0.0.1", True),
        ("127.1.2.3:8000", True),
        ("[::1]:80", True),
        ("a.localhost:80", True),
        ("proxy.example", True),
        ("proxy.example:443", True),
        (socket.gethostname(), True),
        ("10.1.2.3", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost:80@evil.example", False),
        ("localhost:evil.example", False),
        ("[::1].evil.example", False),
        ("[::1", False),
        ("evillocalhost", False),
        ("", False),
    ],
)
def test_only_a_known_name_is_answered(guarded, host, is_known):
    """A name that an attacker can make point here is refused, with the token as well."""
    request = _request("/", f"Authorization: Bearer {TOKEN}", host=host)
    assert int(guarded.raw(request).split()[1]) in ((200,) if is_known else (400, 421))
    two = _request("/", "Host: localhost", f"Authorization: Bearer {TOKEN}", host="evil.example")
    assert int(guarded.raw(two).split()[1]) in (400, 421)


def test_every_answer_has_the_headers_that_protect_it(guarded):
    """Those of errors as well."""
    for path, status in (("/", 200), ("/none", 404), ("/state.json?axis=x", 400)):
        answer = guarded.get(path, Authorization=f"Bearer {TOKEN}")
        assert answer.status == status
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "base-uri 'none'"} <= {*policy}
        assert {"require-trusted-types-for 'script'", "form-action 'none'"} <= {*policy}
        assert not any("unsafe" in part or "*" in part for part in policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["cache-control"].startswith("no-")
    assert guarded.get("/").status == 401
    assert guarded.get("/").headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_on_a_signal_with_open_pages(logs, number):
    """With exit code 0, at once, and without a word of the token or of who looked."""
    with ViewProcess(logs, "--token", "abc") as view:
        stream = connect(view.port, _request("/events", "Authorization: Bearer abc"))
        assert stream.recv(100).startswith(b"HTTP/1.1 200")
        view.get("/", ("token", "wrong-guess"))
        view.raw(b"\x00\xff broken\r\n\r\n")
        code, said = view.end(number)
        stream.close()
    assert (code, said.count("\n"), said.count("abc")) == (0, 1, 1)


def test_an_open_address_needs_a_decision(tmp_path, logs):
    """A page that others can reach needs a token, or to be told that it needs none."""
    done = otel_dllogger("view", str(logs), "--listen", "0.0.0.0:0")
    assert_user_error(done, "--token", "--insecure", "0.0.0.0:0")
    with ViewProcess(logs, "--insecure", listen="0.0.0.0:0") as view:
        assert view.get("/").status == 200
        assert int(view.raw(_request("/", host="evil.example")).split()[1]) == 421
    file = tmp_path / "token"
    file.write_text("of a file\n")
    with ViewProcess(logs, "--token", f"@{file}", listen="0.0.0.0:0") as view:
        assert view.get("/").status == 401
        assert view.get("/", Authorization="Bearer of a file").status == 200


def test_a_prefix_that_a_proxy_leaves_is_taken_away(logs):
    """The page is there with it and without it; the folder's slash is added relatively."""
    with ViewProcess(logs, "--path-prefix", "/node/8384/") as view:
        assert view.link.endswith("/node/8384/")
        index = view.get("/").body
        assert view.get("/node/8384/").body == index
        assert view.get("/node/8384/runs.json").status == 200
        answer = view.get("/node/8384")
        assert (answer.status, answer.headers["location"]) == (303, "8384/")
        assert view.get("/node/8384x/").status == 404


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing/run"], ("missing/run", "no file")),
        ([".", "--listen", "nowhere"], ("--listen nowhere",)),
        ([".", "--listen", "192.0.2.1:0", "--insecure"], ("192.0.2.1", "--listen")),
        ([".", "--token", " "], ("--token", "empty")),
        ([".", "--token", "@none"], ("--token @none", "name a file")),
        ([".", "--timezone", "Mars/Base"], ("Mars/Base",)),
    ],
)
def test_a_mistake_of_the_user_is_one_line(tmp_path, arguments, words):
    """It says what to do."""
    assert_user_error(otel_dllogger("view", *arguments, cwd=tmp_path), *words)


def test_the_next_port_is_taken_if_none_was_asked_for(logs):
    """Two users of one login node can both look."""
    with ViewProcess(logs) as view:
        assert_user_error(
            otel_dllogger("view", str(logs), "--listen", f"127.0.0.1:{view.port}"), "taken"
        )
