/** What the server and the report pass to the charts: the JSON of `otel_dllogger/view/plain.py`. */

/** One rank in one pass over its steps, in columns as long as `Curves.places`. */
interface Line {
  run: string;
  rank: number;
  segment: number;
  /** Whether a later segment did its last steps again. */
  is_redone: boolean;
  /** null where no finite value was logged. */
  mean: (number | null)[];
  least: (number | null)[];
  greatest: (number | null)[];
  /** Index of a place, and how many values there were NaN or infinite. */
  nonfinite: [number, number][];
}

/** What all ranks of a run had. */
interface Band {
  run: string;
  ranks: number;
  least: (number | null)[];
  median: (number | null)[];
  greatest: (number | null)[];
}

/** The curves of one metric. */
interface Curves {
  metric: string;
  /** Ascending. */
  places: number[];
  is_exact: boolean;
  lines: Line[];
  bands: Band[];
}

/** A restart or an event, at its place on the axis. */
interface Mark {
  x: number;
  words: string;
}

/** Curves, and what a chart says of them. */
interface ChartCurves extends Curves {
  title: string;
  unit: string;
  /** step, epoch, relative, process or wall; the last three are in seconds. */
  axis: string;
  axis_title: string;
  marks: Mark[];
}

/** A run and a rank. */
type RankKey = [string, number];

interface ChartSettings {
  /** In units of the axis; 0 for none. */
  smoothing_half_life: number;
  is_log: boolean;
  /** Whether to draw every line where there are more than eight. */
  show_all_lines: boolean;
  highlighted: RankKey[];
  hidden: RankKey[];
  /** Whether several runs are shown; by default whether a chart has lines of several. */
  has_runs?: boolean;
  /** The ranks that have the same colour in all charts, in the order of the colours; by default
   * each chart gives the ranks that it draws the colours in their order. */
  order?: RankKey[];
  /** The part of the axis that is shown; null for all of it. */
  part?: [number, number] | null;
}

interface ChartOptions {
  /** Height of the plot without its heading, in CSS pixels. */
  height?: number;
  /** Charts with the same key move their cursors together. */
  sync_key?: string;
  /** The user chose a part of the axis; null for all of it. */
  on_zoom?: (part: [number, number] | null) => void;
  /** The user chose a rank. */
  on_choose?: (rank: RankKey) => void;
}

interface Chart {
  update(curves: ChartCurves, settings: ChartSettings): void;
  destroy(): void;
}

/** vendor/uplot.js */
declare const uPlot: typeof import("uplot");
