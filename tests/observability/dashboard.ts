// SPDX-License-Identifier: MIT
//
// What a dashboard of ours may be: Grafana's own published types (@grafana/schema), with each kind
// of panel held to its own options. Whatever is not named here, such as a removed kind of panel or
// an option that has gone, is an error of the compiler. The test puts each dashboard behind this as
// a literal, so that unknown members are errors as well.
import type {
  AnnotationQuery, Dashboard, DataSourceRef, FieldConfig, GridPos, RowPanel, VariableModel,
} from '@grafana/schema';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as logs from '@grafana/schema/dist/esm/raw/composable/logs/panelcfg/x/LogsPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has the values of enums, not their names.
type Plain<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
  : T extends Array<infer U> ? Plain<U>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;

interface Target {
  refId: string;
  datasource: DataSourceRef;
  expr: string;
  editorMode?: 'code' | 'builder';
  legendFormat?: string;
  format?: 'time_series' | 'table' | 'heatmap';
  range?: boolean;
  instant?: boolean;
  queryType?: 'range' | 'instant'; // of Loki
}

interface Of<Type extends string, Options, Custom> {
  type: Type;
  id: number;
  title: string;
  description: string;
  datasource: DataSourceRef;
  gridPos: GridPos;
  targets: Target[];
  options: Options;
  transformations?: { id: string; options: unknown }[];
  fieldConfig: {
    defaults: Omit<FieldConfig, 'custom' | 'unit' | 'thresholds'> & {
      unit: string;
      thresholds: NonNullable<FieldConfig['thresholds']>;
      custom?: Custom;
    };
    overrides: [];
  };
}

type OurPanel =
  | Of<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | Of<'stat', stat.Options, never>
  | Of<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | Of<'table', table.Options, Partial<table.FieldConfig>>
  // Options that only a program that embeds the panel can set are functions.
  | Of<'logs', logs.Options, never>
  | (Omit<RowPanel, 'panels'> & { panels: [] });

// What the types leave to the plugin of the data source and to older Grafanas.
type Variable = Omit<VariableModel, 'query'> & {
  query: string | { query: string; refId: string };
  definition?: string;
};
type Annotation = AnnotationQuery & { expr: string; titleFormat: string };

export type OurDashboard = Plain<Omit<Dashboard, 'panels' | 'templating' | 'annotations'> & {
  uid: string;
  title: string;
  description: string;
  panels: OurPanel[];
  templating: { list: Variable[] };
  annotations: { list: Annotation[] };
}>;
