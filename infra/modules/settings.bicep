// The app's settings. docs/reference/settings.md says what each means. tests/repository/infrastructure holds this file against the code: what
// the code reads is written here, or is in this table of what is left out on purpose. (moreSettings can set it all the same.)
//
// | Left out | because |
// |---|---|
// | M2MDocumentsDBPrimaryKey | the app signs in to Cosmos DB as its identity |
// | IoTHubConnection, IoTHubURL, IoTHubDeviceId, IoTHubDeviceKey, IoTHubSharedAccessSignature | each site is a device of its own |
// | DPSIDScope, DPSEnrollmentGroupSymmetricKey | the names with Default at the end are used, which both halves read |
// | AzureIotHubConnectionString, AzureIoTHubConnectionString | devices come from the Device Provisioning Service |
// | DPSGlobalDeviceEndpoint, DPSGlobaDeviceEndpoint, IoTHubTrustedCa | for private gateways and emulators |
// | EmulationMode, Histdata, PollConcurrency, PollBatchSites, BackendRequestsPerSecond, SweepMinutes, PollTimeoutSeconds, RecordEmptyPolls, MarkWithinSeconds | the default is right for a start |
// | OverlapSeconds, ForwardCorrections, FailedSitesThreshold | the default is right for a start |
// | IoTHubMaxConnections, ForwardTimeoutSeconds, DeviceActivitySeconds | the default is right for a start |
// | ThingsNetworkEvents, ThingsNetworkMembers, ThingsNetworkDirectMilliseconds, AzureIoT__IoTCentral__Methods__ | the default is right for a start |
// | ConfirmDownlinks | the default is right for a start |
// | DownlinkPollSeconds, DownlinkPollDevices | the default is right for a start; with DownlinkPollSeconds in moreSettings, its function runs |
// | ThingsStackUrl, ThingsStackDownlinkApiKey | webhooks have the address and the key for downlinks; commands read them on the machine of a person |
// | ThingsStackApiKey, FunctionAppUrl, FunctionAppKey | only commands read them, on the machine of a person |
// | Base64encodedUsernamePassword, DPSEnrollmentGroupSymmetricKeyDefault, ThingsNetworkWebhookSecret | they are in the vault |
// | RUST_LOG, LOG_FORMAT | info, and the text that the host understands |
// | REGION_NAME | Azure sets it |
// | AZURE_FUNCTIONS_ENVIRONMENT | the host sets it: Development on a developer's machine |
// | LOCAL_SESSION | `local` sets it on a developer's machine |

@description('Function app that gets the settings.')
param appName string

@description('Storage account of the Functions host.')
param storageAccountName string

@description('URL of the queues in the storage account.')
param queueServiceUri string

@description('Connection string of the Application Insights component that the app logs to.')
param applicationInsightsConnectionString string

@description('URL of the Key Vault with the secrets.')
param vaultUri string

@description('URL of the Cosmos DB account.')
param cosmosEndpoint string

@description('Database in the Cosmos DB account.')
param databaseName string

@description('Container of the polls in the database.')
param pollsContainerName string

@description('ID scope of the Device Provisioning Service.')
param idScope string

@description('The backend\'s API; empty: rapidM2M is off.')
param m2mBackendUrl string

@description('Name or id of the customer at the backend.')
param customerId string

@description('Sites, comma-separated; or *: all of the customer.')
param siteId string

@description('Channels, comma-separated; or *: all of the site\'s blueprint.')
param channelNames string

@description('What a site\'s first poll fetches: youngest, all, or a time.')
param startFrom string

@description('Storage queue through which sites are polled by several instances; empty: the timer polls them itself.')
param pollQueueName string

@description('Whether webhooks of The Things Network are taken and forwarded.')
param thingsNetwork bool

@description('Storage queue between the two functions of The Things Network.')
param uplinkQueueName string

@description('What a LoRaWAN device is called at the hub.')
param deviceIdTemplate string

@description('How messages get to the hub: https, mqtt or mqtt-ws.')
param transport string

@description('Days after which finished records are removed from Cosmos DB; 0: never.')
param pollHistoryDays int

@description('Further settings by name. They win over the ones made here.')
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
  // The app reads its secrets there at the start, and again until the vault has answered. A reference to the vault in an app
  // setting could stay unresolved for a day: <https://learn.microsoft.com/azure/app-service/app-service-key-vault-references>
  KeyVaultURI: vaultUri
}

var ofRapidM2M = {
  M2MBackendURL: m2mBackendUrl
  Customer_ID: customerId
  Site_ID: siteId
  Channelnames: channelNames
  StartFrom: startFrom
}

var withoutRapidM2M = {
  'AzureWebJobs.rapidM2MForwarding.Disabled': 'true'
}

var ofThePollQueue = {
  PollQueueName: pollQueueName
}

var withoutThePollQueue = {
  'AzureWebJobs.rapidM2MSites.Disabled': 'true'
}

var ofTheQueues = {
  AzureStorageConnectionString__queueServiceUri: queueServiceUri
  AzureStorageConnectionString__credential: 'managedidentity'
}

var ofTheThingsNetwork = {
  UplinkQueueName: uplinkQueueName
  DeviceIdTemplate: deviceIdTemplate
}

var withoutTheThingsNetwork = {
  'AzureWebJobs.thingsNetworkUplink.Disabled': 'true'
  'AzureWebJobs.thingsNetworkForwarding.Disabled': 'true'
}

var withoutPolledDownlinks = {
  'AzureWebJobs.thingsNetworkDownlinks.Disabled': 'true'
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
    empty(pollQueueName) ? withoutThePollQueue : ofThePollQueue,
    thingsNetwork ? ofTheThingsNetwork : withoutTheThingsNetwork,
    thingsNetwork || !empty(pollQueueName) ? ofTheQueues : {},
    contains(moreSettings, 'DownlinkPollSeconds') ? {} : withoutPolledDownlinks,
    moreSettings
  )
}
