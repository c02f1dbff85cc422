// All that the IoT Hub Connector needs in Azure, in a resource group of its own: `azd up`, or docs/how-to/deploy-by-hand.md.
//
// What it makes, by module:
//   monitoring  Log Analytics and Application Insights
//   storage     the account of the Functions host: deployed package, timers' leases, the queues of uplinks
//   cosmos      the ledger: serverless account, database, containers
//   hub         IoT Hub, and the Device Provisioning Service that registers devices in it
//   vault       Key Vault with the secrets
//   app         the function app (Flex Consumption) and its identity
//   access      what that identity may do
//   settings    the app's settings
//   alerts      alert rules
//
// Nothing in it has a password: the app signs in everywhere as its own (system-assigned) identity. Exceptions are the
// secrets in the vault, which the services behind them know by nothing else.

targetScope = 'subscription'

@description('Name of the environment. With the location it names the resource group and everything in it.')
@minLength(1)
@maxLength(40)
param environmentName string

@description('Region, one with Flex Consumption: az functionapp list-flexconsumption-locations')
@minLength(1)
@metadata({ azd: { type: 'location' } })
param location string

@description('Name of the resource group; empty: rg- and the name of the environment.')
param resourceGroupName string = ''

@description('rapidM2M: the backend\'s API, such as https://cloud.microtronics.com/api/1/. Empty: rapidM2M is off.')
param m2mBackendUrl string = ''

@description('rapidM2M: Base64 of user:password for the backend. Needed if m2mBackendUrl is set.')
@secure()
param m2mCredentials string = ''

@description('rapidM2M: name or id of the customer. Needed if m2mBackendUrl is set.')
param customerId string = ''

@description('rapidM2M: sites, comma-separated; or *: all of the customer.')
param siteId string = '*'

@description('rapidM2M: channels, comma-separated; or *: all of the site\'s blueprint.')
param channelNames string = '*'

@description('rapidM2M: what a site\'s first poll fetches: youngest, all, or a time such as 2026-01-31T00:00:00Z.')
param startFrom string = 'youngest'

@description('rapidM2M: storage queue through which the sites are polled by several instances. Empty: the timer polls them itself.')
@maxLength(54)
param pollQueueName string = ''

@description('The Things Network: whether webhooks are taken and forwarded.')
param thingsNetwork bool = true

@description('The Things Network: name of the storage queue between its two functions.')
@minLength(3)
@maxLength(54)
param uplinkQueueName string = 'uplinks'

@description('The Things Network: what a device is called, made of {device_id}, {application_id}, {dev_eui} and {tenant_id}.')
param deviceIdTemplate string = '{device_id}'

@description('The Things Network: what webhooks must have in the header X-Webhook-Secret, at least 16 characters. Empty: none.')
@secure()
param webhookSecret string = ''

@description('Key of the enrollment group in the Device Provisioning Service: Base64 of 16 to 64 random bytes. The group itself is made with the same key after the deployment.')
@minLength(24)
@secure()
param enrollmentGroupKey string

@description('How messages get to the hub. Functions run on several instances in this plan: only over https may a device send from more than one at once.')
@allowed(['https', 'mqtt', 'mqtt-ws'])
param transport string = 'https'

@description('Days after which finished records are removed from Cosmos DB; 0: never.')
@minValue(0)
@maxValue(20000)
param pollHistoryDays int = 30

@description('Further settings of the app by name, docs/reference/settings.md has them all. They win over the ones made here.')
param moreSettings object = {}

@description('Units of the IoT Hub (S1: 400,000 messages of 4 KB a day each).')
@minValue(1)
@maxValue(200)
param hubUnits int = 1

@description('Most instances that a group of functions may run on: the HTTP functions are one, every other function is one by itself. Some regions take less than 40.')
@minValue(1)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('Memory of an instance in MB, shared by host and handler.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 512

@description('Instances of the HTTP functions that always run, so that no webhook waits for a start. -1: one where The Things Network is on, else none. Two lose no webhook while an instance is replaced. maximumInstanceCount does not count them. An instance of 512 MB costs about 5 $ a month: docs/costs.md.')
@minValue(-1)
@maxValue(100)
param httpAlwaysReady int = -1

@description('Instances of the timer function that always run. Without one, the instance starts anew for each tick that comes after it was removed. It costs about 5 $ a month with 512 MB.')
@minValue(0)
@maxValue(1)
param timerAlwaysReady int = 0

@description('Region of IoT Hub and the Device Provisioning Service, if `location` does not have them; empty: `location`.')
param iotLocation string = ''

@description('Whether a deleted Key Vault can be brought back for a week, whoever deletes it. With it, azd down --purge cannot remove the vault, and a new deployment of the same name has to wait.')
param purgeProtection bool = false

@description('Whether the plan, storage and Cosmos DB are spread over availability zones. Not every region has them; it cannot be changed later. The plan then always keeps two instances of each group of functions, and bills them.')
param zoneRedundancy bool = false

@description('Version of the runtime `custom` in the plan: az functionapp list-flexconsumption-runtimes --location REGION --runtime custom')
param customRuntimeVersion string = '1.0'

@description('Who gets the alerts; empty: they are only to be seen in the portal.')
param alertEmail string = ''

@description('Object id of the user or group that runs the commands `check`, `devices`, `polls` and others against this deployment; empty: nobody. azd fills in who runs it.')
param operatorPrincipalId string = ''

@description('What operatorPrincipalId is.')
@allowed(['User', 'Group', 'ServicePrincipal'])
param operatorPrincipalType string = 'User'

var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = { 'azd-env-name': environmentName }

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: empty(resourceGroupName) ? 'rg-${environmentName}' : resourceGroupName
  location: location
  tags: tags
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
  }
}

module storage 'modules/storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    uplinkQueueName: uplinkQueueName
    pollQueueName: pollQueueName
    zoneRedundancy: zoneRedundancy
  }
}

module cosmos 'modules/cosmos.bicep' = {
  name: 'cosmos'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    zoneRedundancy: zoneRedundancy
  }
}

module hub 'modules/hub.bicep' = {
  name: 'hub'
  scope: group
  params: {
    location: empty(iotLocation) ? location : iotLocation
    tags: tags
    token: token
    units: hubUnits
  }
}

module vault 'modules/vault.bicep' = {
  name: 'vault'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    purgeProtection: purgeProtection
    enrollmentGroupKey: enrollmentGroupKey
    m2mCredentials: m2mCredentials
    webhookSecret: webhookSecret
  }
}

module app 'modules/app.bicep' = {
  name: 'app'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    packageContainerUrl: storage.outputs.packageContainerUrl
    maximumInstanceCount: maximumInstanceCount
    instanceMemoryMB: instanceMemoryMB
    customRuntimeVersion: customRuntimeVersion
    httpAlwaysReady: httpAlwaysReady >= 0 ? httpAlwaysReady : thingsNetwork ? 1 : 0
    timerAlwaysReady: timerAlwaysReady
    zoneRedundancy: zoneRedundancy
  }
}

module access 'modules/access.bicep' = {
  name: 'access'
  scope: group
  params: {
    appPrincipalId: app.outputs.principalId
    operatorPrincipalId: operatorPrincipalId
    operatorPrincipalType: operatorPrincipalType
    storageAccountName: storage.outputs.accountName
    cosmosAccountName: cosmos.outputs.accountName
    vaultName: vault.outputs.name
    applicationInsightsName: monitoring.outputs.applicationInsightsName
  }
}

module settings 'modules/settings.bicep' = {
  name: 'settings'
  scope: group
  // The app starts anew with its settings, and reads the vault: by then it should be allowed to.
  dependsOn: [access]
  params: {
    appName: app.outputs.name
    storageAccountName: storage.outputs.accountName
    queueServiceUri: storage.outputs.queueServiceUri
    applicationInsightsConnectionString: monitoring.outputs.connectionString
    vaultUri: vault.outputs.uri
    cosmosEndpoint: cosmos.outputs.endpoint
    databaseName: cosmos.outputs.databaseName
    pollsContainerName: cosmos.outputs.pollsContainerName
    idScope: hub.outputs.idScope
    m2mBackendUrl: m2mBackendUrl
    customerId: customerId
    siteId: siteId
    channelNames: channelNames
    startFrom: startFrom
    pollQueueName: pollQueueName
    thingsNetwork: thingsNetwork
    uplinkQueueName: uplinkQueueName
    deviceIdTemplate: deviceIdTemplate
    transport: transport
    pollHistoryDays: pollHistoryDays
    moreSettings: moreSettings
  }
}

module alerts 'alerts.bicep' = {
  name: 'alerts'
  scope: group
  params: {
    location: location
    applicationInsightsId: monitoring.outputs.applicationInsightsId
    email: alertEmail
    rapidM2M: !empty(m2mBackendUrl)
    thingsNetwork: thingsNetwork
  }
}

// For azd, for the hook that makes the enrollment group, and for commands.
output AZURE_RESOURCE_GROUP string = group.name
output FUNCTION_APP_NAME string = app.outputs.name
output WEBHOOK_URL string = 'https://${app.outputs.hostName}/api/uplink'
output IOT_HUB_NAME string = hub.outputs.hubName
output DPS_NAME string = hub.outputs.provisioningServiceName
output DPS_ID_SCOPE string = hub.outputs.idScope
output KEY_VAULT_URI string = vault.outputs.uri
output COSMOS_ENDPOINT string = cosmos.outputs.endpoint
