"""What happens, and how many alerts there must be then. Minutes are counted back from the moment at which the rule is evaluated."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    what: str
    alerts: int
    # Name of a line in lines.jsonl, when it was written, on which instance, and what is replaced in it.
    lines: list


def at(line, *minutes, on="instance-1", **replaced):
    return [(line, minute, on, replaced) for minute in minutes]


STARTED = at("the host lists its functions", 2000) + at("the connector has started", 2000)
BAD, ONE_BAD, GOOD = "a run while the hub is away", "a run with a site at fault", "a run"
VAULT = "the vault does not let the app read"

CASES = {
    "no-runs": [
        Case("nothing was deployed yet", 0, []),
        Case("the app polls", 0, STARTED + at(GOOD, *range(1, 120))),
        Case("the app polls, and its lines arrive 5 minutes late", 0, STARTED + at(GOOD, *range(6, 120))),
        Case("the app logs as JSON", 0, STARTED + at("a run, as JSON", *range(1, 120))),
        Case("the app was deployed 4 minutes ago", 0, at("the host lists its functions", 4)),
        Case("the hub is away: sites are polled all the same", 0, STARTED + at(BAD, *range(1, 120))),
        Case("the timer has stopped", 1, STARTED + at(GOOD, *range(15, 120))),
        Case("the timer stopped yesterday", 1, at(GOOD, *range(1440, 1500))),
        Case("runs poll no site", 1, STARTED + at(GOOD, *range(1, 120), **{"sites.polled=4": "sites.polled=0"})),
        Case("the handler has never polled", 1, at("the host lists its functions", 15)),
        Case("the app was removed three days ago", 0, at(GOOD, *range(4320, 4400))),
    ],
    "sites-failing": [
        Case("every run fails", 1, at(BAD, *range(1, 40))),
        Case("one run did not fail", 0, at(BAD, *range(1, 12), *range(13, 40)) + at(GOOD, 12)),
        Case("the first runs after a start fail", 0, at(BAD, 1, 2, 3)),
        Case("every run is a success with a site at fault", 0, at(ONE_BAD, *range(1, 40))),
        Case("nothing runs", 0, []),
    ],
    "sites-at-fault": [
        Case("a site has failed for two hours", 1, at(ONE_BAD, *range(1, 125))),
        Case("a site fails, and the app polls every ten minutes", 1, at(ONE_BAD, *range(1, 125, 10))),
        Case("all sites fail", 1, at(BAD, *range(1, 125))),
        Case("no site failed in one run", 0, at(ONE_BAD, *range(1, 60), *range(61, 125)) + at(GOOD, 60)),
        Case("the app has made nine runs", 0, at(ONE_BAD, *range(1, 10))),
        Case("the app has made ten runs", 1, at(ONE_BAD, *range(1, 11))),
        Case("all is well", 0, at(GOOD, *range(1, 125))),
    ],
    "lag": [
        Case("a site is 26 hours behind", 1, at("a site that lags", 5, 65)),
        Case("a site is a second less behind", 0, at("a site that lags", 5, 65, **{"93600": "93599"})),
        Case("two sites are 26 hours behind", 2, at("a site that lags", 5) + at("a site that lags", 5, **{"Well 7": "Süd"})),
        Case("a site was behind, and is less so now", 0, at("a site that lags", 65) + at("a site that lags", 5, **{"93600": "3700"})),
        Case("every site is up to date", 0, at(GOOD, *range(1, 120))),
    ],
    "rejected": [
        Case("a run rejects a message", 1, at(GOOD, *range(1, 40)) + at("a run that rejects a message", 7)),
        Case("uplinks are rejected", 1, at("uplinks are rejected", 7)),
        Case("the line arrived after the last evaluation, which was 15 minutes ago", 1, at("uplinks are rejected", 18)),
        Case("nothing is rejected", 0, at(GOOD, *range(1, 40)) + at("uplinks are forwarded", *range(1, 40))),
    ],
    "throttling": [
        Case("21 requests are throttled, before and after the half hour", 1, at("a run that is throttled by the backend", *range(5, 25, 2))
             + at("a run that is throttled by the backend", 4, **{"backend.throttled=2": "backend.throttled=1"})),
        Case("20 requests are throttled", 0, at("a run that is throttled by the backend", *range(5, 25, 2))),
        Case("two services are throttled 20 times each", 0, at("a run that is throttled by the backend", *range(5, 25, 2),
             **{"ledger.throttled=0": "ledger.throttled=2"})),
        Case("two services are throttled 22 times each", 2, at("a run that is throttled by the backend", *range(3, 25, 2),
             **{"ledger.throttled=0": "ledger.throttled=2"})),
        Case("nothing is throttled", 0, at(GOOD, *range(1, 40)) + at("uplinks are forwarded", *range(1, 40))),
    ],
    "restarts": [
        Case("three crashes of one instance", 1, at("the handler was killed", 5, 6, 7)),
        Case("a crash on each of three instances, before and after the half hour", 1, at("the handler was killed", 5, on="instance-1")
             + at("the handler was killed", 14, on="instance-2") + at("the handler was killed", 25, on="instance-3")),
        Case("the handler cannot be started", 1, at("the handler cannot be started", 1, 2, 3)),
        Case("two crashes", 0, at("the handler was killed", 5, 6) + at("the connector has started", 5, 6)),
        Case("the plan scales from zero for each run", 0, [line for minute in range(1, 30)
             for line in at("the connector has started", minute, on=f"instance-{minute}")]),
    ],
    "settings": [
        Case("a setting is missing", 1, at("a setting is missing", 1)),
        Case("the vault has refused the app for 10 minutes", 1, at(VAULT, *range(1, 12))),
        Case("the vault refused the app for its first 4 minutes", 0, at(VAULT, *range(5, 10)) + at(GOOD, *range(1, 5))),
        Case("the settings are complete", 0, at("the connector has started", 3) + at(GOOD, 1, 2)),
    ],
    "poison": [
        Case("a message is poison", 1, at("a message is poison", 3)),
        Case("messages of two queues are poison", 2, at("a message is poison", 3) + at("a message is poison", 4, **{"uplinks-poison": "other-poison"})),
        Case("the line arrived after the last evaluation, which was 15 minutes ago", 1, at("a message is poison", 18)),
        Case("no message is poison", 0, at("uplinks are forwarded", *range(1, 40))),
    ],
    "uplinks-stuck": [
        Case("uplinks fail, and none is forwarded", 1, at("uplinks fail", *range(1, 30))),
        Case("uplinks have failed for 3 minutes", 0, at("uplinks fail", 1, 2, 3)),
        Case("some uplinks are forwarded", 0, at("uplinks fail", *range(1, 30)) + at("uplinks are forwarded, some fail", 10)),
        Case("uplinks are forwarded", 0, at("uplinks are forwarded", *range(1, 30))),
        Case("there are no uplinks", 0, []),
    ],
}
