"""What a month in Azure costs, in docs/costs.md: counts what each fleet does and multiplies it by docs/costs/prices.json.

    python3 .ci/costs.py            writes the tables between the page's markers
    python3 .ci/costs.py --check    exits with 1 if the page is not what this script writes

Only the standard library. What is assumed is in the constants below; the page shows them. The alert rules are read
from infra/alerts.bicep.
"""

import difflib
import json
import math
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/costs.md"
PRICES = ROOT / "docs/costs/prices.json"
ALERTS = ROOT / "infra/alerts.bicep"

DAYS = 30
SECONDS = DAYS * 24 * 3600
TICKS = DAYS * 24 * 60  # the timer: once a minute

# Cosmos DB.
WRITE_RU = 4.95  # create, replace or delete of up to 1 KB
EXTRA_KB_RU = 1.0  # each further KB: the bulk of a record is not indexed
READ_RU = 1.0
LISTED_RU = 0.1  # a cursor in the query for all cursors
QUERY_RU = 2.8  # a query for one document
RECORD_KB = 0.85  # a poll's record without its rows
CURSOR_KB = 0.75  # a cursor without a record
KEPT_ROWS = 20  # a message of so many rows stays in the cursor until it is marked (2 KB)
STORED_ROW_BYTES = 90  # a row of 3 channels in the record
INDEX_SHARE = 0.3  # index, in parts of the data
HISTORY_DAYS = 30  # PollHistoryDays
PROVISIONED = 4000  # RU/s that 2,000 sites with a row a minute need while a tick runs
ACTIVITY_KB = 2  # a LoRaWAN device's activity: read, then replaced

# IoT Hub.
CHUNK = 4096
HUB_ROW_BYTES = 80
S1_A_DAY = 400_000
S2_A_DAY = 6_000_000

# Functions.
MEMORY_GB = 0.5  # instances of 512 MB
SHORTEST_CALL = 1.0  # seconds: less is billed as this
EMPTY_POLL_SECONDS = 0.06  # backend 50 ms, record 10 ms
FULL_POLL_SECONDS = 0.10  # and the hub 30 ms, mark 10 ms
AT_ONCE = 256  # PollConcurrency
A_SECOND = 80  # BackendRequestsPerSecond
SWEEP_MINUTES = 15 * 1.25  # SweepMinutes, at the latest half as long again
RECORDS_A_DAY = 24  # of polls that found nothing, RecordEmptyPolls=false

# The Things Network.
UPLINKS_A_DAY = 48
QUEUE_OPERATIONS = 6  # for each uplink: put, get, delete, and what the host asks about the queue
UPLINK_KB = 1  # less than 4 KB: one message of the hub's

# Storage, while an instance is there: seen under the real host.
QUEUE_POLLS_A_MINUTE = 30
LEASES_A_MINUTE = 12
STATUS_WRITES_A_TICK = 1

# Logs, from docs/operations.md.
LOGS_IDLE_GB = 0.2
LOGS_AT_TWO_UPLINKS_GB = 0.8

DPS_OPERATIONS = 3  # for each registration: asked once, looked at twice

# Million request units of writing that were counted for 2,000 sites, each polled and recorded in each tick.
COUNTED = {"a row a minute": 1711, "15 rows each 15 minutes": 932, "a day's rows once a day": 867}


@dataclass(frozen=True)
class Fleet:
    name: str
    devices: int = 0
    sites: int = 0
    upload: str = ""  # how a site uploads
    uploads_a_day: int = 0
    rows: int = 0  # of one upload
    record_empty: bool = False
    ask_all: bool = False  # SweepMinutes=0
    mark_at_once: bool = False  # MarkWithinSeconds=0
    history_days: int = HISTORY_DAYS
    direct: bool = False
    activity: bool = True
    memory_gb: float = MEMORY_GB
    ru_a_second: int = 0  # provisioned; 0: serverless
    # Groups of functions with an always-ready instance: "http", "timer".
    ready: tuple = ()


@dataclass(frozen=True)
class Month:
    """What a month's operations are, and what they cost."""

    polls: float
    full_polls: float
    uplinks: float
    write_ru: float
    delete_ru: float
    read_ru: float
    stored_gb: float
    hub_messages_a_day: float
    hub: str
    gb_s: float
    executions: float
    functions: float
    cosmos: float
    iot_hub: float
    storage: float
    logs: float
    alerts: float

    @property
    def total(self):
        return self.functions + self.cosmos + self.iot_hub + self.storage + self.logs + self.alerts

    @property
    def ru(self):
        return self.write_ru + self.delete_ru + self.read_ru


def uploads(kind):
    return {
        "a row a minute": {"uploads_a_day": 1440, "rows": 1},
        "15 rows each 15 minutes": {"uploads_a_day": 96, "rows": 15},
        "a day's rows once a day": {"uploads_a_day": 1, "rows": 1440},
    }[kind] | {"upload": kind}


def write(kb):
    return WRITE_RU + EXTRA_KB_RU * (max(1, math.ceil(kb)) - 1)


def record_kb(rows):
    return RECORD_KB + rows * STORED_ROW_BYTES / 1024


def alert_rules(fleet):
    """Minutes between two looks, for each alert rule that is on for this fleet."""
    text = ALERTS.read_text(encoding="utf-8").split("\nresource ")[0]
    found = re.findall(r"enabled: (\w+)\s.*?every: 'PT(\d+)([MH])'", text, re.DOTALL)
    if not found or len(found) != text.count("every: '"):
        sys.exit("infra/alerts.bicep: the rules are not written as before (enabled: …, every: 'PT…'). Mend alert_rules in .ci/costs.py")
    nothing = not fleet.sites and not fleet.devices
    on = {"true": True, "false": False, "rapidM2M": nothing or fleet.sites > 0, "thingsNetwork": nothing or fleet.devices > 0}
    for enabled, _, _ in found:
        if enabled not in on:
            sys.exit(f"infra/alerts.bicep: when does `{enabled}` hold? Say it in alert_rules in .ci/costs.py")
    return [int(number) * (60 if unit == "H" else 1) for enabled, number, unit in found if on[enabled]]


def month(fleet, price):
    full = fleet.sites * fleet.uploads_a_day * DAYS
    # Sites with a new contact are asked, and the others in a sweep.
    between = 24 * 60 / max(1, fleet.uploads_a_day)
    polls = fleet.sites * TICKS if fleet.ask_all else full * math.ceil(between / SWEEP_MINUTES)
    empty = polls - full
    uplinks = fleet.devices * UPLINKS_A_DAY * DAYS

    # Cosmos DB. A poll with rows is two transactions (record, mark) of two documents each (poll, cursor); an empty one is one.
    # A small record is first kept in the cursor. Then recording writes one document, and marking two, or one with the next poll.
    record = record_kb(fleet.rows)
    if fleet.mark_at_once or fleet.rows > KEPT_ROWS:
        writes = full * 2 * (write(record) + write(CURSOR_KB))
    else:
        is_next_poll_near = between <= 1 and "timer" in fleet.ready
        writes = full * (write(CURSOR_KB + record) + write(record) + (0 if is_next_poll_near else write(CURSOR_KB)))
    recorded_empty = empty if fleet.record_empty else min(empty, fleet.sites * max(0, RECORDS_A_DAY - fleet.uploads_a_day) * DAYS)
    writes += recorded_empty * 2 * write(1)
    kept = full + recorded_empty
    deletes = (full * write(record) + (kept - full) * write(1)) if fleet.history_days else 0
    # An instance that is gone between two ticks reads each cursor again, and the device's document before it sends.
    reads = 0 if "timer" in fleet.ready else (polls + full) * READ_RU + TICKS * fleet.sites * LISTED_RU
    if fleet.activity:
        writes += uplinks * write(ACTIVITY_KB)
        reads += uplinks * READ_RU * ACTIVITY_KB
    days = fleet.history_days or DAYS
    kb = (full * record + (kept - full) * RECORD_KB) * days / DAYS
    stored = kb / 1024 / 1024 * (1 + INDEX_SHARE)
    ru = writes + deletes + reads
    throughput = fleet.ru_a_second / 100 * price("cosmos_100_ru_s") if fleet.ru_a_second else ru / 1e6 * price("cosmos_million_ru")
    cosmos = throughput + stored * price("cosmos_gb")

    # IoT Hub: the cheapest number of units of one kind.
    chunks = math.ceil(max(1, fleet.rows) * HUB_ROW_BYTES / CHUNK)
    a_day = (full * chunks + uplinks * math.ceil(UPLINK_KB * 1024 / CHUNK)) / DAYS
    choices = [
        (units * price(f"hub_{kind.lower()}"), f"{units} {kind}")
        for kind, limit in (("S1", S1_A_DAY), ("S2", S2_A_DAY))
        for units in [max(1, math.ceil(a_day / limit))]
    ]
    iot_hub, hub = min(choices)

    # Functions. Calls of one instance at the same time are billed once, so no instance has more seconds than the month.
    tick = max((empty * EMPTY_POLL_SECONDS + full * FULL_POLL_SECONDS) / TICKS / AT_ONCE, polls / TICKS / A_SECOND)
    timer = TICKS * max(SHORTEST_CALL, tick)
    webhooks = min(SECONDS, uplinks * SHORTEST_CALL)
    forwarding = 0 if fleet.direct else webhooks
    forwarded = 0 if fleet.direct else uplinks
    calls = {"timer": (timer, TICKS), "http": (webhooks, uplinks), "queue": (forwarding, forwarded)}
    functions = len(fleet.ready) * SECONDS * fleet.memory_gb * price("functions_ready_baseline_gb_s")
    for group, (seconds, count) in calls.items():
        kind = "ready" if group in fleet.ready else "on_demand"
        functions += seconds * fleet.memory_gb * price(f"functions_{kind}_gb_s")
        functions += count / 1e6 * price(f"functions_{kind}_million")

    # Storage.
    minutes = SECONDS / 60
    queue = minutes * QUEUE_POLLS_A_MINUTE * (fleet.devices > 0 or fleet.sites == 0)
    queue += 0 if fleet.direct else uplinks * QUEUE_OPERATIONS
    storage = (
        queue / 1e4 * price("queue_10k")
        + minutes * LEASES_A_MINUTE / 1e4 * price("blob_other_10k")
        + TICKS * STATUS_WRITES_A_TICK / 1e4 * price("blob_write_10k")
    )

    a_second = uplinks / SECONDS
    logs = (LOGS_IDLE_GB + (LOGS_AT_TWO_UPLINKS_GB - LOGS_IDLE_GB) * a_second / 2) * price("logs_gb")
    alerts = sum(price(f"alert_{5 if m <= 5 else 10 if m <= 10 else 15}_minutes") for m in alert_rules(fleet))

    return Month(
        polls=polls, full_polls=full, uplinks=uplinks, write_ru=writes, delete_ru=deletes, read_ru=reads, stored_gb=stored,
        hub_messages_a_day=a_day, hub=hub, gb_s=sum(seconds for seconds, _ in calls.values()) * fleet.memory_gb,
        executions=sum(count for _, count in calls.values()),
        functions=functions, cosmos=cosmos, iot_hub=iot_hub, storage=storage, logs=logs, alerts=alerts,
    )


def fleets():
    yield Fleet("idle: deployed, nothing connected")
    for number in (50, 2000):
        yield Fleet(f"{number:,} LoRaWAN devices", devices=number)
    for number in (50, 2000):
        for kind in COUNTED:
            yield Fleet(f"{number:,} sites, {kind}", sites=number, **uploads(kind))


def dollars(amount):
    return f"{amount:,.2f}" if amount < 10 else f"{amount:,.0f}"


def millions(number):
    return "–" if not number else f"{number / 1e6:,.2f}" if number < 1e7 else f"{number / 1e6:,.0f}"


def rows(head, body, texts=1):
    """A table whose first columns are texts, the others numbers."""
    columns = "|".join("---" if i < texts else "---:" for i in range(len(head)))
    return "\n".join(["| " + " | ".join(head) + " |", f"|{columns}|"] + ["| " + " | ".join(line) + " |" for line in body])


def table(price):
    """The columns of single services are on demand."""
    head = ["", "Functions", "Cosmos DB", "IoT Hub", "Storage", "Logs", "Alerts", "Total, on demand", "`http` ready", "timer ready", "both ready"]
    body = []
    for fleet in fleets():
        m = month(fleet, price)
        parts = [m.functions, m.cosmos, m.iot_hub, m.storage, m.logs, m.alerts]
        # The Bicep deploys an always-ready instance for HTTP if The Things Network is on.
        deployed = () if fleet.sites else ("http",)
        totals = []
        for ready in ((), ("http",), ("timer",), ("http", "timer")):
            is_off = ("http" in ready and fleet.sites) or ("timer" in ready and fleet.devices)
            total = "–" if is_off else dollars(month(replace(fleet, ready=ready), price).total)
            totals.append(f"**{total}**" if ready == deployed else total)
        body.append([fleet.name, *map(dollars, parts), *totals])
    where = f"US dollars a month: list prices of {price.data['region']}, pay as you go; instances of {MEMORY_GB * 1024:.0f} MB."
    where += (
        "\nThe services are on demand. The totals are on demand, and with an always-ready instance for HTTP, for the timer, or one for each."
        "\nBold is what the Bicep deploys: one for HTTP if The Things Network is on."
    )
    return f"{where}\n\n{rows(head, body)}"


def counted(price):
    known = ", ".join(f"{million:,} million ({kind})" for kind, million in COUNTED.items())
    text = "The request units for writing agree within 1 % with what was counted for 2,000 sites with `RecordEmptyPolls=true`,\n"
    text += f"`SweepMinutes=0` and `MarkWithinSeconds=0`: {known}."
    head = ["A month, on demand", "RU written, M", "RU deleted, M", "RU read, M", "Stored, GB"]
    head += ["Hub messages a day", "Hub", "GB-s", "Calls, M"]
    body = []
    for fleet in fleets():
        m = month(fleet, price)
        body.append([
            fleet.name, millions(m.write_ru), millions(m.delete_ru), millions(m.read_ru),
            f"{m.stored_gb:,.1f}" if m.stored_gb else "–",
            f"{m.hub_messages_a_day:,.0f}", m.hub, f"{m.gb_s:,.0f}", millions(m.executions),
        ])
    return f"{text}\n\n{rows(head, body)}"


def savings(price):
    def sites(kind, **how):
        return Fleet("", sites=2000, **uploads(kind), **how)

    minute, quarter, daily = COUNTED
    devices = Fleet("", devices=2000)
    cases = [
        ("`RecordEmptyPolls=true` and `SweepMinutes=0`: the other way", daily, sites(daily), {"record_empty": True, "ask_all": True}),
        ("`MarkWithinSeconds=0`: the other way", minute, sites(minute, ready=("timer",)), {"mark_at_once": True}),
        ("the timer's instance always ready", minute, sites(minute), {"ready": ("timer",)}),
        ("`PollHistoryDays=7`", minute, sites(minute), {"history_days": 7}),
        (f"Cosmos DB with {PROVISIONED:,} RU/s instead of serverless", minute, sites(minute), {"ru_a_second": PROVISIONED}),
        ("direct lane", "", devices, {"direct": True}),
        ("direct lane, instance for `http` always ready", "", devices, {"direct": True, "ready": ("http",)}),
        ("the same, and `DeviceActivitySeconds=0`", "", devices, {"direct": True, "ready": ("http",), "activity": False}),
        ("instances of 2,048 MB: the other way", "", devices, {"memory_gb": 2}),
    ]
    body = []
    for what, kind, fleet, how in cases:
        before, after = month(fleet, price).total, month(replace(fleet, **how), price).total
        body.append([what, f"2,000 sites, {kind}" if kind else "2,000 LoRaWAN devices", dollars(before), dollars(after)])
    return rows(["What", "Fleet, on demand", "Before, $", "After, $"], body, texts=2)


def ways(price):
    """Request units and requests of the same fleets in other ways."""
    def million(number):
        return f"{number / 1e6:,.1f}" if number < 1e7 else f"{number / 1e6:,.0f}"

    body = []
    for kind in COUNTED:
        fleet = Fleet("", sites=2000, ready=("timer",), **uploads(kind))
        ticks, full = fleet.sites * TICKS, fleet.sites * fleet.uploads_a_day * DAYS
        now = month(fleet, price)
        before = month(replace(fleet, record_empty=True, ask_all=True, mark_at_once=True), price)
        # The sample looks for its last document and writes one, with its rows, at each poll.
        sample = ticks * (QUERY_RU + WRITE_RU) + full * (write(record_kb(fleet.rows)) - WRITE_RU)
        # A document for each site with the stamp of its newest row: read at each poll, replaced after it has sent.
        plain = ticks * READ_RU + full * WRITE_RU
        body.append([f"2,000 sites, {kind}", *(million(ru) for ru in (now.ru - now.delete_ru, before.ru - before.delete_ru, sample, plain)),
                     million(now.polls), million(ticks)])
    head = ["A month", "RU, M: this app", "each poll asked, recorded and marked at once", "the C# sample's way", "a plain function's way"]
    return rows([*head, "Requests, M: this app", "the others"], body)


def assumptions(price):
    at_once, kept = 2 * (write(1) + write(1)), write(1) + write(CURSOR_KB + record_kb(1))
    body = [
        ["A month", f"{DAYS} days; the timer runs each minute, {TICKS:,} times"],
        ["A LoRaWAN device", f"{UPLINKS_A_DAY} uplinks a day of less than 4 KB, evenly spread; no downlink API key"],
        ["A site", "is its own device. A row has 3 channels: "
            f"{HUB_ROW_BYTES} bytes in the hub's message, {STORED_ROW_BYTES} in the record"],
        ["Request units", f"{WRITE_RU} for a write or delete of 1 KB, {EXTRA_KB_RU:g} for each further KB, {READ_RU:g} for a point read of 1 KB"],
        ["A poll with rows", f"two transactions (record, mark) of two documents (poll, cursor): {at_once:.1f} RU for one row. Up to "
            f"{KEPT_ROWS} rows stay in the cursor until they are marked: {kept:.1f} RU if that is with the next poll a minute later, as on an instance "
            f"that stays, else {kept + write(CURSOR_KB):.1f}"],
        ["Polls", f"when a site had contact, and otherwise after {SWEEP_MINUTES:g} minutes"],
        ["Empty polls", f"one record an hour, of two documents: {2 * write(1):.1f} RU"],
        ["A record's end", f"after {HISTORY_DAYS} days. A serverless account bills its removal like a delete: {write(1)} RU for 1 KB"],
        ["Reading again", "on demand, the instance is gone between two ticks (the worst case): each tick reads all cursors, "
            f"{LISTED_RU} RU each, each poll its cursor, and one with rows the device's document"],
        ["Stored", f"a record is {RECORD_KB} KB and its rows; {INDEX_SHARE:.0%} more for the index. All {HISTORY_DAYS} days are full"],
        ["A device's activity", f"one read and one write of {ACTIVITY_KB} KB for each uplink"],
        ["Hub messages", f"in steps of 4 KB; S1 {S1_A_DAY:,} and S2 {S2_A_DAY:,} a day and unit, whichever costs less. "
            "Each message of an HTTPS batch counts"],
        ["Memory", f"instances of {MEMORY_GB * 1024:.0f} MB: `instanceMemoryMB` = 512"],
        ["A call", f"at least {SHORTEST_CALL:g} s is billed; calls of one instance at the same time are billed once"],
        ["A tick", f"each poll takes {EMPTY_POLL_SECONDS * 1000:.0f} ms, with rows {FULL_POLL_SECONDS * 1000:.0f} ms; {AT_ONCE} at once, {A_SECOND} a second"],
        ["An uplink", f"two calls (`thingsNetworkUplink`, `thingsNetworkForwarding`) and {QUEUE_OPERATIONS} operations of the queue. "
            "In the direct lane, one call and none, as long as the hub answers in time"],
        ["Sites through a queue (`PollQueueName`)", "not in the tables: a call of `rapidM2MSites` for each batch instead of the timer's own seconds, a read "
            "of the cursor for each poll (1 RU), and a query for the changed cursors in each tick"],
        ["Storage at rest", f"{QUEUE_POLLS_A_MINUTE} polls of the queue and {LEASES_A_MINUTE} lease renewals a minute, a status write for each tick"],
        ["Logs", f"{LOGS_IDLE_GB} GB at rest, {LOGS_AT_TWO_UPLINKS_GB} GB at two uplinks a second: [operations](operations.md)"],
        ["Alerts", "the rules of `infra/alerts.bicep` for the half that is on, a price for each rule. Not in it: what Azure adds for each further "
            "site, service or queue that a rule with dimensions finds"],
        ["Always ready", "one instance: for HTTP the group `http`, for the timer `function:rapidM2MForwarding`. It is billed all the time, and "
            "less for each call. The other functions stay on demand"],
    ]
    return rows(["What", "Assumed"], body, texts=2)


def prices(price):
    body = []
    for entry in price.data["prices"].values():
        usd = f"{entry['usd']:f}".rstrip("0").rstrip(".")
        sure = "yes" if entry["sure"] else "**no**"
        note = f" ({entry['note']})" if "note" in entry else ""
        body.append([entry["what"], f"{usd} per {entry['per']}{note}", sure, f"[list]({entry['source']})"])
    where = f"Region {price.data['region']}. As of {price.data['as_of']}."
    return f"{where}\n\n{rows(['Price', 'US dollars', 'Sure', 'Today'], body, texts=4)}"


def grants(price):
    free = price.data["free"]
    functions = free["functions_gb_s"] * price("functions_on_demand_gb_s")
    functions += free["functions_executions"] / 1e6 * price("functions_on_demand_million")
    logs = free["logs_gb"] * price("logs_gb")
    once = 2000 * DPS_OPERATIONS / 1000 * price("dps_thousand")
    return (
        f"Not in the table: free grants. They take off up to {functions:.2f} $ of Functions on demand for a subscription, and the\n"
        f"first {free['logs_gb']} GB of logs of a billing account (up to {logs:.2f} $), if nothing else uses them. Once, registering\n"
        f"2,000 devices costs {once:.2f} $. The Key Vault costs cents. Backups of 7 days and traffic within the region are free. Your\n"
        "own consumers are not in it."
    )


class Price:
    def __init__(self, data):
        self.data = data

    def __call__(self, name):
        return self.data["prices"][name]["usd"]


def agrees(price):
    """Fails if the model does not give the request units that were counted for 2,000 sites."""
    for kind, million in COUNTED.items():
        got = month(Fleet("", sites=2000, record_empty=True, ask_all=True, mark_at_once=True, **uploads(kind)), price).write_ru / 1e6
        if abs(got - million) > million / 100:
            sys.exit(f"2,000 sites, {kind}: {got:,.0f} M RU, but {million:,} were counted")


def page(text, price):
    for made in (table, grants, savings, ways, assumptions, counted, prices):
        name = made.__name__
        begin, end = f"<!-- costs.py: {name} -->\n", f"\n<!-- costs.py: end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            sys.exit(f"{PAGE.relative_to(ROOT)} has not exactly one pair of markers for {name}")
        before, rest = text.split(begin)
        text = before + begin + made(price) + end + rest.split(end, 1)[1]
    return text


def main():
    arguments = sys.argv[1:]
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    price = Price(json.loads(PRICES.read_text(encoding="utf-8")))
    agrees(price)
    old = PAGE.read_text(encoding="utf-8")
    new = page(old, price)
    if not arguments:
        PAGE.write_text(new, encoding="utf-8")
    elif new != old:
        names = ("docs/costs.md", "as .ci/costs.py writes it")
        sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True), *names))
        sys.exit("docs/costs.md is out of date. Run: python3 .ci/costs.py")


if __name__ == "__main__":
    main()
