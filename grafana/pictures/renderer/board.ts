// What Python writes for each dashboard: grafana/pictures/board.py has the same in words.

import type { DataTransformerConfig, FieldConfigSource } from '@grafana/data';

export interface Board {
  title: string;
  from_ms: number;
  to_ms: number;
  variables: Array<{ label: string; text: string }>;
  rows: Row[];
}

export interface Row {
  title: string;
  panels: Panel[];
}

export interface Panel {
  title: string;
  /** The panel's JSON from the dashboard. */
  model: PanelModel;
  /** What the user sees of each variable, by name. */
  variables: Record<string, string>;
  answers: Answer[];
}

export interface PanelModel {
  type: string;
  description?: string;
  transparent?: boolean;
  gridPos: { x: number; y: number; w: number; h: number };
  repeat?: string;
  maxPerRow?: number;
  options?: Record<string, any>;
  fieldConfig?: FieldConfigSource;
  transformations?: DataTransformerConfig[];
}

/** The answer of Prometheus to the query of one target. */
export interface Answer {
  ref_id: string;
  format: string;
  legend: string;
  is_hidden: boolean;
  /** Milliseconds from one point to the next; null for an instant query. */
  step_ms: number | null;
  series: Array<{ labels: Record<string, string>; samples: Sample[] }>;
}

/** Milliseconds and value, as text where JSON has no number for it. */
export type Sample = [number, number | 'nan' | 'inf' | '-inf'];
