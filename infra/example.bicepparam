// A deployment with everything on, for `bicep snapshot`. The values are made up.
using 'main.bicep'

param environmentName = 'example'
param location = 'westeurope'
param m2mBackendUrl = 'https://cloud.microtronics.com/api/1/'
param m2mCredentials = 'dXNlcjpwYXNzd29yZA=='
param customerId = 'Demo Water Utility'
param webhookSecret = 'a made-up secret of the webhooks'
param enrollmentGroupKey = 'YSBtYWRlLXVwIGtleSBvZiBhIGdyb3VwIG9mIGRldmljZXM='
param alertEmail = 'operator@example.com'
