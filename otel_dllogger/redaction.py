"""Find and redact secrets in text, by their form, by their name or by their place in a URL.

The forms are the most common ones that GitHub's secret scanning and gitleaks know
(https://github.com/gitleaks/gitleaks, ``config/gitleaks.toml``). A secret that has neither a
known form nor a telling name is not recognised.

Nothing here raises. The time is linear in the length of the text, which is limited first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otel_dllogger.secret_names import is_secret_name

if TYPE_CHECKING:
    from collections.abc import Iterable

REDACTED = "[redacted]"

MAX_CHARACTERS = 8192
"""Characters of a text that are searched, and so kept; a label has at most 256."""

_LONGEST_TOKEN = 1024
"""Characters at the end of a cut text, where half a secret may go unrecognised."""

# Each pattern matches a secret to its end, or to the end of the text, so that none matches again
# within what it consumed, and each begins at the beginning of a word. That keeps them linear.
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r".*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_USER_OF_URL = re.compile(
    r"(?<=//)(?:"
    r"""[^\s/?#"'<>@:]*:(?!\d{1,5}(?:[/?#]|\Z))[^\s"'<>@]{0,512}@(?:[^\s/?#"'<>@]{0,512}@)?"""
    r"""|(?<=https://)[^\s/?#"'<>@]+@|(?<=http://)[^\s/?#"'<>@]+@)"""
)
_WEBHOOK = re.compile(
    r"(//(?:(?:[\w-]+\.){0,8}(?:web)?hooks?\.[\w.-]+/|[\w.:-]+/(?:[\w.-]+/){0,8}?(?:web)?hooks?/))"
    r"""[^\s"'<>]+"""
)
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_\w{16,}"
    r"|gl(?:agent|cbt|dt|ffct|ft|imt|oas|pat|ptt|rt|soat)-[\w-]{16,}"
    r"|hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z]{20,}"  # but not hf_BertForMaskedLM
    r"|sk-(?:[A-Za-z0-9]{1,15}[_-]){0,8}[A-Za-z0-9]{16,}[\w-]*"  # but not sk-learn-...
    r"|(?:gsk_|npm_|pplx-|r8_|xai-)[A-Za-z0-9]{30,}|[prs]k_(?:live|test)_[A-Za-z0-9]{10,}"
    r"|nvapi-[\w-]{16,}|wandb_v\d_\w{16,}|dapi[0-9a-f]{32}[\w-]*|lsv2_[a-z]{2}_\w{16,}"
    r"|(?:ABIA|ACCA|AIDA|AKIA|AROA|ASIA)[A-Z0-9]{12,}|AIza[\w-]{30,}|ya29\.[\w.-]{16,}"
    r"|GOCSPX-[\w-]{16,}|xox[a-z](?:\.xox[a-z])?-[\w-]{8,}|xapp-[\w-]{16,}"
    r"|pypi-[\w-]{32,}|dckr_[a-z]{2,4}_[\w-]{16,}|do[opr]_v1_\w{16,}|hv[brs]\.[\w-]{16,}"
    r"|glsa_\w{16,}|SG\.[\w-]{16,}(?:\.[\w-]*)?|shp(?:at|ca|pa|ss)_\w{16,}"
    r"|\d{8,10}:AA[\w-]{32,}|AGE-SECRET-KEY-\w+"
    r"|eyJ[\w-]{10,}(?:\.[\w-]*){0,4}"  # a JSON Web Token
    r")"
)
_BEARER = re.compile(r"(?<![A-Za-z])(Bearer(?:\s+|%20|\+))[\w.~+/=%-]+", re.IGNORECASE)

_USER_AT_HOST = re.compile(
    r"""(?<![\w/.:@%+-])[A-Za-z][\w.+-]{0,63}:(?![\d.]+@)[^\s/@"'<>]{1,128}@"""
    r"(?!sha\d)"  # but not image:tag@sha256:...
    r"(?=localhost\b|[A-Za-z][\w-]{0,63}(?:\.[A-Za-z]|:\d)|\d{1,3}(?:\.\d{1,3}){3})"
)
_PASSWORD_OF_COMMAND = re.compile(
    r"((?<![\w-])(?:"
    r"sshpass\s{1,8}-p\s{0,8}|(?:docker|podman) login\b[^\r\n]{0,256}?\s-p[\s=]{0,8}"
    r"|(?:mysql\w{0,16}|mariadb)\b[^\r\n]{0,256}?\s-p"
    r"|curl\b[^\r\n]{0,256}?\s-u(?=[^\s:]{1,128}:)"
    r"|login\s{1,8}\S{1,128}\s{1,8}password\s{1,8}"  # in a .netrc
    r"""))(?:"[^"]{0,256}"|'[^']{0,256}'|[^\s"']+)"""
)
_ELEMENT = re.compile(r"(<(?P<name>[\w.:-]{1,64})(?:\s[^<>]{0,256})?>)(?P<value>[^<]+)(?=</)")
_ITEM = re.compile(  # an item of a dict, as in [('password', 'X')]
    r"""(\(\s?["'](?P<name>[\w.-]{1,64})["'],\s?["'])(?P<value>[^"']{1,512})(?=["']\))"""
)
_PAIR = re.compile(
    r"(?<![\w.-])(?P<name>-{0,2}\w[\w.-]*)\\{0,4}[\"']?"
    r"(?:\]?\s{0,8}(?:=>|:=|==?|%3[dD]|:(?!//))|,|(?=\s))\s{0,8}"
)
_MIXED = re.compile(  # unlike a word of a sentence: "password hunter2", not "password is wrong"
    r"""(?=\S{0,64}[A-Za-z])(?=\S{0,64}\d)\w[^\s"'=:,;)]{5,}={0,2}(?=["',;)]|\s|\Z)"""
)
_AFTER_A_WORD = frozenset(("code", "key", "pass", "phrase", "word"))  # as in "API key: X"
_WORD_BEFORE = re.compile(r"(\w{1,24}) \Z")
_IN_QUERY = frozenset(("key", "sig", "signature", "x-amz-signature", "x-goog-signature"))
_USERS = frozenset(("-u", "--user", "--proxy-user"))  # curl's, whose values hold the password
_HEADER = re.compile(r"(?:authorization|cookie)\Z", re.IGNORECASE)
_QUOTED = re.compile(
    r"""(?P<open>")(?:[^"\\]|\\.)*|(?P<single>')(?:[^'\\]|\\.)*"""
    r"""|(?P<escaped>\\{1,4}["']).*?(?:(?=(?P=escaped))|\Z)""",
    re.DOTALL,
)
_END = r"""(?!\\{0,4}["'](?:[\s,;:\])}]|\Z))"""
_LINE = re.compile(rf"(?:{_END}[^\r\n])*")
_WORD = re.compile(
    rf"(?:(?:basic|bearer|digest|token|apikey|negotiate)\s+)?(?:{_END}\S)*", re.IGNORECASE
)
_BRACKETS = re.compile(r"[\[({\])}]")
_NOTHING = frozenset(("", "none", "null", "nil", "true", "false", REDACTED))


def redact(text: str) -> str:
    """Return a text with ``[redacted]`` in place of each secret.

    It recognises tokens and keys of a known form, users and passwords in URLs, addresses of
    webhooks, and values after a name that suggests a secret, as in ``--password X``,
    ``api_key=X``, ``"token": "X"`` and ``Authorization: X``.

    Args:
        text: Any text; only the first ``MAX_CHARACTERS`` of a long one are returned.
    """
    whole = len(text) <= MAX_CHARACTERS
    safe = redact_forms(text[:MAX_CHARACTERS])
    safe = _USER_AT_HOST.sub(f"{REDACTED}@", safe)
    safe = _PASSWORD_OF_COMMAND.sub(rf"\1{REDACTED}", safe)
    safe = _ITEM.sub(_redact_named, _ELEMENT.sub(_redact_named, safe))
    safe = _redact_pairs(safe)
    return safe if whole else safe[:-_LONGEST_TOKEN] or REDACTED


def redact_forms(text: str) -> str:
    """Return a text with only those secrets redacted that are recognised by their form."""
    text = _PRIVATE_KEY.sub(REDACTED, text)
    text = _USER_OF_URL.sub(f"{REDACTED}@", text)
    text = _WEBHOOK.sub(rf"\1{REDACTED}", text)
    text = _TOKEN.sub(REDACTED, text)
    return _BEARER.sub(rf"\1{REDACTED}", text)


def redact_address(url: str) -> str:
    """Return an address without its user and password, wherever they are in it.

    Args:
        url: What was passed as an address; it need not be valid, nor have a scheme.
    """
    scheme, separator, rest = url.rpartition("://") if "://" in url else ("", "", url)
    if "@" in rest:
        rest = f"{REDACTED}@{rest.rpartition('@')[2]}"
    return redact(f"{scheme}{separator}{rest}")


def redact_users(text: str) -> str:
    """Return a message with ``[redacted]`` in place of users and passwords of addresses in it.

    Unlike ``redact``, it leaves all else, so that paths and options can be copied from a message.

    Args:
        text: Any text.
    """
    return _USER_AT_HOST.sub(f"{REDACTED}@", _USER_OF_URL.sub(f"{REDACTED}@", text))


def redact_arguments(arguments: Iterable[str]) -> list[str]:
    """Return the arguments of a program with ``[redacted]`` in place of each secret."""
    safe = []
    name = ""
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            hidden = name and is_secret_name(name, argument)
            safe.append(REDACTED if hidden else redact(argument))
        elif equals and is_secret_name(flag, value):
            safe.append(f"{flag}={REDACTED}")
        else:
            safe.append(redact(argument))
        name = flag if argument.startswith("-") and not equals else ""
    return safe


def _redact_named(match: re.Match[str]) -> str:
    secret = is_secret_name(match["name"], match["value"])
    return f"{match[1]}{REDACTED}" if secret and match["value"].strip() else match[0]


def _redact_pairs(text: str) -> str:
    parts: list[str] = []
    done = position = 0
    while (pair := _PAIR.search(text, position)) is not None:
        position = pair.end()
        name = pair["name"]
        flag = not text[pair.end("name") : position].strip(" \t\r\n\\\"',")
        if flag and not name.startswith("-"):
            mixed = _MIXED.match(text, position)
            position = pair.end("name")
            if mixed is not None and _is_secret_here(text, pair.start(), name, "1"):
                parts += (text[done : mixed.start()], REDACTED)
                done = position = mixed.end()
            continue
        if not _is_secret_here(text, pair.start(), name, ""):
            continue
        start, end = _value(text, position, name)
        value = text[start:end]
        if flag and value.startswith("-"):
            continue
        if _is_secret_here(text, pair.start(), name, value):
            if value.lower() not in _NOTHING:
                parts += (text[done:start], REDACTED)
                done = end
            position = end
    return "".join((*parts, text[done:]))


def _is_secret_here(text: str, start: int, name: str, value: str) -> bool:
    if is_secret_name(name, value):
        return True
    if text[start - 1 : start] in ("?", "&"):
        return name.lower() in _IN_QUERY
    if name in _USERS:
        return not value or ":" in value
    if name.lower() not in _AFTER_A_WORD:
        return False
    before = _WORD_BEFORE.search(text[max(start - 25, 0) : start])
    return before is not None and is_secret_name(f"{before[1]}_{name}", value)


def _value(text: str, position: int, name: str) -> tuple[int, int]:
    """Return where a value begins and ends, without the quotes around it."""
    quoted = _QUOTED.match(text, position)
    if quoted is not None:
        return quoted.end(quoted.lastgroup or 0), quoted.end()
    if text[position : position + 1] in tuple("[({"):
        return position, _end_of_bracket(text, position)
    match = (_LINE if _HEADER.search(name) else _WORD).match(text, position)
    end = match.end() if match is not None else position
    while (
        text[end - 1] in ",;)]}" and position < end and not text.endswith(REDACTED, position, end)
    ):
        end -= 1
    return position, end


def _end_of_bracket(text: str, position: int) -> int:
    depth = 0
    for bracket in _BRACKETS.finditer(text, position):
        depth += 1 if bracket[0] in "[({" else -1
        if not depth:
            return bracket.end()
    return len(text)
