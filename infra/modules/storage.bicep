// The storage account of the Functions host, with the queues of uplinks and of sites. Nobody has a key to it.

@description('Region of the resources.')
param location string

@description('Tags of every resource.')
param tags object

@description('Ends the names of the resources, many of which must be unique in all of Azure. Names of storage accounts have at least 3 characters.')
@minLength(1)
param token string

@description('Storage queue between the two functions of The Things Network. The names of the other queues begin with it.')
param uplinkQueueName string

@description('Storage queue through which sites are polled by several instances; empty: there is none.')
param pollQueueName string

@description('Whether the account is spread over availability zones.')
param zoneRedundancy bool

var packageContainerName = 'package'

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  name: 'st${token}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: zoneRedundancy ? 'Standard_ZRS' : 'Standard_LRS' }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-01-01' = {
  parent: account
  name: 'default'
}

resource packages 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' = {
  parent: blobs
  name: packageContainerName
}

resource queueService 'Microsoft.Storage/storageAccounts/queueServices@2025-01-01' = {
  parent: account
  name: 'default'
}

// The host would make them with the first message; made here, they can be looked into before.
resource queues 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-01-01' = [for suffix in ['', '-rejected', '-poison']: {
  parent: queueService
  name: '${uplinkQueueName}${suffix}'
}]

resource pollQueues 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-01-01' = [for suffix in empty(pollQueueName) ? [] : ['', '-rejected', '-poison']: {
  parent: queueService
  name: '${pollQueueName}${suffix}'
}]

output accountName string = account.name
output queueServiceUri string = account.properties.primaryEndpoints.queue
output packageContainerUrl string = '${account.properties.primaryEndpoints.blob}${packageContainerName}'
