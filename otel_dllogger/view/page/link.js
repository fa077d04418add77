"use strict";
// What one looks at, in the fragment of the address: a link keeps it, and the server never sees it.

const AXES = ["step", "epoch", "relative", "process", "wall"];

/**
 * Read what a fragment says.
 * @param {string} fragment
 * @returns {PageView}
 */
function readLink(fragment) {
  const query = new URLSearchParams(fragment.replace(/^#/, ""));
  const axis = query.get("axis") ?? "";
  const halfLife = Number(query.get("smooth") ?? 0);
  const [from, to] = [Number(query.get("from") ?? NaN), Number(query.get("to") ?? NaN)];
  return {
    runs: query.getAll("run").slice(0, 16),
    metrics: query.getAll("metric"),
    axis: AXES.includes(axis) ? axis : AXES[0],
    half_life: Number.isFinite(halfLife) && halfLife > 0 ? halfLife : 0,
    is_log: query.get("log") === "1",
    has_all_lines: query.get("lines") === "all",
    part: from < to ? [from, to] : null,
    ranks: query.getAll("rank").flatMap(readRank).slice(0, 64),
  };
}

/**
 * @param {PageView} view
 * @returns {string} A fragment.
 */
function writeLink(view) {
  const query = new URLSearchParams();
  view.runs.forEach((run) => query.append("run", run));
  view.metrics.forEach((metric) => query.append("metric", metric));
  if (view.axis !== AXES[0]) {
    query.set("axis", view.axis);
  }
  if (view.half_life) {
    query.set("smooth", String(view.half_life));
  }
  if (view.is_log) {
    query.set("log", "1");
  }
  if (view.has_all_lines) {
    query.set("lines", "all");
  }
  if (view.part) {
    query.set("from", String(view.part[0]));
    query.set("to", String(view.part[1]));
  }
  view.ranks.forEach((rank) => query.append("rank", writeRank(rank)));
  return `#${query}`;
}

/**
 * Return the query by which the server knows what a page shows.
 * @param {PageView} view
 * @param {string[]} metrics Those that are visible.
 */
function makeQuery(view, metrics) {
  const query = new URLSearchParams();
  view.runs.forEach((run) => query.append("run", run));
  // In one order, so that pages that show the same share the work for it.
  [...metrics].sort().slice(0, 16).forEach((metric) => query.append("metric", metric));
  query.set("axis", view.axis);
  query.set("lines", view.has_all_lines ? "all" : "worst");
  if (view.part) {
    query.set("from", String(view.part[0]));
    query.set("to", String(view.part[1]));
  }
  view.ranks.forEach((rank) => query.append("rank", writeRank(rank)));
  return String(query);
}

/** @param {RankKey} rank */
function writeRank([run, rank]) {
  return `${rank}:${run}`;
}

/**
 * @param {string} text
 * @returns {RankKey[]} None if it is not a rank.
 */
function readRank(text) {
  const found = /^(\d{1,9}):(.*)$/s.exec(text);
  return found ? [[found[2], Number(found[1])]] : [];
}
