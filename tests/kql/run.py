"""Looks at the KQL queries of the alerts and of the documents.

    python tests/kql/run.py

1. Microsoft's parser (parse.js) takes each query, with the columns of Application Insights (schema.json); and it does not take
   queries that are wrong on purpose.
2. Each alert rule of infra/alerts.bicep is evaluated over lines as the host writes them (lines.jsonl), for each case in cases.py.
   The queries run in duckdb-kql, which is not Microsoft's engine: KQL on DuckDB.

Prints what is wrong, and exits with 1.
"""

import json
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import duckdb_kql

from cases import CASES, Case

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Windows that are cut by bin() are cut within the cases.
NOW = datetime(2026, 11, 27, 15, 10)
TYPES = {"datetime": "TIMESTAMP", "string": "VARCHAR", "int": "INTEGER", "dynamic": "JSON"}
WINDOWS = {"PT30M": timedelta(minutes=30), "PT2H": timedelta(hours=2), "P2D": timedelta(days=2)}
AGGREGATIONS = {"Total": sum, "Maximum": max}
# A "LessThan" would be of no use: what has no row has no value, and does not fire.
OPERATORS = {"GreaterThan": lambda a, b: a > b, "GreaterThanOrEqual": lambda a, b: a >= b}
WRONG = {
    "a column that is not there": "traces | where text has 'a'",
    "a table that is not there": "trace | count",
    "a function that is not there": "traces | summarize summ(itemCount)",
    "a number for a time": "traces | where timestamp > 5",
    "a number for a text": "traces | extend found = extract(@'(\\d)', 1, severityLevel)",
    "an operator without its end": "traces | where",
}


def rules():
    """The alert rules, each with the default values of the file's parameters."""
    text = (ROOT / "infra/alerts.bicep").read_text(encoding="utf-8")
    defaults = {name: int(value) for name, value in re.findall(r"^param (\w+) int = (\d+)$", text, re.MULTILINE)}
    members = r"name: '([a-z-]+)'\n.*?window: '(\w+)'\n.*?aggregation: '(\w+)'.*?column: '(\w+)'.*?operator: '(\w+)'.*?"
    members += r"threshold: ([\w* ]+)\n.*?dimensions: \[(.*?)\]\s+query: '''\n(.*?)'''"
    found = re.findall(members, text, re.DOTALL)
    if len(found) != text.count("query: '''"):
        sys.exit("infra/alerts.bicep: the rules are not written as before. Mend rules() in tests/kql/run.py")
    if {rule[0] for rule in found} != set(CASES):
        sys.exit("tests/kql/cases.py has not the alerts of infra/alerts.bicep")
    for name, window, aggregation, column, operator, threshold, dimensions, query in found:
        yield {
            "name": name,
            "window": WINDOWS[window],
            "aggregate": AGGREGATIONS[aggregation],
            "column": column,
            "compare": OPERATORS[operator],
            "threshold": eval(threshold, {"__builtins__": {}}, defaults),
            "dimensions": re.findall(r"'(\w+)'", dimensions),
            "query": query,
        }


def documented():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    for page in pages:
        for at, query in enumerate(re.findall(r"^```(?:kusto|kql)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)):
            yield f"{page.relative_to(ROOT)}, query {at + 1}", query


def parse(queries):
    """What Microsoft's parser finds wrong with each query."""
    tables = json.loads((HERE / "schema.json").read_text(encoding="utf-8"))
    told = json.dumps({"tables": tables, "queries": queries})
    run = subprocess.run(["node", HERE / "parse.js"], input=told, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout)


def insights():
    """An empty database with the tables of Application Insights."""
    database = duckdb_kql.connect()
    for table, columns in json.loads((HERE / "schema.json").read_text(encoding="utf-8")).items():
        database.execute(f"CREATE TABLE {table} ({', '.join(f'{name} {TYPES[kind]}' for name, kind in columns.items())})")
    return database


def alerts(rule, rows):
    """How many alerts Azure Monitor would fire: one for each value of the dimensions whose rows reach the threshold."""
    database = insights()
    for row in rows:
        if NOW - rule["window"] <= row["timestamp"] <= NOW:
            names = ", ".join(row)
            database.execute(f"INSERT INTO traces ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
    found = duckdb_kql.query(database, rule["query"], query_now=NOW)
    assert "timestamp" not in found.columns, "Azure Monitor would cut the result into windows"
    values = {}
    for row in found.fetchall():
        row = dict(zip(found.columns, row))
        assert all(row[name] for name in rule["dimensions"]), f"a dimension is empty: {row}"
        if row[rule["column"]] is not None:
            values.setdefault(tuple(row[name] for name in rule["dimensions"]), []).append(row[rule["column"]])
    return sum(rule["compare"](rule["aggregate"](of), rule["threshold"]) for of in values.values())


def rows(case, lines):
    for line, minute, instance, replaced in case.lines:
        message = lines[line]["message"]
        for before, after in replaced.items():
            assert before in message, f"{line}: no {before}"
            message = message.replace(before, after)
        yield {
            "timestamp": NOW - timedelta(minutes=minute),
            "message": message,
            "severityLevel": lines[line]["severityLevel"],
            "cloud_RoleInstance": instance,
        }


def main():
    problems = []
    found = list(rules())
    queries = {f"infra/alerts.bicep, {rule['name']}": rule["query"] for rule in found} | dict(documented())
    for name, faults in parse(queries).items():
        problems += [f"{name}: {fault}" for fault in faults]
    problems += [f"the parser takes {name}: {WRONG[name]}" for name, faults in parse(WRONG).items() if not faults]

    lines = {}
    for line in (HERE / "lines.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(line)
        lines[line["name"]] = line
    used, count = set(), 0
    for rule in found:
        cases = [*CASES[rule["name"]], Case("no line at all", 0, [])]
        if not any(case.alerts for case in cases) or not any(case.lines and not case.alerts for case in cases):
            problems.append(f"{rule['name']}: needs a case in which it fires, and one with lines in which it does not")
        for case in cases:
            used |= {line for line, *_ in case.lines}
            got = alerts(rule, rows(case, lines))
            if got != case.alerts:
                problems.append(f"{rule['name']}: {case.what}: {got} alerts instead of {case.alerts}")
            count += 1
    problems += [f"lines.jsonl: no case has «{name}»" for name in lines.keys() - used]
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(queries)} queries parse, {len(found)} alert rules are right in {count} cases")


main()
