// The secrets. Each has the name of the setting that it is for.

@description('Region of the resources.')
param location string

@description('Tags of every resource.')
param tags object

@description('Ends the names of the resources, many of which must be unique in all of Azure.')
param token string

@description('Whether a deleted vault can be brought back for a week, whoever deletes it.')
param purgeProtection bool

@description('Key of the enrollment group in the Device Provisioning Service.')
@secure()
param enrollmentGroupKey string

@description('Base64 of user:password for the rapidM2M backend; empty: no secret is made.')
@secure()
param m2mCredentials string

@description('What webhooks must have in the header X-Webhook-Secret; empty: no secret is made.')
@secure()
param webhookSecret string

resource vault 'Microsoft.KeyVault/vaults@2025-05-01' = {
  name: 'kv-${token}'
  location: location
  tags: tags
  properties: {
    tenantId: subscription().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 7
    // Azure takes no false.
    enablePurgeProtection: purgeProtection ? true : null
  }
}

resource groupKey 'Microsoft.KeyVault/vaults/secrets@2025-05-01' = {
  parent: vault
  name: 'DPSEnrollmentGroupSymmetricKeyDefault'
  properties: { value: enrollmentGroupKey, contentType: 'key of a DPS enrollment group, Base64' }
}

resource credentials 'Microsoft.KeyVault/vaults/secrets@2025-05-01' = if (!empty(m2mCredentials)) {
  parent: vault
  name: 'Base64encodedUsernamePassword'
  properties: { value: m2mCredentials, contentType: 'user:password of the rapidM2M backend, Base64' }
}

resource webhooks 'Microsoft.KeyVault/vaults/secrets@2025-05-01' = if (!empty(webhookSecret)) {
  parent: vault
  name: 'ThingsNetworkWebhookSecret'
  properties: { value: webhookSecret, contentType: 'value of the header X-Webhook-Secret' }
}

output name string = vault.name
output uri string = vault.properties.vaultUri
