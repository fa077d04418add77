import type * as dashboard from "./node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen";
import type * as heatmaps from "./node_modules/@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/types.gen";
import type * as stats from "./node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen";
import type * as tables from "./node_modules/@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen";
import type * as lines from "./node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen";
import type * as xycharts from "./node_modules/@grafana/schema/dist/types/raw/composable/xychart/panelcfg/x/types.gen";

interface Panel<Options, Custom> {
  options: Options;
  custom: Custom;
}

export type Board = dashboard.Dashboard;
export type heatmap = Panel<heatmaps.Options, heatmaps.FieldConfig>;
export type stat = Panel<stats.Options, Record<string, never>>;
export type table = Panel<tables.Options, tables.FieldConfig>;
export type timeseries = Panel<lines.Options, lines.FieldConfig>;
export type xychart = Panel<xycharts.Options, xycharts.FieldConfig>;
