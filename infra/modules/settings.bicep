// The app's settings. README.md, "Settings", says what each means. tests/repository/infrastructure holds this file against the code: what
// the code reads is written here, or is in this table of what is left out on purpose. (moreSettings can set it all the same.)
//
// | Left out | because |
// |---|---|
// | M2MDocumentsDBPrimaryKey | the app signs in to Cosmos DB as its identity |
// | IoTHubConnection, IoTHubURL, IoTHubDeviceId, IoTHubDeviceKey, IoTHubSharedAccessSignature | each site is a device of its own |
// | DPSIDScope, DPSEnrollmentGroupSymmetricKey | the names with Default at the end are set, which both halves read |
// | AzureIotHubConnectionString, AzureIoTHubConnectionString | devices come from the Device Provisioning Service |
// | DPSGlobalDeviceEndpoint, DPSGlobaDeviceEndpoint, IoTHubTrustedCa | for private gateways and emulators |
// | EmulationMode, Histdata, PollConcurrency, PollTimeoutSeconds, RecordEmptyPolls | the default is right for a start |
// | OverlapSeconds, ForwardCorrections, FailedSitesThreshold | the default is right for a start |
// | IoTHubMaxConnections, ForwardTimeoutSeconds, DeviceActivitySeconds | the default is right for a start |
// | ThingsNetworkEvents, ThingsNetworkDirectMilliseconds | the default is right for a start |
// | KeyVaultURI | the secrets are references to the vault already, and nothing else is in it |
// | RUST_LOG, LOG_FORMAT | info, and the text that the host understands |
// | REGION_NAME | Azure sets it |
// | AZURE_FUNCTIONS_ENVIRONMENT | the host sets it: Development on a developer's machine |

param appName string
param storageAccountName string
param queueServiceUri string
param applicationInsightsConnectionString string
param vaultUri string
param cosmosEndpoint string
param databaseName string
param pollsContainerName string
param idScope string
param m2mBackendUrl string
param customerId string
param siteId string
param channelNames string
param startFrom string
param thingsNetwork bool
param uplinkQueueName string
param deviceIdTemplate string
param hasWebhookSecret bool
param transport string
param pollHistoryDays int
param moreSettings object

// The host's own. `…__accountName` and `…__credential` are its way to say: as the app's identity.
var ofTheHost = {
  AzureWebJobsStorage__accountName: storageAccountName
  AzureWebJobsStorage__credential: 'managedidentity'
  APPLICATIONINSIGHTS_CONNECTION_STRING: applicationInsightsConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'Authorization=AAD'
  // Read by Cosmos DB's client, which otherwise waits up to 5 s at each start for an address that only virtual machines have.
  COSMOS_DISABLE_IMDS: '1'
}

var ofBoth = {
  M2MDocumentsDBUri: cosmosEndpoint
  M2MDocumentsDBName: databaseName
  M2MDocumentsDBCollection: pollsContainerName
  PollHistoryDays: string(pollHistoryDays)
  IoTHubTransport: transport
  DPSIDScopeDefault: idScope
  DPSEnrollmentGroupSymmetricKeyDefault: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/DPSEnrollmentGroupSymmetricKeyDefault)'
}

var ofRapidM2M = {
  M2MBackendURL: m2mBackendUrl
  Base64encodedUsernamePassword: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/Base64encodedUsernamePassword)'
  Customer_ID: customerId
  Site_ID: siteId
  Channelnames: channelNames
  StartFrom: startFrom
}

var withoutRapidM2M = {
  'AzureWebJobs.rapidM2MForwarding.Disabled': 'true'
}

var ofTheThingsNetwork = {
  UplinkQueueName: uplinkQueueName
  AzureStorageConnectionString__queueServiceUri: queueServiceUri
  AzureStorageConnectionString__credential: 'managedidentity'
  DeviceIdTemplate: deviceIdTemplate
}

var withWebhookSecret = {
  ThingsNetworkWebhookSecret: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/ThingsNetworkWebhookSecret)'
}

var withoutTheThingsNetwork = {
  'AzureWebJobs.thingsNetworkUplink.Disabled': 'true'
  'AzureWebJobs.thingsNetworkForwarding.Disabled': 'true'
}

resource app 'Microsoft.Web/sites@2025-03-01' existing = {
  name: appName
}

resource settings 'Microsoft.Web/sites/config@2025-03-01' = {
  parent: app
  name: 'appsettings'
  properties: union(
    ofTheHost,
    ofBoth,
    empty(m2mBackendUrl) ? withoutRapidM2M : ofRapidM2M,
    thingsNetwork ? ofTheThingsNetwork : withoutTheThingsNetwork,
    (thingsNetwork && hasWebhookSecret) ? withWebhookSecret : {},
    moreSettings
  )
}
