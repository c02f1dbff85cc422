// Alert rules over the app's log lines. The queries are those of docs/operations.md, which says what each line means.
//
// Each query makes its own sums over all that its rule lets it see, and none returns a column `timestamp`: by such a column Azure
// Monitor cuts the rows into windows of its own. Lines arrive up to 5 minutes late, so each rule sees more than what is new since it was
// last evaluated.

@description('Where the rules are.')
param location string

@description('Resource id of the Application Insights component that the function app logs to.')
param applicationInsightsId string

@description('Begins the names of the rules, which must be unique in their resource group.')
param prefix string = 'iothub-connector'

@description('Who gets an e-mail. Empty: nobody, the alerts are only in the portal.')
param email string = ''

@description('Whether the app polls rapidM2M sites.')
param rapidM2M bool = true

@description('Whether the app takes uplinks of The Things Network.')
param thingsNetwork bool = true

@description('Minutes without a run that has polled a site. More than 5 above the interval of the timer: lines arrive late.')
@minValue(10)
param silentMinutes int = 15

@description('Hours without a new row after which a site counts as lagging. Loggers that upload once a day need more than 24.')
@minValue(1)
param lagHours int = 26

@description('Throttled requests to one service within 30 minutes that are still in order.')
@minValue(0)
param throttledRequests int = 20

var rules = [
  {
    name: 'no-runs'
    description: 'No run has polled a site for ${silentMinutes} minutes'
    enabled: rapidM2M
    severity: 1
    every: 'PT5M'
    // As long as Azure allows. Without a line of these two days, nothing was deployed.
    window: 'P2D'
    aggregation: 'Maximum'
    column: 'silent_minutes'
    operator: 'GreaterThanOrEqual'
    threshold: silentMinutes
    dimensions: []
    query: '''
traces
| where message has "rapidM2MForwarding" or message has "rapidM2MSites"
| extend polled = tolong(extract(@'sites\.polled"?[=:](\d+)', 1, message))
| summarize began = min(timestamp), last_run = max(iff(polled > 0, timestamp, datetime(null)))
| extend silent_minutes = datetime_diff('minute', now(), coalesce(last_run, began))
'''
  }
  {
    name: 'sites-failing'
    description: 'Every run of the last 30 minutes failed, for 20 minutes or more'
    enabled: rapidM2M
    severity: 2
    every: 'PT10M'
    window: 'PT30M'
    aggregation: 'Maximum'
    column: 'failed'
    operator: 'GreaterThan'
    threshold: 0
    dimensions: []
    query: '''
traces
| where message has "sites.polled"
| extend failed = iff(severityLevel >= 3, tolong(extract(@'sites\.failed"?[=:](\d+)', 1, message)), 0)
| summarize failed = min(failed), runs = count(), began = min(timestamp)
| where began < ago(20m)
'''
  }
  {
    name: 'sites-at-fault'
    description: 'For two hours, every run had a site at fault'
    enabled: rapidM2M
    severity: 3
    every: 'PT1H'
    window: 'PT2H'
    aggregation: 'Maximum'
    column: 'failed'
    operator: 'GreaterThan'
    threshold: 0
    dimensions: []
    query: '''
traces
| where message has "sites.polled"
| extend failed = tolong(extract(@'sites\.failed"?[=:](\d+)', 1, message))
| summarize failed = min(failed), runs = count()
| where runs >= 10
'''
  }
  {
    name: 'lag'
    description: 'A site has had no new row for ${lagHours} hours or more'
    enabled: rapidM2M
    severity: 2
    every: 'PT1H'
    window: 'PT2H'
    aggregation: 'Maximum'
    column: 'lag_s'
    operator: 'GreaterThanOrEqual'
    threshold: lagHours * 3600
    dimensions: ['site']
    query: '''
traces
| where message has "site.lag_s"
| extend site = extract(@'site\.name"?[=:]"((?:[^"\\]|\\.)*)"', 1, message)
| extend newest = todatetime(extract(@'site\.newest"?[=:]"([^"]*)"', 1, message))
| extend lag_s = tolong(extract(@'site\.lag_s"?[=:](\d+)', 1, message))
| extend waiting = tolong(extract(@'site\.waiting"?[=:](\d+)', 1, message))
| summarize arg_max(timestamp, newest, lag_s, waiting) by site
| project site, newest, lag_s, waiting, latest = timestamp
| order by lag_s desc
'''
  }
  {
    name: 'rejected'
    description: 'Messages were rejected: see iothub-connector replay'
    enabled: true
    severity: 2
    every: 'PT15M'
    window: 'PT30M'
    aggregation: 'Total'
    column: 'rejected'
    operator: 'GreaterThan'
    threshold: 0
    dimensions: []
    query: '''
traces
| where message has "messages.rejected"
| extend rejected = tolong(extract(@'messages\.rejected"?[=:](\d+)', 1, message))
| where rejected > 0
| summarize rejected = sum(rejected), latest = max(timestamp)
'''
  }
  {
    name: 'throttling'
    description: 'A service throttled more than ${throttledRequests} requests in 30 minutes'
    enabled: true
    severity: 3
    every: 'PT15M'
    window: 'PT30M'
    aggregation: 'Total'
    column: 'throttled'
    operator: 'GreaterThan'
    threshold: throttledRequests
    dimensions: ['service']
    query: '''
traces
| where message has "throttled"
| extend found = extract_all(@'(backend|ledger|hub|dps)\.throttled"?[=:](\d+)', message)
| mv-expand found
| extend service = tostring(found[0]), throttled = tolong(found[1])
| where throttled > 0
| summarize throttled = sum(throttled), latest = max(timestamp) by service
| order by throttled desc
'''
  }
  {
    name: 'restarts'
    description: 'The handler crashed or could not be started, three or more times in 30 minutes'
    enabled: true
    severity: 2
    every: 'PT15M'
    window: 'PT30M'
    aggregation: 'Total'
    column: 'crashes'
    operator: 'GreaterThanOrEqual'
    threshold: 3
    dimensions: []
    query: '''
traces
| where message has "Language Worker Process exited" or message has "Failed to start Worker Channel"
| summarize crashes = count(), instances = dcount(cloud_RoleInstance), latest = max(timestamp)
'''
  }
  {
    name: 'settings'
    description: 'A part of the app does not work: settings are missing or wrong'
    enabled: true
    severity: 1
    every: 'PT5M'
    window: 'PT30M'
    aggregation: 'Total'
    column: 'errors'
    operator: 'GreaterThan'
    threshold: 0
    dimensions: []
    query: '''
traces
| where message has "does not work until its settings are corrected"
| summarize errors = count(), lasted = max(timestamp) - min(timestamp) by is_vault = message has "KeyVaultURI"
| where not(is_vault) or lasted >= 10m
| summarize errors = sum(errors)
'''
  }
  {
    name: 'poison'
    description: 'Messages failed for a day and are in the queue of poison messages'
    enabled: thingsNetwork
    severity: 1
    every: 'PT15M'
    window: 'PT30M'
    aggregation: 'Total'
    column: 'messages'
    operator: 'GreaterThan'
    threshold: 0
    dimensions: ['queue']
    query: '''
traces
| where message has "MaxDequeueCount" and message has "poison"
| extend queue = extract(@"queue '([^']+)'", 1, message)
| summarize messages = count(), latest = max(timestamp) by queue
'''
  }
  {
    name: 'uplinks-stuck'
    description: 'Uplinks have failed for 20 minutes or more, and none was forwarded in 30 minutes'
    enabled: thingsNetwork
    severity: 1
    every: 'PT10M'
    window: 'PT30M'
    aggregation: 'Total'
    column: 'stuck'
    operator: 'GreaterThan'
    threshold: 0
    dimensions: []
    query: '''
traces
| where message has "thingsNetworkForwarding" and message has "failures.total"
| extend forwarded = tolong(extract(@'uplinks\.forwarded"?[=:](\d+)', 1, message))
| extend failures = tolong(extract(@'failures\.total"?[=:](\d+)', 1, message))
| summarize forwarded = sum(forwarded), failures = sum(failures), began = min(iff(failures > 0, timestamp, datetime(null)))
| extend stuck = iff(coalesce(forwarded, 0) == 0 and began < ago(20m), failures, 0)
'''
  }
]

resource mail 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(email)) {
  name: '${prefix}-mail'
  location: 'global'
  properties: {
    groupShortName: 'iothubconn'
    enabled: true
    emailReceivers: [
      {
        name: 'mail'
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource alerts 'Microsoft.Insights/scheduledQueryRules@2026-03-01' = [for rule in rules: {
  name: '${prefix}-${rule.name}'
  location: location
  kind: 'LogAlert'
  properties: {
    displayName: '${prefix}: ${rule.name}'
    description: rule.description
    enabled: rule.enabled
    severity: rule.severity
    scopes: [
      applicationInsightsId
    ]
    evaluationFrequency: rule.every
    windowSize: rule.window
    autoMitigate: true
    // A workspace that was just made does not know its tables yet.
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: rule.query
          metricMeasureColumn: rule.column
          timeAggregation: rule.aggregation
          operator: rule.operator
          threshold: rule.threshold
          dimensions: [for dimension in rule.dimensions: {
            name: dimension
            operator: 'Include'
            values: [
              '*'
            ]
          }]
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: empty(email) ? [] : [
        mail.id
      ]
    }
  }
}]
