"use strict";
// The live page: what one looks at, and what the server tells of it.

const FIRST_CHARTS = 6;
const QUIET_MS = 150;

const AXIS_TITLES = new Map([
  ["step", "step"],
  ["epoch", "epoch"],
  ["relative", "time since the start"],
  ["process", "training time, without gaps"],
  ["wall", "clock time"],
]);

/** @type {Record<Connection, string>} */
const CONNECTION_WORDS = {
  connecting: "connecting",
  live: "live",
  polling: "live, every 2 s",
  lost: "not connected",
  refused: "not allowed",
};

/** Half-lives in units of the axis: whatever part of it is shown, a curve stays the same. */
const STEP_HALF_LIVES = [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
const EPOCH_HALF_LIVES = [0.1, 0.2, 0.5, 1, 2, 5, 10];
const SECOND_HALF_LIVES = [1, 5, 10, 30, 60, 300, 600, 1800, 3600];

class Page {
  constructor() {
    this.view = readLink(location.hash);
    this.stream = new Stream(
      (state) => this.show(state),
      (connection) => this.showConnection(connection),
    );
    /** @type {PageState | null} */
    this.state = null;
    /** @type {Connection} */
    this.connection = "connecting";
    /** @type {Map<string, {element: HTMLElement, chart: Chart}>} */
    this.charts = new Map();
    /** @type {Set<string>} */
    this.visible = new Set();
    /** When the newest value was logged as the user zoomed. */
    this.zoomedAtS = 0;
    this.timer = 0;
    this.seen = new IntersectionObserver((entries) => this.onSeen(entries), {
      rootMargin: "200px",
    });
    this.runs = new TickList(byId("runs"), (name, isTicked) => this.tickRun(name, isTicked));
    this.metrics = new TickList(byId("metrics"), (id, isTicked) => this.tickMetric(id, isTicked));
    this.table = new RankTable(byId("ranks"), (rank) => this.choose(rank));
    this.listen();
    this.ask();
  }

  listen() {
    const axis = /** @type {HTMLSelectElement} */ (byId("axis"));
    const smoothing = /** @type {HTMLSelectElement} */ (byId("smoothing"));
    const log = /** @type {HTMLInputElement} */ (byId("log"));
    const all = /** @type {HTMLInputElement} */ (byId("all"));
    const filter = /** @type {HTMLInputElement} */ (byId("filter"));
    // A part and a half-life are in units of the axis.
    axis.addEventListener("change", () =>
      this.change({ axis: axis.value, part: null, half_life: 0 }),
    );
    smoothing.addEventListener("change", () => this.change({ half_life: Number(smoothing.value) }));
    log.addEventListener("change", () => this.change({ is_log: log.checked }));
    all.addEventListener("change", () => this.change({ has_all_lines: all.checked }));
    byId("unzoom").addEventListener("click", () => this.change({ part: null }));
    byId("unchoose").addEventListener("click", () => this.change({ ranks: [] }));
    filter.addEventListener("input", () => this.metrics.filter(filter.value));
    byId("controls").addEventListener("submit", (event) => event.preventDefault());
    addEventListener("hashchange", () => {
      this.view = readLink(location.hash);
      this.redraw();
      this.ask();
    });
    const side = /** @type {HTMLDetailsElement} */ (byId("side"));
    const narrow = matchMedia("(max-width: 760px)");
    const fold = () => {
      side.open = !narrow.matches;
    };
    narrow.addEventListener("change", fold);
    fold();
  }

  /**
   * Look at something else.
   * @param {Partial<PageView>} change
   */
  change(change) {
    if (change.part !== undefined) {
      this.zoomedAtS = this.lastLogS();
    }
    this.view = { ...this.view, ...change };
    history.replaceState(null, "", writeLink(this.view));
    this.redraw();
    this.ask();
  }

  /** Ask the server for what is looked at now, once that stays as it is for a moment. */
  ask() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const query = makeQuery(this.view, [...this.visible]);
      if (query !== this.stream.query || this.stream.source === null) {
        this.stream.open(query);
      }
    }, QUIET_MS);
  }

  /** @param {string} name @param {boolean} isTicked */
  tickRun(name, isTicked) {
    const known = this.chosenRuns();
    const runs = isTicked ? [...known, name] : known.filter((each) => each !== name);
    this.change({ runs, ranks: this.view.ranks.filter(([run]) => runs.includes(run)) });
  }

  /** @param {string} id @param {boolean} isTicked */
  tickMetric(id, isTicked) {
    const known = this.chosenMetrics();
    this.change({ metrics: isTicked ? [...known, id] : known.filter((each) => each !== id) });
  }

  /** @param {RankKey} rank */
  choose(rank) {
    const key = keyOf(rank);
    const others = this.view.ranks.filter((each) => keyOf(each) !== key);
    const isChosen = others.length < this.view.ranks.length;
    this.change({ ranks: isChosen ? others : [...others, rank] });
  }

  /**
   * Return the runs that are looked at, which the server may not have told of yet.
   * @returns {string[]}
   */
  chosenRuns() {
    return this.view.runs.length
      ? this.view.runs
      : (this.state?.shown.map((run) => run.name) ?? []);
  }

  /**
   * Return the metrics that have charts: the chosen ones, or else the first ones.
   * @returns {string[]}
   */
  chosenMetrics() {
    if (this.view.metrics.length) {
      return this.view.metrics;
    }
    const [run] = this.state?.shown ?? [];
    if (!run) {
      return [];
    }
    // What is logged once for the whole run is one point: the table of best values has it.
    const curves = run.metrics.filter(({ granularity }) => granularity !== "run");
    const first = [run.loss, run.throughput, ...curves.map(({ id }) => id)];
    return [...new Set(first)].filter((id) => id !== null).slice(0, FIRST_CHARTS);
  }

  lastLogS() {
    return Math.max(0, ...(this.state?.shown.map((run) => run.last_log_s ?? 0) ?? []));
  }

  /** @param {IntersectionObserverEntry[]} entries */
  onSeen(entries) {
    for (const { target, isIntersecting } of entries) {
      const id = /** @type {HTMLElement} */ (target).dataset.metric ?? "";
      if (isIntersecting) {
        this.visible.add(id);
      } else {
        this.visible.delete(id);
      }
    }
    this.ask();
  }

  /** @param {PageState} state */
  show(state) {
    this.state = state;
    this.redraw();
  }

  /** @param {Connection} connection */
  showConnection(connection) {
    if (connection !== this.connection) {
      this.connection = connection;
      this.redraw();
    }
  }

  redraw() {
    const { state, view } = this;
    const element = byId("connection");
    element.dataset.connection = this.connection;
    setText(element, CONNECTION_WORDS[this.connection]);
    this.showNotice();
    this.showControls();
    if (state === null) {
      return;
    }
    setText(byId("words"), state.words);
    const { shown } = state;
    byId("content").hidden = shown.length === 0;
    byId("side").hidden = state.runs.length === 0;
    this.runs.update(
      [...state.runs].reverse().map(({ name, state: words }) => ({
        id: name,
        group: "",
        words: name,
        more: "",
        state: words,
      })),
      new Set(this.chosenRuns()),
    );
    this.metrics.update(metricEntries(shown), new Set(this.chosenMetrics()));
    showRuns(byId("summary"), shown);
    this.showCharts(state);
    this.table.update(shown, view.ranks);
    showBest(byId("best"), shown);
    showParameters(byId("parameters"), shown);
    const [run] = shown;
    document.title = run ? `${shown.map(({ name }) => name).join(", ")} · ${run.state}` : "otel_dllogger";
  }

  /** Say why there is nothing to see yet, or why it does not change any more. */
  showNotice() {
    const { state, connection } = this;
    const [title, words, share] = noticeOf(state, connection);
    byId("notice").hidden = title === "";
    setText(byId("notice-title"), title);
    setText(byId("notice-words"), words);
    const progress = /** @type {HTMLProgressElement} */ (byId("progress"));
    progress.hidden = share === null;
    progress.value = share ?? 0;
    document.body.dataset.state = title === "" ? "shown" : "notice";
    document.body.classList.toggle("is-stale", connection === "lost" || connection === "refused");
  }

  showControls() {
    const { view } = this;
    /** @type {HTMLSelectElement} */ (byId("axis")).value = view.axis;
    showHalfLives(byId("smoothing"), view);
    /** @type {HTMLInputElement} */ (byId("log")).checked = view.is_log;
    /** @type {HTMLInputElement} */ (byId("all")).checked = view.has_all_lines;
    const ranks = this.state?.shown.reduce((sum, run) => sum + run.rows.length, 0) ?? 0;
    byId("all-label").hidden = ranks <= MOST_LINES;
    const unzoom = byId("unzoom");
    unzoom.hidden = view.part === null;
    const isNew = this.lastLogS() > this.zoomedAtS;
    setText(unzoom, isNew ? "New data: show everything" : "Show everything");
    byId("unchoose").hidden = view.ranks.length === 0;
  }

  /** @param {PageState} state */
  showCharts(state) {
    const chosen = this.chosenMetrics();
    const box = byId("charts");
    for (const [id, { element, chart }] of this.charts) {
      if (!chosen.includes(id)) {
        this.seen.unobserve(element);
        this.visible.delete(id);
        this.charts.delete(id);
        chart.destroy();
        element.remove();
      }
    }
    chosen.forEach((id, index) => {
      const known = this.charts.get(id) ?? this.makeChart(id);
      if (box.children[index] !== known.element) {
        box.insertBefore(known.element, box.children[index] ?? null);
      }
      const curves = state.curves.find((each) => each.metric === id) ?? emptyCurves(id);
      if (this.visible.has(id) || !known.element.dataset.isDrawn) {
        known.element.dataset.isDrawn = "1";
        known.element.classList.toggle("is-empty", curves.places.length === 0);
        known.chart.update(this.describe(curves, state.shown), this.settings(state.shown));
      }
    });
  }

  /** @param {string} id */
  makeChart(id) {
    const element = make("div");
    element.dataset.metric = id;
    const chart = createChart(element, {
      sync_key: "page",
      on_zoom: (part) => this.change({ part }),
      on_choose: (rank) => this.choose(rank),
    });
    const known = { element, chart };
    this.charts.set(id, known);
    this.seen.observe(element);
    return known;
  }

  /**
   * Add what a chart says of its curves.
   * @param {Curves} curves
   * @param {RunInfo[]} runs
   * @returns {ChartCurves}
   */
  describe(curves, runs) {
    const { axis } = this.view;
    const metric = runs.flatMap((run) => run.metrics).find(({ id }) => id === curves.metric);
    return {
      ...curves,
      title: metric ? titleOf(metric) : curves.metric,
      unit: metric ? noteOf(metric) : "",
      axis,
      axis_title: AXIS_TITLES.get(axis) ?? axis,
      marks: runs.flatMap((run) => marksOf(run, axis, runs.length > 1)),
    };
  }

  /**
   * @param {RunInfo[]} runs
   * @returns {ChartSettings}
   */
  settings(runs) {
    const { view } = this;
    const ranks = runs.flatMap((run) =>
      run.rows.map((row) => /** @type {RankKey} */ ([run.name, row.rank])),
    );
    ranks.sort(([run, rank], [other, otherRank]) => (run === other ? rank - otherRank : 0));
    return {
      smoothing_half_life: view.half_life,
      is_log: view.is_log,
      show_all_lines: view.has_all_lines,
      highlighted: view.ranks,
      hidden: [],
      has_runs: runs.length > 1,
      order: ranks.length > MOST_LINES ? view.ranks : ranks,
      part: view.part,
    };
  }
}

/**
 * Fill the chooser of half-lives with those of the axis.
 * @param {HTMLElement} element
 * @param {PageView} view
 */
function showHalfLives(element, { axis, half_life: chosen }) {
  const select = /** @type {HTMLSelectElement} */ (element);
  if (select.dataset.axis !== axis || ![...select.options].some(({ value }) => value === String(chosen))) {
    select.dataset.axis = axis;
    const usual =
      axis === "step" ? STEP_HALF_LIVES : axis === "epoch" ? EPOCH_HALF_LIVES : SECOND_HALF_LIVES;
    const all = [...new Set([0, ...usual, chosen])].sort((one, other) => one - other);
    select.replaceChildren(...all.map((value) => new Option(writeHalfLife(axis, value), String(value))));
  }
  select.value = String(chosen);
}

/**
 * @param {string} axis
 * @param {number} value
 */
function writeHalfLife(axis, value) {
  if (!value) {
    return "off";
  }
  const isCount = axis === "step" || axis === "epoch";
  return isCount ? `${formatNumber(value)} ${axis}${value === 1 ? "" : "s"}` : formatSeconds(value);
}

/**
 * Return what to say in place of curves: a title, words and how much is done.
 * @param {PageState | null} state
 * @param {Connection} connection
 * @returns {[string, string, number | null]}
 */
function noticeOf(state, connection) {
  if (connection === "refused") {
    return ["This page needs its token", "Open the link that otel-dllogger printed.", null];
  }
  if (connection === "lost") {
    const words = state === null ? "" : " What you see is the last that it told.";
    return ["The server does not answer", `Trying again every 2 seconds.${words}`, null];
  }
  if (state === null) {
    return ["Connecting…", "", null];
  }
  const { read_bytes: read, size_bytes: size, is_current: isCurrent } = state.reading;
  if (!isCurrent && size > 0) {
    const words = `${writeBytes(read)} of ${writeBytes(size)}`;
    return ["Reading logs", words, read / size];
  }
  if (!state.runs.length) {
    return isCurrent
      ? ["No run yet", `Looking at ${state.words}. A run appears here with its first record.`, null]
      : ["Looking", state.words, null];
  }
  if (!state.shown.length) {
    return ["No such run", "None of the runs in this link is there. Choose one on the left.", null];
  }
  return ["", "", null];
}

/** @param {number} bytes */
function writeBytes(bytes) {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/**
 * @param {string} metric
 * @returns {Curves}
 */
function emptyCurves(metric) {
  return { metric, places: [], is_exact: true, lines: [], bands: [] };
}

/**
 * Return the restarts of a run at their places on an axis, those of several ranks as one.
 * @param {RunInfo} run
 * @param {string} axis
 * @param {boolean} hasRuns Whether there are several.
 * @returns {Mark[]}
 */
function marksOf(run, axis, hasRuns) {
  /** @type {Map<number, RunInfo["starts"]>} */
  const attempts = new Map();
  for (const start of run.starts) {
    attempts.set(start.attempt, [...(attempts.get(start.attempt) ?? []), start]);
  }
  return [...attempts.values()].flatMap((starts) => {
    const [first] = starts;
    const who = starts.length < run.rows.length && starts.length === 1 ? ` of rank ${first.rank}` : "";
    const words = `${hasRuns ? `${run.name} ` : ""}attempt ${first.attempt}${who}`;
    if (axis === "step") {
      return [{ x: Math.min(...starts.map((start) => start.x)), words }];
    }
    const time = Math.min(...starts.map((start) => start.time_s));
    if (axis === "wall") {
      return [{ x: time, words }];
    }
    return axis === "relative" ? [{ x: time - (run.begin_s ?? time), words }] : [];
  });
}

new Page();
