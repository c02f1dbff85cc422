// The secrets. Each has the name of the setting that it is for.

param location string
param tags object
param token string
@secure()
param enrollmentGroupKey string
@secure()
param m2mCredentials string
@secure()
param webhookSecret string

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: 'kv-${token}'
  location: location
  tags: tags
  properties: {
    tenantId: subscription().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 7
  }
}

resource groupKey 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = {
  parent: vault
  name: 'DPSEnrollmentGroupSymmetricKeyDefault'
  properties: { value: enrollmentGroupKey }
}

resource credentials 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!empty(m2mCredentials)) {
  parent: vault
  name: 'Base64encodedUsernamePassword'
  properties: { value: m2mCredentials }
}

resource webhooks 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!empty(webhookSecret)) {
  parent: vault
  name: 'ThingsNetworkWebhookSecret'
  properties: { value: webhookSecret }
}

output name string = vault.name
output uri string = vault.properties.vaultUri
