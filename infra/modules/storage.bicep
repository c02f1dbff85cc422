// The storage account of the Functions host, with the queues of uplinks. Nobody has a key to it.

param location string
param tags object
// Storage accounts have names of at least 3 characters.
@minLength(1)
param token string
param uplinkQueueName string
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

output accountName string = account.name
output queueServiceUri string = account.properties.primaryEndpoints.queue
output packageContainerUrl string = '${account.properties.primaryEndpoints.blob}${packageContainerName}'
