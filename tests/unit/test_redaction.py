"""Secrets within text: what is taken out, what stays, and in what time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger import redaction
from otel_dllogger.redaction import (
    MAX_CHARACTERS,
    redact,
    redact_address,
    redact_arguments,
    redact_forms,
)

pytestmark = pytest.mark.newest_only

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.py --password hunter2 --lr 0.1", "train.py --password [redacted] --lr 0.1"),
        ("train.py --api-key=hunter2 --lr 1", "train.py --api-key=[redacted] --lr 1"),
        ("--password 'hunter2 x' --lr 1", "--password '[redacted]' --lr 1"),
        ("['--password', 'hunter2', '--lr']", "['--password', '[redacted]', '--lr']"),
        ('["--password","hunter2","--lr"]', '["--password","[redacted]","--lr"]'),
        ("['a', '--password=hunter2', '-b']", "['a', '--password=[redacted]', '-b']"),
        ("HF_TOKEN=hunter2 python x.py", "HF_TOKEN=[redacted] python x.py"),
        ("+logger.wandb.key=hunter2 lr=1", "+logger.wandb.key=[redacted] lr=1"),
        ("f(lr=0.1, hub_token='hunter2')", "f(lr=0.1, hub_token='[redacted]')"),
        ("f(lr=0.1, hub_token=hunter2)", "f(lr=0.1, hub_token=[redacted])"),
        ('{"token": {"a": "hunter2"}, "lr": 1}', '{"token": [redacted], "lr": 1}'),
        ('{"tokens": ["hunter2", "x"]} y', '{"tokens": [redacted]} y'),
        (
            '"{\\"api_key\\": \\"hunter2\\", \\"a\\": 1}"',
            '"{\\"api_key\\": \\"[redacted]\\", \\"a\\": 1}"',
        ),
        ('password = "a\\"hunter2" b', 'password = "[redacted]" b'),
        ("password: hunter2\nlr: 1", "password: [redacted]\nlr: 1"),
        ('os.environ["API_KEY"] = "hunter2"', 'os.environ["API_KEY"] = "[redacted]"'),
        ("API key: hunter2", "API key: [redacted]"),
        ("--pin 1234", "--pin [redacted]"),
        ("Name=x;AccountKey=hunter2==;A=b", "Name=x;AccountKey=[redacted]"),
        ("https://x/y?sig=hunter2", "https://x/y?sig=[redacted]"),
        ("https://x?a=b&key=hunter2", "https://x?a=b&key=[redacted]"),
        ("-H 'Authorization: Basic hunter2' -d 1", "-H 'Authorization: [redacted]' -d 1"),
        ("Authorization: A hunter2\nHost: x", "Authorization: [redacted]\nHost: x"),
        ("Cookie: a=hunter2; b=hunter2", "Cookie: [redacted]"),
        ("curl -u me:hunter2 http://x", "curl -u [redacted] http://x"),
        ("with Bearer hunter2 it works", "with Bearer [redacted] it works"),
        ("authorization=Bearer%20hunter2", "authorization=[redacted]"),
        ("a?password%3Dhunter2 b", "a?password%3D[redacted] b"),
        ("sshpass -p hunter2 ssh -p 22 h", "sshpass -p [redacted] ssh -p 22 h"),
        ("sshpass -p 'my hunter2' ssh h", "sshpass -p [redacted] ssh h"),
        ("docker login -u me -p hunter2 h", "docker login -u me -p [redacted] h"),
        ("mysql -u me -phunter2 db", "mysql -u me -p[redacted] db"),
        ("curl -s -ume:hunter2 http://x", "curl -s -u[redacted] http://x"),
        ("to me:hunter2@db.example:5432/x", "to [redacted]@db.example:5432/x"),
        ("me:hunter2@localhost", "[redacted]@localhost"),
        ("machine h login u password swordfish", "machine h login u password [redacted]"),
        ("AWS_SECRET_ACCESS_KEY hunter2/x= y", "AWS_SECRET_ACCESS_KEY [redacted] y"),
        ("my password hunter2, please", "my password [redacted], please"),
        ("<a><password>hunter2</password></a>", "<a><password>[redacted]</password></a>"),
        ("[('password', 'hunter2'), ('a', 'b')]", "[('password', '[redacted]'), ('a', 'b')]"),
    ],
)
def test_what_has_a_secret_s_name_is_taken_out(text: str, expected: str) -> None:
    """And the rest of a command line, a configuration or a URL stays."""
    assert expected == redact(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://me:hunter2@db:5432/x", "postgres://[redacted]@db:5432/x"),
        ("redis://:hunter2@db", "redis://[redacted]@db"),
        ("s3://me:hunt/er2@bucket/x", "s3://[redacted]@bucket/x"),
        ("http://me:p@hunter2@h/x", "http://[redacted]@h/x"),
        ("clone https://hunter2@github.com/x y", "clone https://[redacted]@github.com/x y"),
        ("//me:hunter2@host", "//[redacted]@host"),
        ("https://hooks.slack.com/services/T0/hunter2", "https://hooks.slack.com/[redacted]"),
        ("https://discord.com/api/webhooks/1/x", "https://discord.com/api/webhooks/[redacted]"),
        ("a sk-proj-" + "Ab1" * 10 + " b", "a [redacted] b"),
        ("sk-ant-api03-aB3_" + "Ab1" * 10 + "-_x", "[redacted]"),
        ("hf_" + "aBcDe" * 7, "[redacted]"),
        ("x=ghp_" + "aB3" * 12, "x=[redacted]"),
        ("github_pat_11AA_" + "aB3" * 12, "[redacted]"),
        ("glpat-" + "aB3-_" * 4, "[redacted]"),
        ("id AKIAIOSFODNN7EXAMPLE.", "id [redacted]."),
        ("xox" + "b-1234567890-abcdef", "[redacted]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_-d ok", "[redacted] ok"),
        ("nvapi-" + "aB3-_" * 10, "[redacted]"),
        (
            "a -----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY----- b",
            "a [redacted] b",
        ),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\\nhunter2", "[redacted]"),
    ],
)
def test_what_has_a_secret_s_form_is_taken_out(text: str, expected: str) -> None:
    """Whatever its name; half of a private key as well."""
    assert (expected, expected) == (redact(text), redact_forms(text))


@pytest.mark.parametrize(
    "text",
    [
        "resnet50",
        "train.py --train-tokens 300B --tokens 300 --tokens-per-batch 5 --pad_token '<pad>'",
        "--use-auth-token --lr 0.1",
        "Namespace(token=None, hub_token='', use_auth_token=False, eos_token='</s>')",
        "http://host:8080/a@b",
        "http://[::1]:8080/x",
        "ssh://git@host/x",
        "abfss://container@account.dfs.core.windows.net/x",
        "nvcr.io/nvidia/pytorch:24.01@sha256:0123456789abcdef",
        "sk-learn_random_forest-classifier",
        "hf_BertForMaskedLM",
        "glove-embeddings-300-dimensions",
        "author: me, keys: 3, pass_k=5, compass=north",
        "auth://x",
        "the password is wrong, no password lr=0.1, HF_TOKEN is not set, 300 tokens resnet50",
        "user_token='<|user|>' bot_token=<s> api_key_count=3 pwd=/home/me PWD='/workspace'",
        "ssh -p 22 h, docker run -p 80:80 x, mysql -p db, python -u train.py, curl -o x http://h",
        "pytorch:24.01-py3@sha256:0123456789abcdef, map:0.5@iou, org:model@v1.2, me@host.example",
        "<user>hello</user>, ('lr', '0.1'), drop=['password', 'username']",
        "auth=True, use_auth_token=True",
        "HTTP status 401 Unauthorized: no such account",
        "Authentication failed: no such account",
        "/data/patches:/other",
        "ÄÖÜ \U0001f600 \ud800",
        "",
    ],
)
def test_what_is_none_stays_as_it_is(text: str) -> None:
    """Ordinary values of hyper-parameters."""
    assert text == redact(text)


def test_a_long_text_is_cut_but_not_within_a_secret() -> None:
    """Half a token at the cut has no form by which it could be known."""
    token = "ghp_" + "aB3" * 12
    for shift in range(-60, 10):
        text = "-----BEGIN PRIVATE KEY-----" + "x" * (MAX_CHARACTERS + shift - 64)
        text += "-----END PRIVATE KEY-----" + token * 3 + "y" * 10_000
        assert "ghp" not in redact(text)
    text = "word " * 10_000
    assert text.startswith(redact(text))
    assert 256 < len(redact(text)) <= MAX_CHARACTERS


def test_an_address_is_shown_without_its_password() -> None:
    """Also where it is none, for want of a scheme or a host."""
    assert "[redacted]@h:4318" == redact_address("me:hunter2@h:4318")
    assert "http://[redacted]@h:1/x" == redact_address("http://me:hunt@er2@h:1/x")
    assert "http://[redacted]@" == redact_address("http://me:hunter2@")
    assert "http://h/x?token=[redacted]" == redact_address("http://h/x?token=hunter2")
    assert "http://h:4318/v1/metrics" == redact_address("http://h:4318/v1/metrics")


def test_arguments_are_looked_at_one_by_one() -> None:
    """The one after a flag is its value, spaces included."""
    arguments = ["x", "--password", "my hunter2", "--api-key=a hunter2", "--token", "--lr", "0.1"]
    assert redact_arguments(arguments) == [
        *("x", "--password", "[redacted]", "--api-key=[redacted]", "--token", "--lr", "0.1")
    ]


LETTERS = st.text("aB-=: '\"\\/@&?.,;[]{}()\n\u00e9", max_size=30)


@given(before=LETTERS, after=LETTERS)
def test_a_secret_is_found_among_anything(before: str, after: str) -> None:
    """Nothing around it makes it visible, and nothing raises."""
    token = "ghp_" + "aB3" * 12
    assert token not in redact(f"{before} {token} {after}")
    assert SECRET not in redact(f"{before} password={SECRET} {after}")
    assert SECRET not in redact(f"{before} --password {SECRET} {after}")
    assert SECRET not in redact(f"{before} http://me:{SECRET}@host {after}")


@given(text=st.text())
def test_any_text_has_an_answer(text: str) -> None:
    """And what was redacted once stays as it is."""
    once = redact(text)
    assert once == redact(once)


PIECES = [
    *(
        "a",
        "-",
        "--",
        ".",
        "_",
        "?",
        "0",
        "0_",
        " ",
        "{",
        "[",
        "\\",
        '\\"',
        "AA:",
        "a:",
        "a ",
        "a\n",
    ),
    *("//", "//a:", "//a.", "//a/", "https://a@", "http://hooks.", "&sig=", "-u a:", "key: "),
    *("a=", "a=(", 'a="', "a='", "token=(", "token='", 'token="', 'token=\\"', "token:[1", "token"),
    *("--token ", "--token\n", '--token "-', "token= 3 ", "password=", "password={", "Bearer "),
    *("-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "eyJ", "eyJ.", "sk-", "sk-a-", "ghp_"),
    *("authorization: ", "authorization: '", "cookie"),
    *("a:b", " a:b", "sshpass -p '", "docker login ", "mysql ", "curl -ua ", "login a password"),
    *("<a>", "<a ", "<password>a", "('a','", "('password','", "password a1", "password ", "pwd=/"),
    *("pwd=/ ", "token=<a", "token=<a> ", "token=[A", "password%3D", "password a1b2c3:", "%3D"),
]


@pytest.mark.parametrize("piece", PIECES)
def test_the_time_is_linear(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight times the text takes about eight times as long: 64 times would be a square."""
    monkeypatch.setattr(redaction, "MAX_CHARACTERS", 2**30)

    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        began_s = time.process_time()
        redact(text)
        return time.process_time() - began_s

    short_s = min(seconds(4096) for _ in range(3))
    assert min(seconds(32768) for _ in range(2)) < 24 * short_s + 0.05


@pytest.mark.parametrize("piece", ["a ", "--token ", "//a:", "a:", "token=(", "-----BEGIN "])
def test_a_megabyte_costs_what_a_page_costs(piece: str) -> None:
    """The beginning alone is looked at."""
    text = piece * (2**20 // len(piece))
    began_s = time.process_time()
    assert len(redact(text)) <= MAX_CHARACTERS
    assert time.process_time() - began_s < 1.0
