"""The document about MMEngine's logging, in what needs MMEngine and PyTorch."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest

from tests.support.mmengine_examples import TEXT, Example, examples, output_of, printed_by, steady

_PROGRESS = re.compile(r"\d\d/\d\d \d\d:\d\d:\d\d - mmengine - INFO - (Epoch|Iter)\(")
_ROW = re.compile(r"^\| .* \| .*\|$", re.MULTILINE)
_SERIES = re.compile(r"`(dl\w+)\{([^`]*)\}`")

# Train and test with a configuration's names, and print the page before each end.
_RUN_CONFIG = """
import sys
from urllib.request import urlopen
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tests.support.mmengine_toy import toy_config

@HOOKS.register_module()
class ShowPage(Hook):
    priority = "LOWEST"
    def show(self, runner):
        backend = runner.visualizer.get_backend("DLLoggerVisBackend")
        page, = [b for b in backend.experiment.backends if hasattr(b, "url")]
        print(urlopen(page.url).read().decode())
    def after_val_epoch(self, runner, metrics=None):
        self.show(runner)
    def after_test(self, runner):
        self.show(runner)

config = Config.fromstring(sys.stdin.read(), ".py").to_dict()
config["custom_hooks"] = [*config["custom_hooks"], dict(type="ShowPage")]
maximum = dict(data_src="loss1", log_name="loss1_max", method_name="max", window_size=10)
toy = dict(log_processor=dict(by_epoch=True, custom_cfg=[maximum]))
runner = Runner.from_cfg(toy_config("work_dir", by_epoch=True, **toy, **config))
runner.train()
runner.test()
"""


def progress(printed: str) -> str:
    """Return the lines about the training, without those about the machine and the hooks."""
    return "".join(f"{line}\n" for line in printed.splitlines() if _PROGRESS.match(line))


@pytest.mark.parametrize("example", examples("mmengine"), ids=str)
def test_example_prints_what_the_document_says(example: Example) -> None:
    """MMEngine's Runner prints the block of text below the block of Python."""
    printed = printed_by(example.section, "mmengine")
    assert steady(progress(printed[example.number - 1])) == steady(example.printed)


@cache
def page_with(config: str) -> str:
    """Return the pages of a training and a test that a configuration leads to."""
    return output_of(_RUN_CONFIG, config)


def labels(text: str) -> set[str]:
    """Return the labels of a series as ``name="value"``."""
    return set(re.findall(r'\w+="[^"]*"', text))


@pytest.mark.parametrize("example", examples("config"), ids=str)
def test_config_gives_the_series_of_the_table(example: Example) -> None:
    """With these lines in a configuration the page has what the table says."""
    pages = re.findall(r"^(\w+)\{(.*)\} ", page_with(example.source), re.MULTILINE)
    series = [(name, labels(text)) for name, text in pages]
    said = [
        (name, labels(text))
        for row in _ROW.findall(TEXT)
        for name, text in _SERIES.findall(row)
        if name != "dl_memory_mebibytes"  # needs an accelerator
    ]
    assert len(said) >= 9, said
    missing = [
        (name, wanted)
        for name, wanted in said
        if not any(name == other and wanted <= found for other, found in series)
    ]
    assert missing == [], json.dumps(sorted(name for name, _ in series))
