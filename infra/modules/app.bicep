// The function app, without its settings: those wait until its identity has its roles.

@description('Region of the resources.')
param location string

@description('Tags of every resource.')
param tags object

@description('Ends the names of the resources, many of which must be unique in all of Azure.')
param token string

@description('URL of the blob container that the package is published to.')
param packageContainerUrl string

@description('Most instances that a group of functions may run on, those that always run not counted.')
param maximumInstanceCount int

@description('Memory of an instance in MB.')
param instanceMemoryMB int

@description('Version of the runtime `custom` in the plan.')
param customRuntimeVersion string

@description('Instances of the HTTP functions that always run. The HTTP functions scale together, every other function by itself.')
param httpAlwaysReady int

@description('Instances of the timer function that always run.')
param timerAlwaysReady int

@description('Whether the plan is spread over availability zones.')
param zoneRedundancy bool

var httpGroup = [{ name: 'http', instanceCount: httpAlwaysReady }]
var timerGroup = [{ name: 'function:rapidM2MForwarding', instanceCount: timerAlwaysReady }]

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: 'plan-${token}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    tier: 'FlexConsumption'
    name: 'FC1'
  }
  properties: {
    reserved: true
    zoneRedundant: zoneRedundancy
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: 'func-${token}'
  location: location
  // azd publishes the service of this name to it.
  tags: union(tags, { 'azd-service-name': 'connector' })
  kind: 'functionapp,linux'
  identity: {
    type: 'SystemAssigned'
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    siteConfig: {
      minTlsVersion: '1.2'
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: packageContainerUrl
          authentication: { type: 'SystemAssignedIdentity' }
        }
      }
      scaleAndConcurrency: {
        maximumInstanceCount: maximumInstanceCount
        instanceMemoryMB: instanceMemoryMB
        alwaysReady: concat(httpAlwaysReady > 0 ? httpGroup : [], timerAlwaysReady > 0 ? timerGroup : [])
      }
      // Instead of FUNCTIONS_WORKER_RUNTIME, which this plan does not take.
      runtime: {
        name: 'custom'
        version: customRuntimeVersion
      }
    }
  }
}

// Publishing goes by Microsoft Entra ID. Nobody may log in with the app's own password.
resource publishing 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = [for way in ['ftp', 'scm']: {
  parent: app
  name: way
  properties: {
    allow: false
  }
}]

output name string = app.name
output hostName string = app.properties.defaultHostName
output principalId string = app.identity.principalId
