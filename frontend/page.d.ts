/** What the server tells the live page: the JSON of `plain_run` and of `view/server/board.py`. */

interface MetricInfo {
  /** The metric as a query in PromQL, which is also how the server knows it. */
  id: string;
  name: string;
  metric: string;
  stage: string;
  granularity: string;
  goal: string;
  kind: string;
  unit: string;
  scope: string;
}

interface Finding {
  alert: string;
  severity: "critical" | "warning" | "info";
  words: string;
  rank: number | null;
}

interface RankRow {
  rank: number;
  host: string;
  local_rank: string;
  pid: string;
  attempt: number;
  state: string;
  phase: string;
  phase_s: number;
  epoch: number | null;
  iteration: number | null;
  steps: number | null;
  x: number;
  age_s: number | null;
  step_s: number | null;
  excess: number | null;
  is_straggler: boolean;
  slow_part: string;
  slow_ratio: number | null;
  nonfinite: number;
  first_nonfinite: { metric: string; x: number; time_s: number }[];
  loss: number | null;
  throughput: number | null;
  loss_curve: (number | null)[];
  throughput_curve: (number | null)[];
}

interface RunInfo {
  name: string;
  state: string;
  state_words: string;
  now_s: number;
  begin_s: number | null;
  last_log_s: number | null;
  world_size: number;
  epoch: number | null;
  iteration: number | null;
  step_s: number | null;
  loss: string | null;
  throughput: string | null;
  throughput_unit: string;
  findings: Finding[];
  metrics: MetricInfo[];
  parameters: Record<string, number | string>;
  starts: { rank: number; attempt: number; time_s: number; x: number }[];
  best: {
    metric: string;
    goal: string;
    value: number;
    rank: number;
    x: number | null;
    time_s: number | null;
  }[];
  rows: RankRow[];
}

interface RunBrief {
  name: string;
  state: string;
  ranks: number;
  begin_s: number | null;
}

/** Curves from an index on; a page has what is before it. */
interface CurvesTail extends Curves {
  first: number;
}

/** All that a page knows. */
interface PageState {
  now_s: number;
  /** What is looked at, for people. */
  words: string;
  reading: { read_bytes: number; size_bytes: number; is_current: boolean };
  runs: RunBrief[];
  shown: RunInfo[];
  curves: Curves[];
}

/** A message of the server: a whole state, or what is different in it. */
interface PageMessage extends Partial<Omit<PageState, "curves" | "shown">> {
  is_whole: boolean;
  shown?: (Partial<RunInfo> & { name: string })[];
  curves: CurvesTail[];
}

/** What one looks at; a link keeps it. */
interface PageView {
  /** Names of runs; none for the one that logged last. */
  runs: string[];
  /** Ids of metrics; none for the first ones. */
  metrics: string[];
  axis: string;
  half_life: number;
  is_log: boolean;
  has_all_lines: boolean;
  part: [number, number] | null;
  ranks: RankKey[];
}
