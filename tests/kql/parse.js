// Reads JSON from standard input: tables and their columns, and queries by name. Prints what Microsoft's parser says of each
// query, as JSON: `error line:column text`. A query without a fault has an empty list.
'use strict';

require('@kusto/language-service-next/bridge.min.js');
require('@kusto/language-service-next/Kusto.Language.Bridge.min.js');

const { DiagnosticSeverity, GlobalState, KustoCode, Symbols } = Kusto.Language;
const { tables, queries } = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));

const list = (type, items) => new (System.Collections.Generic.List$1(type).$ctor1)(items);
const table = ([name, columns]) => {
  const symbols = Object.entries(columns).map(([column, type]) => {
    const scalar = Symbols.ScalarTypes.GetSymbol(type);
    if (!scalar) throw new Error(`${name}.${column}: there is no type ${type}`);
    return new Symbols.ColumnSymbol(column, scalar);
  });
  return new Symbols.TableSymbol.$ctor4(name, symbols);
};
// Not open: a table that is not listed is an error.
const database = new Symbols.DatabaseSymbol.$ctor3('logs', null, list(Symbols.Symbol, Object.entries(tables).map(table)), false);
const globals = GlobalState.Default.WithDatabase(database);

const faults = (text) => {
  const found = System.Linq.Enumerable.from(KustoCode.ParseAndAnalyze(text, globals).GetDiagnostics()).ToArray();
  return found
    .filter(({ Severity }) => Severity !== DiagnosticSeverity.Suggestion)
    .map(({ Severity, Start, Message }) => {
      const before = text.slice(0, Start).split('\n');
      return `${Severity.toLowerCase()} ${before.length}:${before.at(-1).length + 1} ${Message}`;
    });
};
console.log(JSON.stringify(Object.fromEntries(Object.entries(queries).map(([name, text]) => [name, faults(text)]))));
