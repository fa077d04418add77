"use strict";
// Which lines of a metric are drawn, in which order, and from which values.

const MOST_LINES = 8;
const WORST_LINES = 3;
/** How much farther from the median another rank must be to take the place of a worst one. */
const KEPT = 1.25;

/** @typedef {(number | null | undefined)[]} Column */

/**
 * @typedef {object} DrawnLine
 * @property {RankKey} rank
 * @property {string} key Of the rank.
 * @property {string} words
 * @property {number} order Its colour and dash.
 * @property {boolean} is_highlighted
 * @property {boolean} is_redone Whether a later segment did these steps again.
 * @property {Column} mean null breaks the line, undefined does not.
 * @property {Column} shown The same, smoothed.
 * @property {Line} line
 */

/**
 * @typedef {object} Drawing
 * @property {DrawnLine[]} lines
 * @property {boolean} is_many Whether there are more than eight ranks: bands are drawn.
 * @property {number} ranks How many there are.
 * @property {Set<string>} worst The keys of the worst ranks.
 */

/**
 * @param {RankKey} rank
 */
function keyOf(rank) {
  return JSON.stringify(rank);
}

/**
 * Choose the lines of a chart: all of eight ranks or fewer, else the worst and the chosen ones.
 * @param {ChartCurves} curves
 * @param {ChartSettings} settings
 * @param {Set<string>} [before] The ranks that were the worst, which stay if others are hardly worse.
 * @returns {Drawing}
 */
function chooseLines(curves, settings, before = new Set()) {
  const hidden = new Set(settings.hidden.map(keyOf));
  const highlighted = new Set(settings.highlighted.map(keyOf));
  const ranks = new Set(curves.lines.map((line) => keyOf([line.run, line.rank])));
  const all = Math.max(
    ranks.size,
    curves.bands.reduce((sum, band) => sum + band.ranks, 0),
  );
  const isMany = all > MOST_LINES;
  const worst = isMany && !settings.show_all_lines ? worstRanks(curves, before) : ranks;
  /** @type {Map<string, number>} */
  const orders = new Map();
  const drawn = [...ranks].filter((key) => worst.has(key) || highlighted.has(key));
  // The medians of several runs have the first colours.
  const first = isMany && curves.bands.length > 1 ? curves.bands.length : 0;
  for (const key of [...(settings.order ?? []).map(keyOf), ...drawn]) {
    if (!orders.has(key)) {
      orders.set(key, first + orders.size);
    }
  }
  // Where several runs are shown, a line has its run even if no other run has the metric.
  const hasRuns = settings.has_runs ?? new Set(curves.lines.map((line) => line.run)).size > 1;
  const lines = [];
  for (const line of curves.lines) {
    /** @type {RankKey} */
    const rank = [line.run, line.rank];
    const key = keyOf(rank);
    if (hidden.has(key) || !(worst.has(key) || highlighted.has(key))) {
      continue;
    }
    const mean = withGaps(line);
    const shown = smooth(curves.places, mean, settings.smoothing_half_life);
    const common = {
      rank,
      key,
      words: hasRuns ? `${line.run} · rank ${line.rank}` : `rank ${line.rank}`,
      order: orders.get(key) ?? 0,
      is_highlighted: highlighted.has(key),
      line,
    };
    const cut = line.is_redone ? redoneFrom(curves, line) : Infinity;
    if (cut === Infinity) {
      lines.push({ ...common, is_redone: false, mean, shown });
      continue;
    }
    /** @param {Column} column @param {boolean} isLater @returns {Column} */
    const part = (column, isLater) =>
      column.map((value, index) => ((isLater ? index >= cut : index <= cut) ? value : undefined));
    lines.push({ ...common, is_redone: false, mean: part(mean, false), shown: part(shown, false) });
    lines.push({ ...common, is_redone: true, mean: part(mean, true), shown: part(shown, true) });
  }
  return { lines, is_many: isMany, ranks: all, worst };
}

/**
 * A gap is where only NaN or infinity was logged. Where nothing was logged, since ranks log
 * different steps, the line goes on.
 * @param {Line} line
 * @returns {Column}
 */
function withGaps(line) {
  /** @type {Column} */
  const mean = line.mean.map((value) => value ?? undefined);
  for (const [index] of line.nonfinite) {
    mean[index] ??= null;
  }
  return mean;
}

/**
 * Return the index of the place from which a later segment did the steps of a line again.
 * @param {ChartCurves} curves
 * @param {Line} line
 */
function redoneFrom(curves, line) {
  let from = Infinity;
  for (const other of curves.lines) {
    if (other.run === line.run && other.rank === line.rank && other.segment > line.segment) {
      const first = other.mean.findIndex((value) => value !== null);
      from = first >= 0 ? Math.min(from, first) : from;
    }
  }
  return from;
}

/**
 * Return the ranks that are farthest from the median of their run, lately.
 * @param {ChartCurves} curves
 * @param {Set<string>} before
 */
function worstRanks(curves, before) {
  const from = Math.floor(curves.places.length * 0.75);
  /** @type {Map<string, number>} */
  const distances = new Map();
  for (const line of curves.lines) {
    const median = curves.bands.find((band) => band.run === line.run)?.median;
    let sum = 0;
    let count = 0;
    for (let index = from; median && index < line.mean.length; index += 1) {
      const value = line.mean[index];
      const middle = median[index];
      if (value !== null && middle !== null) {
        sum += Math.abs(value - middle);
        count += 1;
      }
    }
    if (count) {
      const key = keyOf([line.run, line.rank]);
      const distance = (sum / count) * (before.has(key) ? KEPT : 1);
      distances.set(key, Math.max(distances.get(key) ?? 0, distance));
    }
  }
  const order = [...distances].sort((one, other) => other[1] - one[1]);
  return new Set(order.slice(0, WORST_LINES).map(([key]) => key));
}
