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
    (rb"\bcopypaste: \S", "Detectron2's results without their names"),
    (rb"\bppocr \w+: (?:epoch: \[|cur metric|best metric)", "PaddleOCR"),
    (rb"\bppcls \w+: \[(?:Train|Eval)\]", "PaddleClas"),
    (rb"\[(?:TRAIN|EVAL)\] .{0,200}(?:\bloss: \d|\bmIoU: \d)", "PaddleSeg"),
    (rb"\bTrain: \[\d+/\d+\]\[\d+/\d+\]", "Swin Transformer"),
    (rb"\[step=\d+/\d+,epoch=\d+\]|^ {4}(?:train|optim|throughput)/[\w./ -]+=[-\d]", "OLMo"),
    (
        rb"\[(?:batch|epoch)=\d+(?:/\d+)?\]:|^\s*(?:Train|Eval) [\w./ -]+: [-\d.]+\s*$",
        "Composer",
    ),
    (rb"\bstep +\d+/\d+ \| loss [\d.]+ \(", "llm.c"),
    (rb"\bstep:\d+/\d+ (?:train|val)_loss:[\d.]", "modded-nanogpt"),
    (rb"\bEpoch \d+ \| iter \d+ step \d+ \| loss train: ", "LitGPT"),
    (rb"\bcompleted step: \d+, seconds: [\d.]+.{0,400}\bloss: ", "MaxText"),
    (rb"\bINFO:tensorflow:(?:loss = |global_step/sec: )|\bloss = \S+, step = \d", "TensorFlow"),
    (rb"logging_writer(?:\.py:\d+)?\]? ?\[\d+\] \S+=", "Flax's examples (clu)"),
    (rb"\bSpeed: [\d.]+ samples/sec", "MXNet"),
    (rb"\bIteration \d+(?: \(.{1,60}\))?, loss = ", "Caffe"),
    (rb"\bepoch: \d+/\d+, iter: \d+/\d+, .{0,200}loss: ", "YOLOX"),
    (rb"^ *\d+: [\d.]+, [\d.]+ avg(?: loss)?, [\d.]+ rate, ", "Darknet"),
    (rb"\bStep +\d+/ *\d+; +acc: ", "OpenNMT"),
    (rb"\b\d+epoch:(?:train|valid|results)", "ESPnet"),
    (rb"\bEpoch \d+, batch \d+, .{0,40}loss\[", "icefall"),
    (rb"\b(?:TRAIN|CV) Batch \d+/\d+ loss ", "WeNet"),
    (rb"\bepoch: \d+, .{0,200} - train loss: ", "SpeechBrain"),
    (rb"\bepoch \d+ - iter \d+/\d+ - loss ", "Flair"),
    (rb"loss: [\d.]+ \|\|: ", "AllenNLP"),
    (rb"^E +# +LOSS ", "spaCy"),
    (rb"^epoch +train_loss +valid_loss", "fastai"),
    (rb"\bep_rew_mean +\| ", "Stable-Baselines3"),
    (rb"\bstep:\d+ - \S+:[-\d.]+ - ", "verl"),
    (rb"\[\d+\](?:\t[\w.-]+-\w+:[\d.]+)+", "XGBoost"),
    (rb"\[\d+\]\s+\w+'s \S+: [\d.]", "LightGBM"),
    (rb"^\d+:\s+(?:learn|test): [\d.]+.{0,200}total: ", "CatBoost"),
    (
        rb"\bTest(?: \([\w-]{1,40}\))?: +\[ *\d+/\d+",
        "a validation's batches, as PyTorch's examples print them",
    ),
    (rb"Epoch +GPU_mem +\w+_loss", "Ultralytics, as its trainer prints them"),
)
# Only of what no other tool prints: it would be found further to the left.
_ANY_TOOL = re.compile(
    rb"(?i:\b(?:epoch|step|iter(?:ation)?|batch|train)\b.{0,400}loss[\w/]{0,9}['\"]?[ :=]+\d)"
)

_NAMES = {f"t{number}": name for number, (_regex, name) in enumerate(_TOOLS)}
_ANY = re.compile(b"|".join(b"(?P<t%d>%s)" % (n, regex) for n, (regex, _) in enumerate(_TOOLS)))
_HINT = re.compile(
    rb"MLLOG|wandb: |'epoch': |[Ll]oss|LOSS |v_num=|elapsed time per|copypaste: |pp(?:ocr|cls) "
    rb"|mIoU: |Train: \[|Test[: ]|step[=:]\d|batch=\d|epoch=\d|    (?:train|optim|throughput)/"
    rb"|(?:Train|Eval) \w|global_step/sec|logging_writer|samples/sec|Step +\d|\depoch:|ep_rew_mean"
    rb"|\]\t|'s \w+: |total: "
)
_MAX_BYTES = 8_192


def name_tool(line: bytes) -> str | None:
    """Return what printed a line with metrics that is not a record of a format that is read.

    Args:
        line: The line.

    Returns:
        The tool, in words that follow "lines of"; None if the line is not of a known one.
    """
    head = line[:_MAX_BYTES]
    if _HINT.search(head) is None:  # nearly all lines, in a tenth of the time
        return None
    found = _ANY.search(head)
    if found is not None and found.lastgroup is not None:
        return _NAMES[found.lastgroup]
    return None if _ANY_TOOL.search(head) is None else "a tool that is not known"
