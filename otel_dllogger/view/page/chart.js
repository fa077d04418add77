"use strict";
// One chart: the curves of one metric, drawn with uPlot.

const CHART_HEIGHT = 190;
const NEAR_PIXELS = 14;
const CLICK_PIXELS = 16;
const DRAG_PIXELS = 4;
const DOUBLE_CLICK_MS = 250;
const PLACE_TICK_PIXELS = 80;

/** @typedef {import("uplot")} Plot */
/** @typedef {import("uplot").Series} PlotSeries */

/**
 * Draw the curves of a metric in an element, which gets the class `chart`.
 * @param {HTMLElement} element
 * @param {ChartOptions} [options]
 * @returns {Chart}
 */
function createChart(element, options = {}) {
  return new CurveChart(element, options);
}

class CurveChart {
  /**
   * @param {HTMLElement} element
   * @param {ChartOptions} options
   */
  constructor(element, options) {
    this.options = options;
    this.element = element;
    element.classList.add("chart");
    this.title = makePart("h3", "chart-title");
    this.note = makePart("span", "chart-note");
    this.legend = makePart("div", "chart-legend");
    this.box = makePart("div", "chart-plot");
    this.empty = makePart("p", "chart-empty");
    this.tip = makePart("div", "chart-tip");
    this.live = makePart("div", "chart-live");
    this.live.setAttribute("aria-live", "polite");
    const head = makePart("div", "chart-head");
    head.append(this.title, this.note);
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "application");
    this.box.setAttribute("aria-roledescription", "chart");
    this.empty.textContent = "no values yet";
    this.tip.hidden = true;
    this.box.append(this.empty);
    element.replaceChildren(head, this.legend, this.box, this.live);

    /** @type {Plot | null} */
    this.plot = null;
    /** @type {ChartCurves | null} */
    this.curves = null;
    /** @type {ChartSettings | null} */
    this.settings = null;
    /** @type {Drawing} */
    this.drawing = { lines: [], is_many: false, ranks: 0, worst: new Set() };
    /** @type {ValueScale} */
    this.scale = chooseScale([], false);
    /** @type {[number, number] | null} */
    this.part = null;
    /** @type {number | null} */
    this.printedWidth = null;
    this.shape = "";
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.choosing = undefined;
    this.colour = readColours(element);

    this.ending = new AbortController();
    const { signal } = this.ending;
    this.box.addEventListener("keydown", (event) => this.onKey(event), { signal });
    this.box.addEventListener("blur", () => this.leave(), { signal });
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.recolour(), { signal });
    addEventListener("beforeprint", () => this.print(true), { signal });
    addEventListener("afterprint", () => this.print(false), { signal });
    this.sizes = new ResizeObserver(() => this.resize());
    this.sizes.observe(this.box);
  }

  /**
   * Draw curves.
   * @param {ChartCurves} curves
   * @param {ChartSettings} settings
   */
  update(curves, settings) {
    this.curves = curves;
    this.settings = settings;
    this.drawing = chooseLines(curves, settings, this.drawing.worst);
    const { lines } = this.drawing;
    const specs = this.makeSeries();
    this.scale = chooseScale(
      specs.map((spec) => spec.column),
      settings.is_log,
    );
    if (settings.part !== undefined) {
      this.part = settings.part;
    }
    this.writeHead();
    const hasValues = curves.places.length > 0 && specs.length > 0;
    this.empty.hidden = hasValues;
    /** @type {any} */ // uPlot's types know numbers and null only
    const data = [curves.places, ...specs.map((spec) => spec.column)];
    const shape = JSON.stringify([
      this.scale.kind,
      curves.axis,
      curves.axis_title,
      lines.map(({ key, order, is_highlighted, is_redone }) => [
        key,
        order,
        is_highlighted,
        is_redone,
      ]),
      specs.map((spec) => spec.role),
    ]);
    if (this.plot !== null && shape === this.shape) {
      this.plot.setData(data, false);
      this.showPart();
    } else {
      this.shape = shape;
      this.rebuild(specs, data);
    }
  }

  /** Take the chart away, and all that listens for it. */
  destroy() {
    this.ending.abort();
    clearTimeout(this.choosing);
    this.sizes.disconnect();
    this.plot?.destroy();
    this.plot = null;
    this.element.replaceChildren();
    this.element.classList.remove("chart");
  }

  /** @typedef {{role: string, column: Column, series: PlotSeries}} Spec */

  /**
   * Return what uPlot draws, from the back to the front.
   * @returns {Spec[]}
   */
  makeSeries() {
    const { curves, settings, drawing } = this;
    if (curves === null || settings === null) {
      return [];
    }
    /** @type {Spec[]} */
    const specs = [];
    const isSmooth = settings.smoothing_half_life > 0;
    const invisible = { stroke: "transparent", width: 0, points: { show: false } };
    if (drawing.is_many) {
      for (const [number, band] of curves.bands.entries()) {
        specs.push({ role: `high ${number}`, column: band.greatest, series: invisible });
        specs.push({ role: `low ${number}`, column: band.least, series: invisible });
      }
    } else {
      for (const [number, { line, is_redone: isRedone }] of drawing.lines.entries()) {
        if (!isRedone && (isSmooth || !curves.is_exact)) {
          specs.push({ role: `high ${number}`, column: line.greatest, series: invisible });
          specs.push({ role: `low ${number}`, column: line.least, series: invisible });
        }
      }
    }
    const hasChosen = drawing.lines.some((line) => line.is_highlighted);
    const width = drawing.lines.length > 4 ? 1 : 1.5;
    const isChosen = (/** @type {DrawnLine} */ line) => Number(line.is_highlighted);
    const fromBack = [...drawing.lines].sort((one, other) => isChosen(one) - isChosen(other));
    for (const drawn of fromBack) {
      const colour = () => this.colour(colourName(drawn.order));
      const alpha = (hasChosen && !drawn.is_highlighted ? 0.3 : 1) * (drawn.is_redone ? 0.6 : 1);
      if (isSmooth && drawing.lines.length <= MOST_LINES) {
        const raw = { stroke: colour, alpha: alpha * 0.25, width: 1, points: { show: false } };
        specs.push({ role: "raw", column: drawn.mean, series: raw });
      }
      specs.push({
        role: "line",
        column: drawn.shown,
        series: {
          stroke: colour,
          alpha,
          width: drawn.is_highlighted ? 2.5 : width,
          dash: drawn.is_redone ? REDONE_DASH : dashOf(drawn.order, this.printedWidth !== null),
          points: { size: 5, filter: isolatedPoints },
        },
      });
    }
    if (drawing.is_many) {
      for (const [number, band] of curves.bands.entries()) {
        specs.push({
          role: `median ${number}`,
          column: smooth(curves.places, band.median, settings.smoothing_half_life),
          series: {
            stroke: () => this.colour(this.bandColour(number)),
            width: 2,
            dash: dashOf(number, this.printedWidth !== null && curves.bands.length > 1),
            points: { size: 5, filter: isolatedPoints },
          },
        });
      }
    }
    return specs;
  }

  /** @param {number} number Of the run. */
  bandColour(number) {
    return (this.curves?.bands.length ?? 0) > 1 ? colourName(number) : "--chart-median";
  }

  /**
   * @param {Spec[]} specs
   * @param {any} data
   */
  rebuild(specs, data) {
    this.plot?.destroy();
    this.plot = new uPlot(this.plotOptions(specs), data, this.box);
    this.plot.over.append(this.tip);
    this.plot.over.addEventListener("dblclick", () => {
      clearTimeout(this.choosing);
      this.zoom(null);
    });
    // uPlot keeps the click that ends a drag to itself. A double click needs the same element twice.
    this.plot.over.addEventListener("click", (event) => {
      if (event.detail === 1) {
        this.choosing = setTimeout(this.chooser(), DOUBLE_CLICK_MS);
      }
    });
    this.plot.over.addEventListener("mouseleave", () => this.leave());
    this.showPart();
  }

  /**
   * @param {Spec[]} specs
   * @returns {import("uplot").Options}
   */
  plotOptions(specs) {
    const { curves, options, scale } = this;
    const axis = curves?.axis ?? "step";
    const text = () => this.colour("--chart-text");
    const grid = { stroke: () => this.colour("--chart-grid"), width: 1 };
    const font = `11px ${getComputedStyle(this.element).fontFamily}`;
    const distributions = /** @type {const} */ ({ linear: 1, log: 3, asinh: 4 });
    return {
      width: this.width(),
      height: options.height ?? CHART_HEIGHT,
      legend: { show: false },
      padding: [10, 16, 0, 0],
      scales: {
        x: { time: false, range: (_plot, low, high) => placeRange(low, high) },
        y: {
          distr: distributions[scale.kind],
          log: 10,
          asinh: scale.threshold,
          range: (_plot, low, high) => valueRange(scale, low, high),
        },
      },
      axes: [
        {
          stroke: text,
          grid,
          font,
          ticks: { show: false },
          size: 22,
          label: curves?.axis_title ?? "",
          labelSize: 15,
          labelGap: 0,
          labelFont: font,
          splits: (plot, _axis, low, high) =>
            placeTicks(axis, low, high, plot.width / PLACE_TICK_PIXELS),
          values: (_plot, ticks) => placeLabels(axis, ticks),
          filter: (_plot, ticks) => ticks,
        },
        {
          stroke: text,
          grid,
          font,
          ticks: { show: false },
          gap: 4,
          size: (_plot, labels) =>
            14 + 6.4 * Math.max(3, ...(labels ?? []).map((label) => label.length)),
          splits: (_plot, _axis, low, high) => valueTicks(scale, low, high, 5),
          values: (_plot, ticks) => ticks.map((tick) => formatNumber(tick)),
          filter: (_plot, ticks) => ticks,
        },
      ],
      series: [{}, ...specs.map((spec) => spec.series)],
      bands: this.fills(specs),
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false },
        points: { show: false },
        ...(options.sync_key === undefined
          ? {}
          : { sync: { key: `${options.sync_key} ${axis}`, filters: { pub: sharesMoves } } }),
        bind: { dblclick: () => null },
      },
      hooks: {
        setSelect: [(plot) => this.onSelect(plot)],
        setCursor: [(plot) => this.onCursor(plot)],
        drawAxes: [(plot) => this.drawMarks(plot)],
        draw: [(plot) => this.drawNonfinite(plot)],
      },
    };
  }

  /**
   * Return the fills between the greatest and the least values.
   * @param {Spec[]} specs
   */
  fills(specs) {
    /** @type {import("uplot").Band[]} */
    const fills = [];
    const isMany = this.drawing.is_many;
    for (const [index, { role }] of specs.entries()) {
      if (role.startsWith("high ")) {
        const number = Number(role.slice(5));
        const name = isMany
          ? this.bandColour(number)
          : colourName(this.drawing.lines[number].order);
        fills.push({
          series: [index + 1, index + 2],
          fill: () => withAlpha(this.colour(name), isMany ? 0.14 : 0.16),
        });
      }
    }
    return fills;
  }

  writeHead() {
    const { curves, settings, drawing } = this;
    if (curves === null || settings === null) {
      return;
    }
    this.title.textContent = curves.title;
    const notes = [curves.unit, this.scale.words];
    if (drawing.is_many) {
      const medians = curves.bands.length > 1 ? "medians" : "median";
      notes.push(`${medians} and range of ${drawing.ranks} ranks`);
    }
    this.note.textContent = notes.filter(Boolean).join(" · ");
    /** @type {Map<string, DrawnLine>} */
    const ranks = new Map();
    for (const line of drawing.lines) {
      ranks.set(line.key, ranks.get(line.key) ?? line);
    }
    const medians = drawing.is_many && curves.bands.length > 1 ? curves.bands : [];
    this.legend.replaceChildren(
      ...medians.map((band, number) => legendItem(number, band.run)),
      ...(ranks.size > MOST_LINES ? [] : makeLegend([...ranks.values()], settings.has_runs ?? false)),
    );
    this.box.setAttribute(
      "aria-label",
      `${curves.title}, ${drawing.ranks} ${drawing.ranks === 1 ? "rank" : "ranks"}. ` +
        "Left and right arrow move the cursor, plus and minus zoom, Escape shows everything.",
    );
  }

  /** @param {Plot} plot */
  onSelect(plot) {
    const { left, width } = plot.select;
    if (width < DRAG_PIXELS) {
      return;
    }
    const part = /** @type {[number, number]} */ ([
      plot.posToVal(left, "x"),
      plot.posToVal(left + width, "x"),
    ]);
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.zoom(part);
  }

  /** @param {[number, number] | null} part */
  zoom(part) {
    this.part = part;
    this.showPart();
    this.options.on_zoom?.(part);
  }

  showPart() {
    const { plot, curves, part } = this;
    if (plot === null || curves === null) {
      return;
    }
    const { places } = curves;
    const [min, max] = part ?? placeRange(places[0] ?? null, places[places.length - 1] ?? null);
    plot.setScale("x", { min, max });
  }

  /** @param {Plot} plot */
  onCursor(plot) {
    const readings = this.read(plot);
    const { left, event } = plot.cursor;
    // A cursor that another chart moves has no event here: it is a line only.
    const isOwn = event != null || document.activeElement === this.box;
    this.tip.hidden = readings === null || !isOwn;
    if (this.tip.hidden || readings === null || left === undefined) {
      return;
    }
    showReadings(this.tip, readings);
    const isRight = left > plot.over.clientWidth / 2;
    this.tip.style.left = isRight ? "" : `${left + 12}px`;
    this.tip.style.right = isRight ? `${plot.over.clientWidth - left + 12}px` : "";
  }

  /**
   * @param {Plot} plot
   * @returns {Readings | null}
   */
  read(plot) {
    const { idx, left = -1, top = -1 } = plot.cursor;
    if (this.curves === null || idx === null || idx === undefined || left < 0) {
      return null;
    }
    /** @param {number} value */
    const distance = (value) => Math.abs(plot.valToPos(value, "y") - top);
    const near = /** @type {[number, number]} */ ([
      plot.posToVal(left - NEAR_PIXELS / 2, "x"),
      plot.posToVal(left + NEAR_PIXELS / 2, "x"),
    ]);
    return readCurves(this.curves, this.drawing, idx, distance, near);
  }

  /** Return what chooses the line at the cursor. */
  chooser() {
    const readings = this.plot && this.read(this.plot);
    return () => {
      if (readings?.nearest && readings.nearest.distance < CLICK_PIXELS) {
        this.options.on_choose?.(readings.nearest.line.rank);
      }
    };
  }

  leave() {
    this.tip.hidden = true;
    this.plot?.setCursor({ left: -10, top: -10 }, false);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const { plot, curves } = this;
    if (plot === null || curves === null || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const { min = 0, max = 1 } = plot.scales.x;
    const { places } = curves;
    const first = places.findIndex((place) => place >= min);
    const last = places.findLastIndex((place) => place <= max);
    const at = plot.cursor.idx ?? first;
    const isIn = plot.cursor.idx !== null && (plot.cursor.left ?? -1) >= 0;
    const stride = event.shiftKey ? 10 : 1;
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowRight: () => this.moveTo(isIn ? Math.min(at + stride, last) : first),
      ArrowLeft: () => this.moveTo(isIn ? Math.max(at - stride, first) : last),
      Home: () => this.moveTo(first),
      End: () => this.moveTo(last),
      "+": () => this.zoomAround(isIn ? places[at] : (min + max) / 2, 0.5),
      "-": () => this.zoomAround(isIn ? places[at] : (min + max) / 2, 2),
      Escape: () => (this.part === null ? this.leave() : this.zoom(null)),
    };
    const action = actions[event.key === "=" ? "+" : event.key];
    if (action && first >= 0 && last >= 0) {
      event.preventDefault();
      action();
    }
  }

  /** @param {number} index Of a place. */
  moveTo(index) {
    const { plot, curves } = this;
    if (plot === null || curves === null) {
      return;
    }
    const left = plot.valToPos(curves.places[index], "x");
    plot.setCursor({ left, top: plot.over.clientHeight / 2 });
    const readings = this.read(plot);
    this.live.textContent = readings === null ? "" : readingsInWords(readings);
  }

  /**
   * @param {number} place Stays where it is.
   * @param {number} factor
   */
  zoomAround(place, factor) {
    const { plot, curves } = this;
    if (plot === null || curves === null) {
      return;
    }
    const { min = 0, max = 1 } = plot.scales.x;
    const [from, to] = [place - (place - min) * factor, place + (max - place) * factor];
    const [low, high] = [curves.places[0], curves.places[curves.places.length - 1]];
    this.zoom(from <= low && to >= high ? null : [Math.max(from, low), Math.min(to, high)]);
  }

  /**
   * Draw restarts and events, behind the curves.
   * @param {Plot} plot
   */
  drawMarks(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = this.colour("--chart-mark");
    ctx.fillStyle = this.colour("--chart-text");
    ctx.lineWidth = ratio;
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    ctx.font = `${10 * ratio}px ${getComputedStyle(this.element).fontFamily}`;
    ctx.textAlign = "left";
    ctx.textBaseline = "top";
    let free = -Infinity;
    const marks = [...(this.curves?.marks ?? [])].sort((one, other) => one.x - other.x);
    for (const { x, words } of marks) {
      const at = Math.round(plot.valToPos(x, "x", true));
      if (at < bbox.left || at > bbox.left + bbox.width) {
        continue;
      }
      ctx.beginPath();
      ctx.moveTo(at, bbox.top);
      ctx.lineTo(at, bbox.top + bbox.height);
      ctx.stroke();
      const width = ctx.measureText(words).width + 6 * ratio;
      if (at > free && at + width < bbox.left + bbox.width) {
        ctx.fillText(words, at + 3 * ratio, bbox.top);
        free = at + width;
      }
    }
    ctx.restore();
  }

  /**
   * Draw a triangle at the edge where values are NaN or infinite, with their count.
   * @param {Plot} plot
   */
  drawNonfinite(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    /** @type {{at: number, count: number, ranks: Set<number>}[]} */
    const groups = [];
    for (const { at, count, rank } of this.nonfinite(plot)) {
      const group = groups[groups.length - 1];
      if (group && at - group.at < NEAR_PIXELS * ratio) {
        group.count += count;
        group.ranks.add(rank);
      } else {
        groups.push({ at, count, ranks: new Set([rank]) });
      }
    }
    const bottom = bbox.top + bbox.height;
    ctx.save();
    ctx.fillStyle = this.colour("--chart-nonfinite");
    ctx.font = `bold ${10 * ratio}px ${getComputedStyle(this.element).fontFamily}`;
    ctx.textBaseline = "bottom";
    for (const { at, count } of groups) {
      ctx.beginPath();
      ctx.moveTo(at - 4 * ratio, bottom);
      ctx.lineTo(at + 4 * ratio, bottom);
      ctx.lineTo(at, bottom - 7 * ratio);
      ctx.fill();
      const words = count > 1 ? `${INTEGERS.format(count)} NaN` : "NaN";
      const isRight = at + 50 * ratio > bbox.left + bbox.width;
      ctx.textAlign = isRight ? "right" : "left";
      ctx.fillText(words, at + (isRight ? -6 : 6) * ratio, bottom - ratio);
    }
    ctx.restore();
  }

  /**
   * Return the visible places with NaN or infinity of all lines that are not hidden, in order.
   * @param {Plot} plot
   */
  nonfinite(plot) {
    const { curves, settings } = this;
    const found = [];
    const hidden = new Set(settings?.hidden.map(keyOf));
    const { min = 0, max = 1 } = plot.scales.x;
    for (const line of curves?.lines ?? []) {
      if (!hidden.has(keyOf([line.run, line.rank]))) {
        for (const [index, count] of line.nonfinite) {
          const place = curves?.places[index] ?? NaN;
          if (place >= min && place <= max) {
            found.push({ at: plot.valToPos(place, "x", true), count, rank: line.rank });
          }
        }
      }
    }
    return found.sort((one, other) => one.at - other.at);
  }

  width() {
    return this.printedWidth ?? Math.max(this.box.clientWidth, 200);
  }

  resize() {
    const { plot } = this;
    if (plot !== null && plot.width !== this.width()) {
      plot.setSize({ width: this.width(), height: plot.height });
    }
  }

  recolour() {
    this.colour = readColours(this.element);
    this.plot?.redraw(false, false);
  }

  /**
   * Draw in the light colours, and with a dash for each line, for paper.
   * @param {boolean} isPrinted
   */
  print(isPrinted) {
    document.documentElement.classList.toggle("is-printed", isPrinted);
    this.printedWidth = isPrinted ? Math.min(this.box.clientWidth, 340) : null;
    this.colour = readColours(this.element);
    if (this.curves !== null && this.settings !== null) {
      this.shape = "";
      this.update(this.curves, this.settings);
    }
  }
}

/**
 * @param {string} name
 * @param {string} className
 */
function makePart(name, className) {
  const part = document.createElement(name);
  part.className = className;
  return part;
}

/**
 * Return the items of a legend; what is the same of all lines stands once before them.
 * @param {DrawnLine[]} lines
 * @param {boolean} hasRuns Whether several runs are shown, here or in other charts.
 */
function makeLegend(lines, hasRuns) {
  const [run, ...others] = new Set(lines.map((line) => line.rank[0]));
  const isOneRun = run !== undefined && others.length === 0;
  const items = lines.map((line) =>
    legendItem(line.order, isOneRun ? String(line.rank[1]) : line.words),
  );
  return isOneRun ? [hasRuns ? `${run} · rank` : "rank", ...items] : items;
}

/**
 * @param {number} order Of the line.
 * @param {string} words
 */
function legendItem(order, words) {
  const item = makePart("span", "chart-legend-item");
  item.append(makeSwatch(order), words);
  return item;
}

/** @param {string} type Of an event that charts share: the zoom is left to `on_zoom`. */
function sharesMoves(type) {
  return type === "mousemove" || type === "mouseleave";
}

/**
 * Return the points that are drawn although there is a line: those without a neighbour.
 * @param {Plot} plot
 * @param {number} index Of the series.
 * @param {boolean} isShown Whether all points are shown.
 */
function isolatedPoints(plot, index, isShown) {
  if (isShown) {
    return null;
  }
  const column = /** @type {Column} */ (plot.data[index]);
  const found = [];
  let before = null;
  for (let at = 0; at < column.length; at += 1) {
    const value = column[at];
    if (value === undefined) {
      continue;
    }
    if (value !== null && before === null) {
      let next = at + 1;
      while (next < column.length && column[next] === undefined) {
        next += 1;
      }
      if (next >= column.length || column[next] === null) {
        found.push(at);
      }
    }
    before = value;
  }
  return found;
}

/**
 * @param {string} colour As #rrggbb.
 * @param {number} alpha
 */
function withAlpha(colour, alpha) {
  const byte = Math.round(alpha * 255).toString(16).padStart(2, "0");
  return /^#[0-9a-f]{6}$/i.test(colour) ? colour + byte : colour;
}
