// The ledger. src/rapidm2m/ledger/cosmos.rs and src/iot_hub/devices/store.rs say the same of the containers, for accounts whose key the app has;
// tests/repository/infrastructure holds one against the other.

@description('Region of the resources.')
param location string

@description('Tags of every resource.')
param tags object

@description('Ends the names of the resources, many of which must be unique in all of Azure.')
param token string

@description('Whether the account is spread over availability zones.')
param zoneRedundancy bool

var databaseName = 'M2MBackendForwarderData'
var pollsContainerName = 'pollingAttempts'
var devicesContainerName = 'devices'

resource account 'Microsoft.DocumentDB/databaseAccounts@2025-10-15' = {
  name: 'cosmos-${token}'
  location: location
  tags: tags
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    capabilities: [{ name: 'EnableServerless' }]
    consistencyPolicy: { defaultConsistencyLevel: 'Session' }
    locations: [{ locationName: location, failoverPriority: 0, isZoneRedundant: zoneRedundancy }]
    backupPolicy: {
      type: 'Continuous'
      continuousModeProperties: { tier: 'Continuous7Days' }
    }
    // Only identities may read and write: the account's keys do not work.
    disableLocalAuth: true
    disableKeyBasedMetadataWriteAccess: true
    minimalTlsVersion: 'Tls12'
  }
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2025-10-15' = {
  parent: account
  name: databaseName
  properties: {
    resource: { id: databaseName }
  }
}

resource polls 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2025-10-15' = {
  parent: database
  name: pollsContainerName
  properties: {
    resource: {
      id: pollsContainerName
      partitionKey: { kind: 'MultiHash', version: 2, paths: ['/Customer_Id', '/Site_Id'] }
      // On, without a default: what still waits for the hub must not expire.
      defaultTtl: -1
      indexingPolicy: {
        indexingMode: 'consistent'
        includedPaths: [{ path: '/*' }]
        // The bulk of a record, and what is written often; neither is ever searched.
        excludedPaths: [
          { path: '/IoTHubMessage/?' }
          { path: '/Recorded/*' }
          { path: '/Activity/*' }
          { path: '/Request/*' }
          { path: '/Result/*' }
          { path: '/Unforwarded/*' }
          { path: '/EmptyPolls/*' }
          { path: '/Record/*' }
        ]
      }
    }
  }
}

resource devices 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2025-10-15' = {
  parent: database
  name: devicesContainerName
  properties: {
    resource: {
      id: devicesContainerName
      partitionKey: { kind: 'Hash', version: 2, paths: ['/id'] }
      indexingPolicy: {
        indexingMode: 'consistent'
        includedPaths: [{ path: '/*' }]
        excludedPaths: [{ path: '/Activity/*' }]
      }
    }
  }
  // One after the other: two at once may be refused.
  dependsOn: [polls]
}

output accountName string = account.name
output endpoint string = account.properties.documentEndpoint
output databaseName string = databaseName
output pollsContainerName string = pollsContainerName
