"""What a metric is, by its metadata and by its name, and the labels that say so."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_dllogger.metrics.kinds import KINDS, guess_kind
from otel_dllogger.metrics.naming import (
    MAX_LABEL_CHARACTERS,
    is_scope,
    map_metric,
    parse_metadata,
    parse_scope,
)

LOSS, SCORE, THROUGHPUT, STEP_RATE, DURATION, LEARNING_RATE, GRADIENT_NORM = KINDS

# kind: {name: unit that it says or implies}
NAMES: dict[str | None, dict[str, str]] = {
    LOSS: dict.fromkeys(
        [
            *("loss", "train.loss", "loss_cls", "losses", "logLoss2", "NLLLoss", "loss_dice"),
            *("dice_loss", "MLM Loss", "train_loss_epoch", "nll", "ppl", "perplexity", "mse"),
            *("trainMSE", "cross-entropy", "bits_per_byte", "loss/policy_avg", "losses_0"),
            *("losses/value_loss", "lr_loss", "best_val_loss"),
            *("lm loss vs samples", "Train/Samples/train_loss"),
        ],
        "",
    ),
    SCORE: {
        **dict.fromkeys(
            [
                *("accuracy", "val.top1", "top-5", "acc@1", "acc_step", "mAP", "map", "mAP50"),
                *("bbox_mAP_50", "AP75", "bleu4", "ROUGE-L", "rougeLsum", "F1", "f1_score"),
                *("mIoU", "IoU", "AUC", "dice", "recall", "ndcg@100", "hr@10", "evalAccuracy"),
            ],
            "",
        ),
        "accuracy (%)": "%",
    },
    THROUGHPUT: {
        **dict.fromkeys(["throughput", "speed", "train/speed", "avg speed", "mfu"], ""),
        **dict.fromkeys(["tps", "tokens_per_sec", "tokens/s", "consumedTokensPerSec"], "tokens/s"),
        "mfu (%)": "%",
        "train.ips": "items/s",
        "fps": "frames/s",
        "imgs/s": "imgs/s",
        "val_items/s": "items/s",
        "train_samples_per_second": "samples/s",
        "samples/min": "samples/min",
        "Throughput (samples/sec)": "samples/sec",
        "throughput per GPU (TFLOP/s/GPU)": "TFLOP/s/GPU",
        "TFLOPs": "TFLOP/s",
        "TFLOPS_per_GPU": "TFLOP/s/gpu",
        "tokens/s/gpu": "tokens/s/gpu",
        "tokens-per-gpu-per-second": "tokens/s/gpu",
        "throughput_per_sec": "",
        "env_steps_per_second": "steps/s",
    },
    STEP_RATE: {
        "it/s": "it/s",
        "speed (it/s)": "it/s",
        "steps per second": "steps/s",
        "train_steps_per_second": "steps/s",
        "batches/sec": "batches/s",
        "ups": "updates/s",
    },
    DURATION: {
        **dict.fromkeys(["time", "data_time", "step_time", "GPUTime", "time_per_iteration"], "s"),
        **dict.fromkeys(["Time (s)", "forward_s", "data_seconds", "seconds_per_step", "s/it"], "s"),
        **dict.fromkeys(["iter_time_ms", "ms", "fwd_ms", "ms/step", "msPerIter"], "ms"),
        "elapsed time per iteration (ms)": "ms",
        "comm_us": "us",
    },
    LEARNING_RATE: dict.fromkeys(
        [
            *("lr", "learning rate", "learning-rate", "learning_rate", "learningRate", "lr/pg0"),
            *("lr0", "Train/Samples/lr"),
        ],
        "",
    ),
    GRADIENT_NORM: dict.fromkeys(
        ["grad_norm", "gradient norm", "gradNorm", "gnorm", "grad_2.0_norm_total"], ""
    ),
    None: dict.fromkeys(
        [
            *("", "memory", "step", "time_step", "timestamp", "損失", "weight_norm"),
            *("loss scale", "loss_scale", "lossScale", "loss_weight", "lossless", "packet loss"),
            *("lr_scale", "lr_decay", "color", "clr", "max_grad_norm_clip"),
            *("speed of light", "fan_speed", "wind speed", "network_throughput", "clips"),
            *("feature_map_size", "grad_acc_steps", "top-5 error", "heat_map"),
            *("eta", "total_time", "elapsed_time_ms", "epoch_time", "start_time", "time (h)"),
            # PPO's, which are logged beside losses
            *("losses/approx_kl", "losses/clipfrac", "losses/q_values", "losses/alpha"),
            *("loss/grad_norm", "loss_lr", "loss_spikes", "loss_delta", "loss_tokens"),
            *("best_loss_epoch", "best_acc_step", "acc_gap", "acc_tokens", "lr_scheduler_step"),
            *("code_perplexity", "prob_perplexity", "codebook/perplexity", "vq.perplexity"),
            *("fp16_precision", "matmul_precision", "moe/top2_expert_share", "val/FPs", "TPs"),
            *("total_tflops", "tflops_per_iteration", "peak_tflops", "tflops per sample"),
            *("acc_stderr", "bits_per_byte_stderr", "loss_std", "mfu_std", "fps stdev"),
            *("checkpoint_throughput", "h2d_throughput", "allreduce_throughput"),
            *("timestamp_ms", "unix_time", "time_stamp_ms", "uptime_seconds", "timeout_seconds"),
            *("current_time", "e2e_train_time", "audio_seconds", "heartbeat_age_seconds"),
            *("model_s", "about us", "samples_sec", "tokens/ms", "faults/s", "loss/sec"),
        ],
        "",
    ),
}


@pytest.mark.parametrize(
    ("name", "kind", "unit"),
    [(name, kind, unit) for kind, names in NAMES.items() for name, unit in names.items()],
)
def test_a_name_says_what_a_metric_is(name, kind, unit):
    """By whole words, and by a unit in or behind it; what is not certain has no kind."""
    assert guess_kind(name)[:2] == (kind, unit)
    labels = map_metric(name, parse_metadata({})).attributes
    assert (labels.get("kind"), labels.get("unit", "")) == (kind, unit)


@pytest.mark.parametrize("name", [name for names in NAMES.values() for name in names])
def test_a_guess_never_changes_the_name(name):
    """A series is called the same whatever its name says of its unit."""
    assert map_metric(name, parse_metadata({})).unit == ""


# (name, unit, GOAL): (kind, label unit)
METADATA = {
    # a unit per time, by what is counted
    ("x", "imgs/s", None): (THROUGHPUT, "imgs/s"),
    ("x", "tokens/s", "MAXIMIZE"): (THROUGHPUT, "tokens/s"),
    ("loss", "samples/min", None): (THROUGHPUT, "samples/min"),
    ("x", "TFLOP/s/GPU", None): (THROUGHPUT, "TFLOP/s/GPU"),
    ("x", "fps", None): (THROUGHPUT, "fps"),
    ("x", "it/s", "MAXIMIZE"): (STEP_RATE, "it/s"),
    ("speed", "iterations/s", None): (STEP_RATE, "iterations/s"),
    ("it/s", "1/s", None): (STEP_RATE, "1/s"),
    ("faults", "faults/s", "MINIMIZE"): (None, "faults/s"),
    ("read", "MB/s", None): (None, ""),
    ("read", "MB/s", "MAXIMIZE"): (THROUGHPUT, ""),
    # a unit of time
    ("x", "s", None): (DURATION, ""),
    ("loss", "ms", "MINIMIZE"): (DURATION, ""),
    ("data_time", "ms", None): (DURATION, ""),
    ("total_time", "min", None): (DURATION, ""),
    # a GOAL
    ("x", None, "MINIMIZE"): (LOSS, ""),
    ("x", "", "MAXIMIZE"): (SCORE, ""),
    ("loss_scale", None, "MINIMIZE"): (LOSS, ""),
    ("lossless_psnr", None, "MAXIMIZE"): (SCORE, ""),
    ("x", "%", "MAXIMIZE"): (SCORE, ""),
    ("accuracy", "%", None): (SCORE, ""),
    ("x", "%", "MINIMIZE"): (None, ""),
    ("accuracy (%)", None, "MAXIMIZE"): (SCORE, "%"),
    # unless the name says that it is something else
    ("lr", None, "MAXIMIZE"): (LEARNING_RATE, ""),
    ("mfu", "%", "MAXIMIZE"): (THROUGHPUT, ""),
    ("grad_norm", None, "MINIMIZE"): (GRADIENT_NORM, ""),
    ("data_time", None, "MINIMIZE"): (DURATION, "s"),
    ("data_time", "%", None): (None, ""),
    # units that are neither
    ("loss", "nat", "MINIMIZE"): (LOSS, "nat"),
    ("elbo", "nats", "MINIMIZE"): (LOSS, "nats"),
    ("loss", "nat", "MAXIMIZE"): (None, "nat"),
    ("quality", "bleu", None): (SCORE, "bleu"),
    ("x", "TFLOPS", None): (THROUGHPUT, "TFLOPS"),
    ("memory", "GB", "MINIMIZE"): (None, ""),
    ("loss", "MiB", None): (None, ""),
    ("損失", "秒", "MINIMIZE"): (None, "秒"),
}


@pytest.mark.parametrize(("name", "unit", "goal"), METADATA, ids=repr)
def test_metadata_win(name, unit, goal):
    """What they say of a unit and a goal decides; the label has the unit as it was given."""
    labels = map_metric(name, parse_metadata({"unit": unit, "GOAL": goal})).attributes
    assert (labels.get("kind"), labels.get("unit", "")) == METADATA[name, unit, goal]


@pytest.mark.parametrize(
    ("raw", "scope"),
    [
        *((raw, "rank") for raw in ("rank", "RANK", " Rank ", "PER_RANK", "per-gpu", "local")),
        *((raw, "global") for raw in ("global", "GLOBAL", "Total", "all ranks", "world")),
        *((raw, None) for raw in ("NONE", "", "node", "everything", None, 1, ["rank"])),
    ],
)
def test_scopes(raw, scope):
    """A scope is rank or global; anything else is not exported."""
    assert parse_scope(raw) == scope
    assert map_metric("ips", parse_metadata({"scope": raw})).attributes.get("scope") == scope


def test_which_scopes_are_known():
    """Those that mean something, and the words for none."""
    assert [is_scope(raw) for raw in ("rank", "Global", "none", "", "node")] == [
        *(True, True, True, True, False)
    ]


def test_the_shares_of_ranks_do_not_add_up():
    """The MFU of each rank stands for that of the run, unless the metadata say otherwise."""
    assert map_metric("mfu", parse_metadata({})).scope == "global"
    assert map_metric("mfu", parse_metadata({"unit": "%", "GOAL": "MAXIMIZE"})).scope == "global"
    assert map_metric("mfu", parse_metadata({"SCOPE": "RANK"})).scope == "rank"
    assert map_metric("tps", parse_metadata({})).scope is None


# Whatever scripts pass

WORDS = st.sampled_from(
    [
        *(word for names in NAMES.values() for word in names),
        *(unit for _name, unit, _goal in METADATA if unit),
        *("/", "_", " per ", "(", ")", "[", "]", "{", "}", "%", "s", "ms", "\x00", "\ud800"),
    ]
)
TEXT = st.text() | st.lists(WORDS).map("".join)


@given(TEXT, TEXT | st.none(), st.sampled_from(["MINIMIZE", "MAXIMIZE", None]), TEXT)
@example("x" * 10_000 + " (tokens/s)", "y" * 10_000 + "/s", None, "rank")
@example("(" * 300, "per " * 300, None, "")
@example("throughput (\x00tokens/s)", None, None, "")
def test_every_kind_is_one_of_the_list_and_labels_are_short(name, unit, goal, scope):
    """Nothing raises, and a kind never contradicts the GOAL."""
    raw = {"unit": unit, "GOAL": goal, "SCOPE": scope}
    mapped = map_metric(name, parse_metadata(raw))
    assert mapped.kind in (*KINDS, None)
    assert mapped.scope in ("rank", "global", None)
    assert len(mapped.unit_label) <= MAX_LABEL_CHARACTERS
    assert mapped.unit_label.isprintable() or unit
    assert all(mapped.attributes[label] for label in mapped.attributes if label != "metric")
    assert (mapped.kind, mapped.goal) not in ((LOSS, "maximize"), (SCORE, "minimize"))
    without = map_metric(name, parse_metadata({"unit": unit}))
    assert mapped.prometheus_name == without.prometheus_name
