"""Tell names that suggest secrets from hyper-parameters that only sound like them.

The words come from well-maintained lists: ``DEFAULT_DENYLIST`` of sentry-sdk
(https://github.com/getsentry/sentry-python, ``sentry_sdk/scrubber.py``), the default patterns
of Pydantic Logfire (https://logfire.pydantic.dev/docs/how-to-guides/scrubbing) and the keyword
plugin of detect-secrets (https://github.com/Yelp/detect-secrets), without their entries about
web sessions, addresses and persons. None of them is a dependency: each comes with far more than
its list. They also compare parts of words or whole names, which hides ``max_tokens``,
``eos_token`` and ``bypass``, or misses ``HFToken``, ``db_pass`` and ``GITHUB_PAT``.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD_BREAKS = re.compile(r"[\W\d_]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

_ALWAYS = re.compile(
    r"password|passwd|pswd|pwd|passphrase|passcode|(?<![a-z])pass_(?:word|phrase|code|key)"
    r"|(?<![a-z])passkey|secret(?!ar|ion|or)|credential|(?:api|private|access)_?key"
    r"|(?<!un)auth(?!or(?!i[sz]))"  # but not author, authority and 401 Unauthorized
    r"|bearer|cookie(?!_?cutter)|web_?hook|seed_?phrase"
    r"|(?<![a-z])(?:creds?|csrf|dsn|jwts?|mfa|mnemonic|t?otps?|xsrf)(?![a-z])"
)
"""Names that only secrets have, as words joined by ``_``."""

# Whether these are secrets depends on the words before them.
_SINGULARS = {
    "token": "token",
    "tokens": "token",
    "key": "key",
    "keys": "key",
    "pass": "pass",
    "pat": "pat",
    "pats": "pat",
    "pw": "pw",
    "pin": "pin",
    "pins": "pin",
    "code": "code",
    "codes": "code",
}
_COMPOUND = re.compile(r"([a-z]+)(tokens?|keys?|pass|pats?|pins?|pw|codes?)")
_TAILS = _words("base dev hex id ids new old pem prod read staging str string text value write")

_USES = _words(
    """
    account admin aes app application bot cert certificate cipher client consumer crypto database
    db decrypt decryption deploy deployment dsa ecdsa email encrypt encryption ftp gpg hmac host
    http https hub ingest ingestion key kms ldap licence license login mail master org personal pgp
    priv proxy root rsa sa server service session sftp sign signing smtp ssh ssl storage store
    subscription sudo team tls user wallet
    """
)
_SERVICES = _words(
    """
    ai aim airtable algolia anthropic atlassian aws azure bitbucket clearml cloudflare cohere
    comet dagshub databricks datadog deepseek devops discord docker dockerhub elastic firebase
    gcp gemini gh git github gitlab google grafana groq heroku hf honeycomb huggingface jira
    kaggle langchain langfuse langsmith logfire minio mistral mlflow modal modelscope mongo
    mongodb mysql neptune newrelic ngc notion npm nvidia openai openrouter perplexity pg pinecone
    postgres pypi redis replicate runpod sendgrid sentry slack snowflake stripe swanlab telegram
    together twilio vault wandb weaviate xai
    """
)
_HOLDERS = _USES | _SERVICES
"""Words after which a key, pass or personal access token is a secret."""

_CODES_OF = _words(
    "access activation backup confirmation login pin recovery security sms unlock verification"
)

_TOKENS_OF_TEXT = _words(
    """
    assistant audio begin blank boa boi bos boundary by class classification cls context control
    decoder delimiter dist distillation dummy empty encoder end eoa eod eof eoi eom eos eot fill
    fim first forced global ignore image img infix label language latent lang last learnable mask
    masked max mean memory middle min n new newline next null num object oov pad padding patch per
    pool pooling prefix prompt query register role sentinel sep separator seq sequence skip soft
    soi sos sot space speaker special speech src start stop sub suffix system task text tgt
    thinking think time timestamp timestamps tool transcribe translate unk unknown video virtual
    vision visual vocab vq word
    """
)
"""Words that precede ``token`` in the names of a language model's special tokens."""

_TOKENS_COUNTED = _words(
    """
    active added additional batch completion consumed decay draft drop dropped eval expert extra
    generated in input output out processed remaining reserved response sampled seen target test
    total train trained training unique val valid validation warmup
    """
)
"""Words that precede ``tokens`` in the names of token counts."""

_COUNT = re.compile(r"\s*[+-]?\d[\d.,_]*(?:[eE][+-]?\d+)?\s?[kKmMgGbBtT]?\s*", re.ASCII)
_LONGEST_COUNT = 64

_MEASURES = _words("accuracy count counts dim exposure len length loss num rate ratio score size")
"""Last words in the names of counts and measurements."""

# Both are short and contain no "=", so that neither can hide a secret with another name.
_SPECIAL_TOKEN = re.compile(r"<[^<>\s=]{1,64}>|\[/?[A-Z_]{1,16}\d{0,4}\]", re.ASCII)
_PATH = re.compile(r"(?:[.~]{0,2}/|[A-Za-z]:[\\/])[^\n=:;,\"']{0,255}")

_EITHER_END = 1024
"""Characters of a name that are examined, at its beginning and at its end."""


def is_secret_name(name: str, value: object = "") -> bool:
    """Return whether a value with this name must not be exported.

    A name is that of a secret if any of its parts between dots is, as in ``token.value``.
    Names such as ``password`` mean a secret whether the value is text or a number. For words
    that have another meaning too, such as token, key and code, the value decides: text is a
    secret, a number or ``300B`` is a count. A bare ``token`` or ``pin`` is a secret as a number
    as well.

    Whatever the name, True and False are flags, and a number is not a secret if the last word is
    a measure, as in ``api_key_count``. A ``user_token`` that looks like a special token,
    ``<|user|>`` or ``[USER]``, is one; a ``pwd`` that is a path is the working directory.

    Args:
        name: A name such as ``optimizer.lr``, ``--api-key``, ``HFToken`` or ``X-Auth-Token``.
        value: A plain value.
    """
    if len(name) > 2 * _EITHER_END:
        name = f"{name[:_EITHER_END]} {name[-_EITHER_END:]}"
    parts = [_WORD_BREAKS.sub(" ", part).lower().split() for part in name.split(".")]
    if isinstance(value, bool) or _is_measure(parts[-1], value) or _is_folder(parts[-1], value):
        return False
    before: list[str] = []
    for words in parts:
        if _ALWAYS.search("_".join(before[-1:] + words)):
            return True
        if _ends_in_secret(before[-2:], words, value):
            return True
        before = before[-2:] + words
    return False


def _ends_in_secret(before: list[str], words: list[str], value: object) -> bool:
    """Return whether the words of one part name a secret, if the last has several meanings."""
    end = len(words)
    while end and words[end - 1] in _TAILS:
        end -= 1
    if not end:
        return False
    last, before = words[end - 1], before + words[: end - 1]
    compound = None if last in _SINGULARS else _COMPOUND.fullmatch(last)
    # This must not match spin, monkey and compass.
    if compound and (compound[2][:5] == "token" or compound[1] in _HOLDERS | _CODES_OF):
        before, last = [*before, compound[1]], compound[2]
    of_service = last in _SERVICES and before[-1:] != [] and before[-1] in _SINGULARS
    if of_service:  # as in key_openai
        last, before = before[-1], before[:-1]
    noun = _SINGULARS.get(last)
    number = _is_number(value)
    if noun is None or (number and last != noun):
        return False
    of = before[-1] if before else ""
    held = of_service or of in _HOLDERS or "".join(before[-2:]) in _HOLDERS  # or Open AI
    if noun == "token":
        counted = last != noun and of in _TOKENS_COUNTED
        of_text = of in _TOKENS_OF_TEXT or words[end : end + 1] in (["id"], ["ids"])
        return not counted and not of_text and not _is_special_token(value)
    if noun == "pin":
        return True
    if noun == "code":
        return of in _CODES_OF
    return held or (noun in ("pass", "pat", "pw") and words[:end] == [noun] and not number)


def _is_measure(words: list[str], value: object) -> bool:
    return bool(words) and words[-1] in _MEASURES and _is_number(value)


def _is_folder(words: list[str], value: object) -> bool:
    named = words in (["pwd"], ["oldpwd"])
    return named and isinstance(value, str) and _PATH.fullmatch(value) is not None


def _is_special_token(value: object) -> bool:
    return isinstance(value, str) and _SPECIAL_TOKEN.fullmatch(value) is not None


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_COUNT and _COUNT.fullmatch(value) is not None
    return isinstance(value, (int, float))
