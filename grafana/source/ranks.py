"""Ranks: which one is slow, on which machine it runs, which one is behind or silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.source import goodput, promql, variables
from grafana.source.board import add_row, new_board
from grafana.source.graphs import distribution, lines, tally
from grafana.source.health import alert_list, rules_loaded, run_state
from grafana.source.panels import COUNT, GREEN, RED, YELLOW, About, Query
from grafana.source.promql import CHOSEN, RANK, RANKS, RUN, RUNS
from grafana.source.tables import Column, rows
from grafana.source.thresholds import (
    DROP_RATIO,
    OVERHEAD_RATIO,
    SKEW_S,
    SLOW_RATIO,
    SLOW_STEP_RATIO,
    STALLED_S,
)

if TYPE_CHECKING:
    from grafana.source.sdk import Builder, dashboard, models

UID = "otel-dllogger-ranks"

_EXCESS = f"rank:dllogger_excess:ratio{{{RUNS}}}"
_OF_STEP = ((None, GREEN), (SLOW_RATIO / 2, YELLOW), (SLOW_RATIO, RED))
_P99 = f"rank:dllogger_step_duration_seconds:p99_5m{{{RUNS}}}"
_INFO = f"rank:dllogger_rank_info:last1h{{{RUNS}}}"
_SILENCE = f"rank:dllogger_silence_seconds:last1h{{{RUNS}}}"


def build() -> dashboard.Dashboard:
    """Return the dashboard for finding a slow, silent or lost rank."""
    board = new_board(
        "Ranks",
        UID,
        "Which rank is slow, and on which machine; which ranks are behind, silent or losing "
        "records. Only the worst ranks and the chosen ones are drawn.",
        [
            variables.datasource(),
            variables.job(),
            variables.run(several=False),
            variables.stage(),
            variables.granularity(),
            variables.metric(),
            variables.rank(),
            variables.how_many("worst", "Worst", "How many of the worst ranks are drawn"),
        ],
    )
    add_row(board, "Now", run_state(), rules_loaded(), alert_list(width=16, height=4))
    add_row(board, "Slowest", *_slowest())
    add_row(board, "Over time", *_over_time())
    add_row(board, "Where the time went", goodput.of_ranks())
    add_row(board, "Behind, silent, lost or NaN", *_behind(), _lost(), _nonfinite())
    add_row(board, "GPUs", *_gpus(), folded=True)
    add_row(board, "Machines", *_machines(), folded=True)
    add_row(board, "Logging itself", *_logging())
    return board


def _worst(expression: str, by: str, moment: str = "") -> str:
    """Return the k largest values of a run: at each point, or at one moment."""
    return f"topk by ({RUN}) ($worst, max by ({by}) ({expression}{moment}))"


def _rank_column() -> Column:
    link = (
        f"/d/{UID}?${{__url_time_range}}&var-datasource=${{datasource}}"
        "&var-job=${__data.fields.Job:percentencode}"
        "&var-run=${__data.fields.Run:percentencode}&var-rank=${__value.text}"
    )
    return Column("rank", "Rank", link=link, width=70)


def _slowest() -> list[Builder[models.Panel]]:
    slowest = _worst(_EXCESS, RANK)
    with_host = f"* on ({RANK}) group_left (host) {_INFO}"
    return [
        rows(
            About(
                "Slowest ranks",
                "How much longer a rank takes than the median rank, as a share of the run's step "
                "time, over the last five minutes: for the whole step, or for the part of it that "
                "differs most. Ranks that wait for each other all have the step time of the "
                "slowest: then only a part that is logged, such as the time to read data, tells "
                "which rank is slow. If it is always the same machine, exclude it.",
                nothing="No rank makes steps",
            ),
            [
                Query(
                    promql.each(
                        f"{RANK}, metric",
                        f"topk by ({RANK}) (1, {_EXCESS}) and on ({RANK}) {slowest}",
                    )
                ),
                Query(
                    promql.each(f"{RANK}, host, local_rank", f"{_INFO} and on ({RANK}) {slowest}")
                ),
                Query(
                    promql.each(
                        RANK,
                        f"rank:dllogger_step_seconds:mean5m{{{RUNS}}} and on ({RANK}) {slowest}",
                    )
                ),
                Query(promql.each(RANK, f"{_SILENCE} and on ({RANK}) {slowest}")),
            ],
            [
                _rank_column(),
                Column("host", "Host"),
                Column("local_rank", "Local rank", width=110),
                Column("metric", "Part", empty="whole step"),
                Column(
                    "Value #A",
                    "Extra time per step",
                    unit="percentunit",
                    steps=_OF_STEP,
                    decimals=1,
                    width=185,
                ),
                Column("Value #C", "Step time", unit="s"),
                Column(
                    "Value #D",
                    "Last record",
                    unit="s",
                    steps=((None, GREEN), (STALLED_S / 2, YELLOW), (STALLED_S, RED)),
                ),
                Column("run", "Run"),
                Column("job", "Job"),
            ],
            sort_by="Extra time per step",
            hidden=("Value #B",),
            width=16,
            height=8,
        ),
        rows(
            About(
                "Slowest hosts",
                "The same, as the mean over the ranks of a host. If all ranks of a host are slow, "
                "the cause is the host: heat, power, network, other jobs.",
                nothing="No rank makes steps",
            ),
            [
                Query(
                    f"topk by ({RUN}) ($worst, avg by ({RUN}, host)"
                    f" (max by ({RANK}) ({_EXCESS}) {with_host}))"
                )
            ],
            [
                Column("host", "Host"),
                Column(
                    "Value",
                    "Extra time per step",
                    unit="percentunit",
                    steps=_OF_STEP,
                    decimals=1,
                    width=185,
                ),
                Column("run", "Run"),
            ],
            sort_by="Extra time per step",
            hidden=("job",),
            width=8,
            height=8,
        ),
    ]


def _over_time() -> list[Builder[models.Panel]]:
    part = f"{RANK}, stage, metric"
    share = f"rank:dl_throughput:ratio{{{RUNS}, {CHOSEN}}}"
    return [
        lines(
            About(
                "Longer than the median",
                "How much longer a rank takes than the median rank, as a share of the run's step "
                "time: the worst ranks at the end of the time range, and the chosen ranks. If a "
                "rank is always slow, suspect its machine; if now and then, its data, checkpoints "
                "or other jobs.",
                unit="percentunit",
                steps=((None, GREEN), (SLOW_RATIO, YELLOW), (SLOW_STEP_RATIO, RED)),
                nothing="No rank makes steps",
            ),
            Query(
                f"{_EXCESS} and on ({part}) {_worst(_EXCESS, part, ' @ end()')}",
                "rank {{rank}} {{metric}} {{run}}",
            ),
            Query(
                f"rank:dllogger_excess:ratio{{{RANKS}}}",
                "chosen rank {{rank}} {{metric}} {{run}}",
                style="dashed",
            ),
            worst_first=True,
        ),
        lines(
            About(
                "Throughput against the median",
                "What a rank logs per second, as a share of the median of the run: the worst ranks "
                "at the end of the time range, and the chosen ranks.",
                unit="percentunit",
                steps=((None, RED), (DROP_RATIO, YELLOW), (0.9, GREEN)),
                nothing="Nothing is logged per second",
            ),
            Query(
                f"{share} and on ({part})"
                f" bottomk by ({RUN}) ($worst, min by ({part}) ({share} @ end()))",
                "rank {{rank}} {{metric}} {{run}}",
            ),
            Query(
                f"rank:dl_throughput:ratio{{{RANKS}, {CHOSEN}}}",
                "chosen rank {{rank}} {{metric}} {{run}}",
                style="dashed",
            ),
        ),
        distribution(
            About(
                "Step times of all ranks",
                "How the step times of the ranks are spread around their median, in classes of "
                "10 %, from half to double. One band means that all are alike; a second band is a "
                "group of slow ranks. A class without ranks is not shown.",
                unit="percentunit",
            ),
            Query(f"run:dllogger_ranks:count_values{{{RUNS}}}", "{{of_median}}"),
        ),
        lines(
            About(
                "Step time of the chosen ranks",
                "Seconds per training step, with the median and the slowest rank of the run over "
                "five minutes.",
                unit="s",
                minimum=0,
            ),
            Query(promql.step_time(RANKS), "rank {{rank}} {{run}}"),
            Query(f"run:dllogger_step_seconds:median{{{RUNS}}}", "median {{run}}", style="dashed"),
            Query(f"run:dllogger_step_seconds:max{{{RUNS}}}", "slowest {{run}}", style="dashed"),
        ),
        lines(
            About(
                "Rare long steps",
                "The time that 99 of 100 steps of a rank stayed below over five minutes: the worst "
                "ranks at the end of the time range, and the chosen ranks. A mean hides such "
                "steps. It is estimated from buckets. Ranks that wait for each other all have the "
                "steps of the slowest.",
                unit="s",
                minimum=0,
                nothing="OTEL_DLLOGGER_STEP_HISTOGRAM=1 exports it: see docs/reference/metrics.md",
            ),
            Query(
                f"{_P99} and on ({RANK}) {_worst(_P99, RANK, ' @ end()')}",
                "rank {{rank}} {{run}}",
            ),
            Query(
                f"rank:dllogger_step_duration_seconds:p99_5m{{{RANKS}}}",
                "chosen rank {{rank}} {{run}}",
                style="dashed",
            ),
            width=24,
            worst_first=True,
        ),
    ]


def _behind() -> list[Builder[models.Panel]]:
    steps = f"max by ({RANK}) (dllogger_steps_total{{{RUNS}}})"
    # Not the recorded maximum, which is up to an evaluation older than the steps of each rank:
    # the ranks in front would be behind it by a negative number.
    first = f"max by ({RUN}) (dllogger_steps_total{{{RUNS}}})"
    return [
        lines(
            About(
                "Iteration skew",
                "How far the first rank is ahead of the last one, in time: iterations since the "
                "processes began, times the median step time. Ranks are scraped at different "
                "times, which adds up to two scrape intervals; if it grows, a rank is falling "
                "behind. A rank that was restarted alone begins at 0 again.",
                unit="s",
                steps=((None, GREEN), (SKEW_S, RED)),
                minimum=0,
            ),
            Query(
                f"(run:dllogger_steps_total:max{{{RUNS}}} - run:dllogger_steps_total:min{{{RUNS}}})"
                f" * on ({RUN}) run:dllogger_step_seconds:median{{{RUNS}}}",
                "{{run}}",
            ),
            width=8,
        ),
        rows(
            About(
                "Ranks behind",
                "The ranks that have made the fewest steps since their processes began.",
                nothing="No rank makes steps",
            ),
            [
                Query(f"bottomk by ({RUN}) ($worst, {steps} > 0)"),
                Query(
                    f"({first} - on ({RUN}) group_right () ({steps} > 0))"
                    f" and on ({RANK}) bottomk by ({RUN}) ($worst, {steps} > 0)"
                ),
            ],
            [
                _rank_column(),
                Column("Value #A", "Steps", unit=COUNT),
                Column("Value #B", "Behind the first", unit=COUNT),
                Column("run", "Run"),
                Column("job", "Job"),
            ],
            sort_by="Behind the first",
            width=8,
        ),
        lines(
            About(
                "Quiet ranks",
                "Time since the last record, for the ranks that have been quiet for longest at the "
                "end of the time range, and the chosen ranks. If all grow at once, a collective "
                "hangs: look at the first rank that went quiet. For a rank that is gone, the time "
                "goes on rising for an hour.",
                unit="s",
                steps=((None, GREEN), (STALLED_S, RED)),
                minimum=0,
            ),
            Query(
                f"{_SILENCE} and on ({RANK}) {_worst(_SILENCE, RANK, ' @ end()')}",
                "rank {{rank}} {{run}}",
            ),
            Query(
                f"rank:dllogger_silence_seconds:last1h{{{RANKS}}}",
                "chosen rank {{rank}} {{run}}",
                style="dashed",
            ),
            width=8,
            worst_first=True,
        ),
    ]


def _lost() -> Builder[models.Panel]:
    # A rank is also vanished for a moment when it is restarted, and while a scrape fails.
    lost = promql.last("rank:dllogger_vanished_start_timestamp_seconds:last1h")
    process = promql.last("rank:dllogger_process_start_timestamp_seconds:max")
    newest = f"topk by ({RANK}) (1, {process})"
    ended = " + ".join(promql.last(f"dllogger_run_{how}") for how in ("finished", "terminated"))
    still = (
        f"({newest} == on ({RANK}, instance) group_left () {lost})"
        f" unless on ({RANK}) dllogger_rank_info{{{RUNS}}}"
        f" unless on ({RANK}, instance) ({ended} > 0)"
    )
    return rows(
        About(
            "Lost ranks",
            "Ranks of the time range that neither finished nor were told to end and no longer "
            "answer, where they ran, and for how long they have logged nothing. To see why they "
            "died, look there: the end of the output, dmesg, the scheduler.",
            nothing="No rank is lost",
        ),
        [
            Query(
                f"time() - max by ({RANK}) ({promql.last('dllogger_last_log_timestamp_seconds')})"
                f" and on ({RANK}) ({still})"
            ),
            Query(promql.each(f"{RANK}, host, local_rank, pid", still)),
        ],
        [
            _rank_column(),
            Column("host", "Host"),
            Column("local_rank", "Local rank", width=110),
            Column("pid", "Process"),
            Column("Value #A", "Silent for", unit="s", steps=((None, RED),)),
            Column("run", "Run"),
            Column("job", "Job"),
        ],
        sort_by="Silent for",
        hidden=("Value #B",),
        height=7,
    )


def _nonfinite() -> Builder[models.Panel]:
    one = f"{RANK}, host, attempt, stage, metric"
    chosen = f'{RUNS}, metric=~"$metric", stage=~"$stage"'
    counts = f"rank:dllogger_nonfinite_total:nonzero{{{chosen}}}"
    return rows(
        About(
            "Ranks with NaN",
            "Which rank logged NaN or Inf, how often in the time range, and since when. The first "
            "one is the cause: ranks that average their gradients all have it a step later. The "
            "step is in that rank's JSON log (grep -nE 'NaN|Infinity').",
            nothing="No value was NaN or Inf",
        ),
        [
            Query(f"1000 * min by ({one}) (min_over_time(timestamp({counts})[$__range:]))"),
            Query(promql.count("nonfinite", chosen, by=one)),
        ],
        [
            _rank_column(),
            Column("host", "Host"),
            Column("metric", "Metric"),
            Column("stage", "Stage", width=80),
            Column("Value #A", "Since", unit="dateTimeAsIso", width=175),
            Column("Value #B", "Times", unit=COUNT, width=85),
            Column("attempt", "Attempt", width=90),
            Column("run", "Run"),
            Column("job", "Job"),
        ],
        sort_by="Since",
        ascending=True,
        height=7,
    )


def _of_host(expression: str, *labels: str) -> str:
    """Return what exporters say of the hosts of the runs, joined by their names.

    Args:
        expression: What an exporter says.
        labels: Where it has the name of its host, with or without a domain.
    """
    for label in labels:
        expression = f'label_replace({expression}, "host", "$1", "{label}", "([^.]+).*")'
    hosts = f"group by (host) (run:dllogger_host_ranks:count{{{RUNS}}})"
    return f"{expression} and on (host) {hosts}"


def _gpus() -> list[Builder[models.Panel]]:
    one = f"{RANK}, host, gpu"
    temperature, busy = "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_UTIL"
    errors = promql.of_gpu(
        f"max_over_time(DCGM_FI_DEV_XID_ERRORS{promql.OF_RANGE})",
        by=f"{one}, UUID",
        ranks=f"last_over_time({promql.gpus()}{promql.OF_RANGE})",
    )
    nothing = "No rank knows its GPU, or no dcgm-exporter is scraped"

    def at_end(choose: str, metric: str) -> str:
        last = promql.of_gpu(f"{metric} @ end()", by=RANK, ranks=f"{promql.gpus()} @ end()")
        ranks = f"({promql.gpus()} and on ({RANK}) {choose} by ({RUN}) ($worst, {last}))"
        return promql.of_gpu(metric, by=one, ranks=ranks)  # chosen first: a third of the time

    # Of hosts on which no rank knows its GPU, all that there are.
    unknown = f"unless on (host) {promql.gpus()}"
    return [
        _gpus_of_the_slowest(),
        lines(
            About(
                "How busy GPUs are",
                "The share of the time in which a kernel runs on the GPU of a rank: the ranks "
                "whose GPUs are least busy at the end of the time range, and the chosen ranks. "
                "Where no rank says which GPU it has, all GPUs of its host. There is none for an "
                "instance under MIG.",
                unit="percent",
                minimum=0,
                nothing="No dcgm-exporter of these hosts is scraped",
            ),
            Query(
                at_end("bottomk", busy),
                "rank {{rank}} {{host}} GPU {{gpu}} {{run}}",
            ),
            Query(
                promql.of_gpu(busy, by=one, ranks=promql.gpus(RANKS)),
                "chosen rank {{rank}} {{host}} GPU {{gpu}} {{run}}",
                style="dashed",
            ),
            # Versions of dcgm-exporter after 4.5.3 write it in lower case.
            Query(f"{_of_host(busy, 'Hostname', 'hostname')} {unknown}", "{{host}} GPU {{gpu}}"),
            width=8,
        ),
        lines(
            About(
                "Temperature of GPUs",
                "The ranks whose GPUs are hottest at the end of the time range, and the chosen "
                "ranks. A GPU that is hotter than its neighbours lowers its clock, and all ranks "
                "wait for it: look at its cooling.",
                unit="celsius",
                nothing=nothing,
            ),
            Query(
                at_end("topk", temperature),
                "rank {{rank}} {{host}} GPU {{gpu}} {{run}}",
            ),
            Query(
                promql.of_gpu(temperature, by=one, ranks=promql.gpus(RANKS)),
                "chosen rank {{rank}} {{host}} GPU {{gpu}} {{run}}",
                style="dashed",
            ),
            width=8,
            worst_first=True,
        ),
        rows(
            About(
                "XID errors",
                "The last error that the driver reported of a GPU, for ranks of the time range, "
                "also those that are gone. It may be older than the run: DCGM keeps it. NVIDIA's "
                "list of XID errors says what each means; 79 is a GPU that fell off the bus.",
                nothing="No GPU of a rank had an XID error",
            ),
            [Query(f"{errors} > 0")],
            [
                _rank_column(),
                Column("host", "Host"),
                Column("gpu", "GPU", width=60),
                Column("Value", "XID", unit="none", steps=((None, RED),), width=70),
                Column("UUID", "UUID"),
                Column("run", "Run"),
                Column("job", "Job"),
            ],
            width=8,
            height=9,
        ),
    ]


def _gpus_of_the_slowest() -> Builder[models.Panel]:
    slowest = f"and on ({RANK}) {_worst(_EXCESS, RANK)}"
    known = f"dllogger_gpu_info{{{RUNS}}}"  # also of GPUs without a UUID, of which nothing is asked
    measured = [
        promql.of_gpu(f"DCGM_FI_DEV_{name}", by=RANK)
        for name in ("GPU_TEMP", "POWER_USAGE", "SM_CLOCK", "GPU_UTIL", "XID_ERRORS")
    ]
    return rows(
        About(
            "GPUs of the slowest ranks",
            "Which GPU each of the slowest ranks has, and what dcgm-exporter says of it now, "
            "joined by its UUID. A clock that is lower than that of the others explains a rank "
            "that is always slow; its temperature or its power may say why. Ranks know their GPUs "
            "with the extra gpu: see docs/how-to/gpus.md. Under MIG, temperature, power and clock "
            "are those of the whole GPU.",
            nothing="No rank knows its GPU: see docs/how-to/gpus.md",
        ),
        [
            Query(f"{promql.each(RANK, _EXCESS)} and on ({RANK}) {known} {slowest}"),
            Query(
                promql.each(
                    f"{RANK}, host, gpu, modelName, GPU_I_PROFILE, UUID", f"{known} {slowest}"
                )
            ),
            *(Query(f"{query} {slowest}") for query in measured),
        ],
        [
            _rank_column(),
            Column("host", "Host"),
            Column("gpu", "GPU", width=60),
            Column("modelName", "Model"),
            Column("GPU_I_PROFILE", "Instance", width=90),
            Column(
                "Value #A",
                "Extra time per step",
                unit="percentunit",
                steps=_OF_STEP,
                decimals=1,
                width=185,
            ),
            Column("Value #C", "Temperature", unit="celsius", width=115),
            Column("Value #D", "Power", unit="watt", width=90),
            Column("Value #E", "SM clock", unit="rotmhz", width=100),
            Column("Value #F", "Busy", unit="percent", width=80),
            Column(
                "Value #G",
                "XID",
                unit="none",
                steps=((None, GREEN), (1, RED)),
                width=70,
            ),
            Column("UUID", "UUID"),
            Column("run", "Run"),
            Column("job", "Job"),
        ],
        sort_by="Extra time per step",
        hidden=("Value #B",),
        width=24,
        height=8,
    )


def _machines() -> list[Builder[models.Panel]]:
    def node(expression: str) -> str:
        named = f"({expression}) * on (instance) group_left (nodename) node_uname_info"
        return _of_host(named, "nodename")

    return [
        lines(
            About(
                "Processor",
                "How busy the processor cores of the run's hosts are, by node_exporter, joined by "
                "the name of the host.",
                unit="percentunit",
                minimum=0,
                nothing="No node_exporter of these hosts is scraped",
            ),
            Query(
                node(
                    "1 - avg by (instance)"
                    ' (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))'
                ),
                "{{host}}",
            ),
            width=12,
        ),
        lines(
            About(
                "Memory",
                "The share of its memory that a host of the run uses, by node_exporter. At 100 % "
                "the OOM killer ends a rank.",
                unit="percentunit",
                minimum=0,
                nothing="No node_exporter of these hosts is scraped",
            ),
            Query(
                node("1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"), "{{host}}"
            ),
            width=12,
        ),
    ]


def _logging() -> list[Builder[models.Panel]]:
    return [
        lines(
            About(
                "Logging",
                "The share of the time that training spends in log(). It is far below 1 % unless "
                "tensors on an accelerator are logged, since log() waits for them: log every n-th "
                "step. It is wall-clock time: with more processes than cores, it includes waiting "
                "for a core.",
                unit="percentunit",
                minimum=0,
                steps=((None, GREEN), (OVERHEAD_RATIO / 5, YELLOW), (OVERHEAD_RATIO, RED)),
            ),
            Query(f"run:dllogger_log_seconds_total:rate5m_max{{{RUNS}}}", "worst rank {{run}}"),
            Query(
                f"run:dllogger_log_seconds_total:rate5m_median{{{RUNS}}}",
                "median {{run}}",
                style="dashed",
            ),
        ),
        tally(
            "Dropped",
            "How many records and values were not written or not exported since the processes "
            "began: in total, and by reason if there are any. docs/reference/failures.md says "
            "what each reason means.",
            f"rank:dllogger_dropped_total:nonzero{{{RUNS}}}",
            by="reason",
            name="{{reason}}",
        ),
        rows(
            About(
                "Chosen ranks",
                "Where the chosen ranks run: process, attempt, port.",
            ),
            [Query(promql.last("dllogger_rank_info", RANKS))],
            [
                Column("rank", "Rank"),
                Column("host", "Host"),
                Column("local_rank", "Local rank"),
                Column("pid", "Process"),
                Column("attempt", "Attempt"),
                Column("world_size", "World size"),
                Column("instance", "Address"),
                Column("run", "Run"),
                Column("job", "Job"),
            ],
            width=24,
            height=5,
        ),
    ]
