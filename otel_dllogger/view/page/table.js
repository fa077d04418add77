"use strict";
// The table of ranks: who needs help first, or as the user sorts it.

const MOST_ROWS = 32;

/** @typedef {{run: RunInfo, row: RankRow, key: string}} TableEntry */

/**
 * @typedef {object} TableColumn
 * @property {string} title
 * @property {string} words What it means.
 * @property {boolean} [is_text]
 * @property {(entry: TableEntry) => number | string | null} value To sort by.
 * @property {(entry: TableEntry) => string} text
 * @property {(row: RankRow) => (number | null)[]} [curve]
 * @property {(row: RankRow) => boolean} [is_wrong] Whether it needs attention.
 */

/** @type {TableColumn[]} */
const TABLE_COLUMNS = [
  {
    title: "rank",
    words: "Click to highlight it in the charts",
    value: ({ run, row }) => `${run.name} ${String(row.rank).padStart(9, "0")}`,
    text: ({ row }) => String(row.rank),
  },
  {
    title: "state",
    words: "What it is doing",
    is_text: true,
    value: ({ row }) => row.state,
    text: ({ row }) => stateOf(row),
  },
  {
    title: "epoch · iter",
    words: "Its epoch and iteration",
    value: ({ row }) => row.x,
    text: ({ row }) =>
      [row.epoch, row.iteration]
        .filter((number) => number !== null)
        .map((number) => formatNumber(number))
        .join(" · ") || "–",
  },
  {
    title: "loss",
    words: "Its last loss, and all of it since the beginning",
    value: ({ row }) => row.loss,
    text: ({ row }) => formatNumber(row.loss),
    curve: (row) => row.loss_curve,
  },
  {
    title: "throughput",
    words: "How much it does in a second",
    value: ({ row }) => row.throughput,
    text: ({ row }) => formatNumber(row.throughput),
    curve: (row) => row.throughput_curve,
  },
  {
    title: "step time",
    words: "Seconds of a step, lately",
    value: ({ row }) => row.step_s,
    text: ({ row }) => (row.step_s === null ? "–" : writeDuration(row.step_s)),
  },
  {
    title: "vs. median",
    words: "How much longer that is than the median of the ranks",
    value: ({ row }) => row.excess,
    text: ({ row }) => writeExcess(row),
    is_wrong: (row) => row.is_straggler,
  },
  {
    title: "NaN",
    words: "How often a metric was NaN or infinite",
    value: ({ row }) => row.nonfinite,
    text: ({ row }) => (row.nonfinite ? formatNumber(row.nonfinite, 9) : "–"),
    is_wrong: (row) => row.nonfinite > 0,
  },
  {
    title: "last log",
    words: "How long ago it logged",
    value: ({ row }) => row.age_s,
    text: ({ row }) => (row.age_s === null ? "–" : formatSeconds(Math.round(row.age_s))),
    is_wrong: (row) => ["quiet", "stalled", "vanished"].includes(row.state),
  },
  {
    title: "host",
    words: "Where it runs, with its local rank",
    is_text: true,
    value: ({ row }) => row.host,
    text: ({ row }) => row.host + (row.local_rank ? ` · ${row.local_rank}` : "") || "–",
  },
];

/** @param {number} seconds */
function writeDuration(seconds) {
  return seconds < 1 ? `${formatNumber(seconds * 1000, 3)} ms` : formatSeconds(seconds);
}

/** @param {RankRow} row */
function writeExcess(row) {
  if (row.excess === null) {
    return "–";
  }
  const percent = Math.round(row.excess * 100);
  const part = row.is_straggler && row.slow_part ? ` ${row.slow_part}` : "";
  return `${percent > 0 ? "+" : ""}${percent} %${part}`;
}

class RankTable {
  /**
   * @param {HTMLElement} element
   * @param {(rank: RankKey) => void} onChoose
   */
  constructor(element, onChoose) {
    this.onChoose = onChoose;
    /** @type {number | null} */ // null: as the server sorts them, who needs help first
    this.sorted = null;
    this.isDescending = false;
    this.hasAll = false;
    /** @type {Map<string, HTMLTableRowElement>} */
    this.rows = new Map();
    /** @type {() => void} */
    this.redraw = () => {};
    this.heads = TABLE_COLUMNS.map((column, index) => this.makeHead(column, index));
    const head = make("tr", "", ...this.heads);
    this.body = make("tbody");
    this.more = make("button", "more");
    this.more.addEventListener("click", () => {
      this.hasAll = !this.hasAll;
      this.redraw();
    });
    const table = make("table", "ranks", make("thead", "", head), this.body);
    const box = make("div", "scroll", table);
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Ranks");
    element.replaceChildren(box, this.more);
  }

  /**
   * @param {TableColumn} column
   * @param {number} index
   */
  makeHead(column, index) {
    const button = make("button", "", column.title);
    button.title = column.words;
    button.addEventListener("click", () => this.sortBy(index));
    const head = make("th", column.is_text ? "is-text" : "", button);
    head.scope = "col";
    return head;
  }

  /** @param {number} index Of the column: ascending first, then descending, then as it was. */
  sortBy(index) {
    if (this.sorted !== index) {
      this.sorted = index;
      this.isDescending = false;
    } else if (this.isDescending) {
      this.sorted = null;
    } else {
      this.isDescending = true;
    }
    this.redraw();
  }

  /**
   * Show the ranks of runs.
   * @param {RunInfo[]} runs
   * @param {RankKey[]} chosen
   */
  update(runs, chosen) {
    this.redraw = () => this.update(runs, chosen);
    const chosenKeys = new Set(chosen.map(keyOf));
    const all = this.inOrder(
      runs.flatMap((run) => run.rows.map((row) => ({ run, row, key: keyOf([run.name, row.rank]) }))),
    );
    const shown = this.hasAll ? all : all.slice(0, MOST_ROWS);
    this.more.hidden = all.length <= MOST_ROWS;
    setText(this.more, this.hasAll ? `First ${MOST_ROWS} ranks` : `All ${all.length} ranks`);
    this.heads.forEach((head, index) => {
      const order = this.isDescending ? "descending" : "ascending";
      head.setAttribute("aria-sort", this.sorted === index ? order : "none");
    });
    const unit = runs.length === 1 ? runs[0].throughput_unit : "";
    setText(/** @type {Element} */ (this.heads[4].firstElementChild), unit || "throughput");
    const ranges = TABLE_COLUMNS.map(({ curve }) =>
      curve ? rangeOf(shown.map(({ row }) => curve(row))) : null,
    );
    const rows = shown.map((entry) => {
      const row = this.rows.get(entry.key) ?? this.makeRow(entry);
      this.fill(row, entry, ranges, runs.length > 1, chosenKeys.has(entry.key));
      return row;
    });
    this.rows = new Map(shown.map((entry, index) => [entry.key, rows[index]]));
    if (rows.length !== this.body.rows.length || rows.some((row, at) => row !== this.body.rows[at])) {
      const focused = document.activeElement;
      this.body.replaceChildren(...rows);
      if (focused instanceof HTMLElement && this.body.contains(focused)) {
        focused.focus({ preventScroll: true });
      }
    }
  }

  /** @param {TableEntry[]} entries */
  inOrder(entries) {
    if (this.sorted === null) {
      return entries;
    }
    const { value } = TABLE_COLUMNS[this.sorted];
    const sign = this.isDescending ? -1 : 1;
    return [...entries].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === null || b === null) {
        return Number(a === null) - Number(b === null); // what is not known comes last
      }
      return a < b ? -sign : a > b ? sign : 0;
    });
  }

  /** @param {TableEntry} entry */
  makeRow({ run, row }) {
    /** @type {RankKey} */
    const rank = [run.name, row.rank];
    const cells = TABLE_COLUMNS.map((column, index) => {
      const cell = make(index ? "td" : "th", column.is_text ? "is-text" : "");
      const text = make(index ? "span" : "button", index === 1 ? "state" : "");
      cell.append(text);
      if (column.curve) {
        cell.prepend(makeSpark());
      }
      return cell;
    });
    /** @type {HTMLTableCellElement} */ (cells[0]).scope = "row";
    const element = make("tr", "", ...cells);
    element.addEventListener("click", () => this.onChoose(rank));
    return element;
  }

  /**
   * @param {HTMLTableRowElement} element
   * @param {TableEntry} entry
   * @param {([number, number] | null)[]} ranges
   * @param {boolean} hasRuns Whether there are several.
   * @param {boolean} isChosen
   */
  fill(element, entry, ranges, hasRuns, isChosen) {
    const { run, row } = entry;
    element.classList.toggle("is-chosen", isChosen);
    TABLE_COLUMNS.forEach((column, index) => {
      const cell = element.cells[index];
      const text = /** @type {HTMLElement} */ (cell.lastElementChild);
      cell.classList.toggle("is-wrong", column.is_wrong?.(row) ?? false);
      if (index === 0) {
        text.setAttribute("aria-pressed", String(isChosen));
        setText(text, hasRuns ? `${run.name} · ${row.rank}` : `rank ${row.rank}`);
      } else if (index === 1) {
        showState(text, row.state, stateOf(row));
      } else {
        setText(text, column.text(entry));
      }
      const range = ranges[index];
      if (column.curve && range) {
        drawSpark(/** @type {SVGSVGElement} */ (cell.firstElementChild), column.curve(row), range);
      }
    });
  }
}

/**
 * Return what a rank is doing: its state, and the phase that interrupts its training.
 * @param {RankRow} row
 */
function stateOf(row) {
  return row.phase ? `${row.state}, ${row.phase} ${formatSeconds(row.phase_s)}` : row.state;
}

/**
 * @param {(number | null)[][]} curves
 * @returns {[number, number]}
 */
function rangeOf(curves) {
  const known = curves.flat().filter((value) => value !== null);
  return known.reduce(
    ([low, high], value) => [Math.min(low, value), Math.max(high, value)],
    /** @type {[number, number]} */ ([Infinity, -Infinity]),
  );
}
