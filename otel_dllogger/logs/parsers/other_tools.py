"""Recognise lines in which other tools print or log metrics."""

from __future__ import annotations

import re

_TOOLS = (
    (rb":::MLLOG ", "MLPerf's :::MLLOG"),
    (
        rb"\{'[^'{}]{1,100}': .{0,4000}'epoch': ",
        "Transformers, as its Trainer prints them",
    ),
    (
        rb"\bloss: [-\d.e+]+ - \w+: [\d.]|\d+/\d+\S* \S.{0,400} - loss: \d",
        "Keras, as its progress bar prints them",
    ),
    (rb"\bwandb: ", "Weights & Biases (wandb)"),
    (rb"\bEpoch \d+: .{0,200}\bv_num=", "Lightning's progress bar"),
    (rb"iteration +\d+/ *\d+ \|.{0,400}elapsed time per iteration", "Megatron-LM"),
    (rb"\bstep: *\d+ .{0,40}\bloss: *[\d.]+ .{0,80}\bmemory: *[\d.]+GiB", "torchtitan"),
    (rb"\beta: \d.{0,60}\biter: \d+ .{0,400}\btotal_loss: ", "Detectron2"),
    (rb"\bTest: +\[ *\d+/\d+", "a validation's batches, as PyTorch's examples print them"),
    (rb"Epoch +GPU_mem +\w+_loss", "Ultralytics, as its trainer prints them"),
    (
        rb"(?i:\b(?:epoch|step|iter(?:ation)?|batch|train)\b.{0,400}loss[\w/]{0,9}['\"]?[ :=]+\d)",
        "a tool that is not known",
    ),
)

_NAMES = {f"t{number}": name for number, (_regex, name) in enumerate(_TOOLS)}
_ANY = re.compile(b"|".join(b"(?P<t%d>%s)" % (n, regex) for n, (regex, _) in enumerate(_TOOLS)))
_HINT = re.compile(rb"MLLOG|wandb: |'epoch': |[Ll]oss|v_num=|elapsed time per")
_MAX_BYTES = 8_192


def name_tool(line: bytes) -> str | None:
    """Return what printed a line with metrics that is no record of a format that is read.

    Args:
        line: The line.

    Returns:
        The tool, in words that follow "lines of"; None if the line is not of a known one.
    """
    head = line[:_MAX_BYTES]
    if _HINT.search(head) is None:  # nearly all lines, in a tenth of the time
        return None
    found = _ANY.search(head)
    return None if found is None or found.lastgroup is None else _NAMES[found.lastgroup]
