"""Names that speak of secrets, told from hyper-parameters that only sound like it.

The words follow well-kept lists: ``DEFAULT_DENYLIST`` of sentry-sdk
(https://github.com/getsentry/sentry-python, ``sentry_sdk/scrubber.py``), the default patterns
of Pydantic Logfire (https://logfire.pydantic.dev/docs/how-to-guides/scrubbing) and the keyword
plugin of detect-secrets (https://github.com/Yelp/detect-secrets), less what they list of web
sessions, addresses and persons. None of them is a dependency: each comes with far more than its
list, and compares parts of words or whole names, which hides ``max_tokens``, ``eos_token`` and
``bypass`` or misses ``HFToken``, ``db_pass`` and ``GITHUB_PAT``.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD_BREAKS = re.compile(r"[\W\d_]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

_ALWAYS = re.compile(
    r"password|passwd|pwd|passphrase|passcode|(?<![a-z])pass_(?:word|phrase|code|key)"
    r"|(?<![a-z])passkey|secret(?!ar|ion|or)|credential|(?:api|private|access)_?key"
    r"|(?<!un)auth(?!or(?!i[sz]))"  # not of author, authority and 401 Unauthorized
    r"|bearer|cookie|web_?hook|(?<![a-z])(?:creds?|csrf|dsn|jwts?|mfa|t?otps?|xsrf)(?![a-z])"
)
"""What no hyper-parameter is called, in words joined by ``_``."""

# What follows is a secret or not by what stands before it.
_SINGULARS = {
    "token": "token",
    "tokens": "token",
    "key": "key",
    "keys": "key",
    "pass": "pass",
    "pat": "pat",
    "pats": "pat",
    "pin": "pin",
    "pins": "pin",
    "code": "code",
    "codes": "code",
}
_COMPOUND = re.compile(r"([a-z]+)(tokens?|keys?|pass|pats?|pins?|codes?)")
_TAILS = _words("base dev hex id ids new old pem prod read staging str string text value write")

_HOLDERS = _words(
    """
    account admin aes app application bot cipher client consumer crypto database db decrypt
    decryption deploy deployment dsa ecdsa email encrypt encryption ftp gpg hmac http https hub
    ingest ingestion key ldap licence license login mail master org personal pgp priv proxy root
    rsa server service session sftp sign signing smtp ssh ssl storage store subscription sudo
    team tls user wallet

    ai aim airtable algolia anthropic atlassian aws azure bitbucket clearml cloudflare cohere
    comet dagshub databricks datadog deepseek devops discord docker dockerhub elastic firebase
    gcp gemini gh git github gitlab google grafana groq heroku hf honeycomb huggingface jira
    kaggle langchain langfuse langsmith logfire minio mistral mlflow modal modelscope mongo
    mongodb mysql neptune newrelic ngc notion npm nvidia openai openrouter perplexity pg pinecone
    postgres pypi redis replicate runpod sendgrid sentry slack snowflake stripe swanlab telegram
    together twilio vault wandb weaviate xai
    """
)
"""Whose key, pass or personal access token is a secret: uses first, then services."""

_CODES_OF = _words(
    "access activation backup confirmation login pin recovery security sms verification"
)

_TOKENS_OF_TEXT = _words(
    """
    assistant audio begin blank boa boi bos boundary by class classification cls context control
    decoder delimiter dist distillation dummy empty encoder end eoa eod eof eoi eom eos eot fill
    fim first forced global ignore image img infix label language latent lang last learnable
    mask masked max mean memory middle min n new newline next null num object oov pad padding
    patch per prefix prompt query register sentinel sep separator seq sequence skip soft soi sos
    sot space special speech start stop sub suffix system text thinking think time timestamp
    timestamps tool transcribe translate unk unknown video virtual vision visual vocab vq word
    """
)
"""What a token of a language model is called by."""

_TOKENS_COUNTED = _words(
    """
    active added additional batch completion consumed decay drop dropped eval expert extra
    generated in input output out processed remaining reserved response sampled seen target test
    total train trained training unique val valid validation warmup
    """
)
"""What many of them are called by."""

_COUNT = re.compile(r"\s*[+-]?\d[\d.,_]*(?:[eE][+-]?\d+)?\s?[kKmMgGbBtT]?\s*", re.ASCII)
_LONGEST_COUNT = 64

_EITHER_END = 1024
"""Characters of a name that are looked at, at its beginning and at its end."""


def is_secret_name(name: str, value: object = "") -> bool:
    """Tell whether a value of this name is nobody's business.

    A name of which a part between dots speaks of a secret does so as a whole: what is in
    ``token.value`` is one. Where a word has another meaning too, the value decides: tokens,
    keys, codes and the like are secrets as text, and counts as a number or as ``300B``; True and
    False hold no secret. A single ``token`` or ``pin`` is one as a number as well.

    Args:
        name: As ``optimizer.lr``, ``--api-key``, ``HFToken`` or ``X-Auth-Token``.
        value: A plain value.
    """
    if len(name) > 2 * _EITHER_END:
        name = f"{name[:_EITHER_END]} {name[-_EITHER_END:]}"
    before: list[str] = []
    for part in name.split("."):
        words = _WORD_BREAKS.sub(" ", part).lower().split()
        if _ALWAYS.search("_".join(before[-1:] + words)):
            return True
        if not isinstance(value, bool) and _ends_in_secret(before[-2:], words, value):
            return True
        before = before[-2:] + words
    return False


def _ends_in_secret(before: list[str], words: list[str], value: object) -> bool:
    """Tell it of the words of one part, where its last one has several meanings."""
    end = len(words)
    while end and words[end - 1] in _TAILS:
        end -= 1
    if not end:
        return False
    last, before = words[end - 1], before + words[: end - 1]
    compound = None if last in _SINGULARS else _COMPOUND.fullmatch(last)
    # Not of spin, monkey and compass.
    if compound and (compound[2][:5] == "token" or compound[1] in _HOLDERS | _CODES_OF):
        before, last = [*before, compound[1]], compound[2]
    noun = _SINGULARS.get(last)
    number = _is_number(value)
    if noun is None or (number and last != noun):
        return False
    of = before[-1] if before else ""
    held = of in _HOLDERS or "".join(before[-2:]) in _HOLDERS  # also of OpenAI and Hugging Face
    if noun == "token":
        counted = last != noun and of in _TOKENS_COUNTED
        return not counted and of not in _TOKENS_OF_TEXT and words[end : end + 1] != ["id"]
    if noun == "pin":
        return True
    if noun == "code":
        return of in _CODES_OF
    return held or (noun in ("pass", "pat") and words[:end] == [noun] and not number)


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_COUNT and _COUNT.fullmatch(value) is not None
    return isinstance(value, (int, float))
