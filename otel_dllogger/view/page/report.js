"use strict";
// The curves of a report, unpacked from the file itself (`view/report/curve_data.py`).
{
  const NEAR = "600px";
  const HALF_LIVES = 5;

  /** @typedef {{element: HTMLElement, curves: ChartCurves, chart: Chart | null}} Place */

  /** @type {Place[]} */
  const places = [];
  /** @type {ChartSettings} */
  const settings = {
    smoothing_half_life: 0,
    is_log: false,
    show_all_lines: false,
    highlighted: [],
    hidden: [],
    part: null,
  };

  /** @param {string} id */
  const byId = (id) => {
    const found = document.getElementById(id);
    if (found === null) {
      throw new Error(`no element ${id}`);
    }
    return found;
  };

  /** @returns {Promise<ArrayBuffer>} */
  async function unpack() {
    const text = atob(byId("curves").textContent ?? "");
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  /**
   * @param {ArrayBuffer} buffer
   * @returns {ChartCurves[]}
   */
  function read(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    // All machines that have browsers of today are little-endian, as the columns are.
    const xs = new Float64Array(buffer, 4 + length, header.places);
    const values = new Float32Array(buffer, 4 + length + 8 * header.places);
    /** @type {Map<string, (number | null)[]>} */
    const known = new Map();
    /** @param {number} at @param {number} size */
    const column = (at, size) => {
      const key = `${at} ${size}`;
      let found = known.get(key);
      if (found === undefined) {
        found = Array.from(values.subarray(at, at + size), (value) =>
          Number.isFinite(value) ? Number(value.toPrecision(7)) : null,
        );
        known.set(key, found);
      }
      return found;
    };
    for (const chart of header.charts) {
      const [at, size] = chart.places;
      chart.places = Array.from(xs.subarray(at, at + size));
      for (const each of [...chart.lines, ...chart.bands]) {
        for (const name of ["mean", "least", "median", "greatest"]) {
          if (name in each) {
            each[name] = column(each[name], size);
          }
        }
      }
    }
    return header.charts;
  }

  /** @param {Place} place */
  function draw(place) {
    place.chart ??= createChart(place.element, {
      sync_key: "report",
      on_zoom: (part) => change({ part }),
      on_choose: ([run, rank]) => highlight(run, rank),
    });
    place.chart.update(place.curves, settings);
  }

  /** @param {Partial<ChartSettings>} changed */
  function change(changed) {
    Object.assign(settings, changed);
    for (const place of places) {
      if (place.chart !== null) {
        draw(place);
      }
    }
  }

  /**
   * Choose a rank, or no longer.
   * @param {string} run
   * @param {number} rank
   */
  function highlight(run, rank) {
    const key = keyOf([run, rank]);
    const others = settings.highlighted.filter((each) => keyOf(each) !== key);
    const isNew = others.length === settings.highlighted.length;
    change({ highlighted: isNew ? [...others, [run, rank]] : others });
    for (const button of document.querySelectorAll("button.rank")) {
      if (button instanceof HTMLButtonElement && button.value === key) {
        button.setAttribute("aria-pressed", String(isNew));
      }
    }
  }

  function makeRanksChoosable() {
    for (const cell of document.querySelectorAll("th.rank")) {
      if (cell instanceof HTMLElement) {
        const run = cell.dataset.run ?? "";
        const rank = Number(cell.dataset.rank);
        const button = document.createElement("button");
        button.type = "button";
        button.className = "rank";
        button.value = keyOf([run, rank]);
        button.title = "Emphasize this rank in the curves";
        button.textContent = cell.textContent;
        button.setAttribute("aria-pressed", "false");
        button.addEventListener("click", () => highlight(run, rank));
        cell.replaceChildren(button);
      }
    }
  }

  /** @param {ChartCurves[]} charts */
  function makeControls(charts) {
    const controls = byId("controls");
    const span = Math.max(
      ...charts.map(({ places: xs }) => (xs.length ? xs[xs.length - 1] - xs[0] : 0)),
    );
    const smoothing = document.createElement("select");
    smoothing.append(new Option("off", "0"));
    const greatest = 10 ** Math.floor(Math.log10(Math.max(span / 10, 1)));
    for (let power = HALF_LIVES - 1; power >= 0; power -= 1) {
      const halfLife = greatest / 10 ** power;
      if (halfLife >= 1) {
        smoothing.append(new Option(`half-life ${INTEGERS.format(halfLife)} steps`, String(halfLife)));
      }
    }
    smoothing.addEventListener("change", () =>
      change({ smoothing_half_life: Number(smoothing.value) }),
    );
    controls.append(labelled("Smoothing", smoothing));
    controls.append(labelled("Log scale", checkbox((isOn) => change({ is_log: isOn }))));
    const ranks = (/** @type {ChartCurves} */ { bands }) =>
      bands.reduce((sum, band) => sum + band.ranks, 0);
    if (charts.some((chart) => ranks(chart) > MOST_LINES)) {
      const all = checkbox((isOn) => change({ show_all_lines: isOn }));
      controls.append(labelled("All lines", all));
    }
    if (charts.length > 6) {
      const filter = document.createElement("input");
      filter.type = "search";
      filter.addEventListener("input", () => show(filter.value.toLowerCase()));
      controls.append(labelled("Metrics with", filter));
    }
  }

  /** @param {string} words */
  function show(words) {
    for (const { element, curves } of places) {
      element.hidden = !`${curves.title} ${curves.metric}`.toLowerCase().includes(words);
    }
  }

  /** @param {(isOn: boolean) => void} tell */
  function checkbox(tell) {
    const input = document.createElement("input");
    input.type = "checkbox";
    input.addEventListener("change", () => tell(input.checked));
    return input;
  }

  /**
   * @param {string} words
   * @param {HTMLElement} input
   */
  function labelled(words, input) {
    const label = document.createElement("label");
    label.append(...(input instanceof HTMLInputElement && input.type === "checkbox"
      ? [input, words]
      : [words, input]));
    return label;
  }

  async function start() {
    const charts = read(await unpack());
    byId("no-curves").hidden = true;
    makeControls(charts);
    makeRanksChoosable();
    /** @type {Map<Element, Place>} */
    const byElement = new Map();
    const seen = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          const place = byElement.get(target);
          if (isIntersecting && place !== undefined && place.chart === null) {
            draw(place);
          }
        }
      },
      { rootMargin: NEAR },
    );
    settings.has_runs = new Set(charts.flatMap(({ bands }) => bands.map(({ run }) => run))).size > 1;
    for (const curves of charts) {
      const element = document.createElement("div");
      element.className = "chart-place";
      byId("charts").append(element);
      const place = { element, curves, chart: null };
      places.push(place);
      byElement.set(element, place);
      seen.observe(element);
    }
    addEventListener("beforeprint", () => {
      places.filter((place) => place.chart === null).forEach(draw);
    });
  }

  start().catch((error) => {
    byId("no-curves").hidden = false;
    console.error(error);
  });
}
