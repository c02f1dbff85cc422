# Makes the enrollment group from which the connector registers devices, unless it is there. The same as enrollment-group.sh, for
# Windows. Needs the Azure CLI, signed in.
$ErrorActionPreference = 'Stop'

foreach ($name in 'DPS_NAME', 'AZURE_RESOURCE_GROUP', 'ENROLLMENT_GROUP_KEY') {
    if (-not [Environment]::GetEnvironmentVariable($name)) {
        [Console]::Error.WriteLine("error: $name is not set: with azd, run ``azd env set $name VALUE`` and ``azd provision`` again")
        exit 2
    }
}
if (-not (Get-Command az -ErrorAction SilentlyContinue)) {
    [Console]::Error.WriteLine('error: there is no az: install the Azure CLI, sign in with `az login`, then run infra/enrollment-group.ps1 again')
    exit 1
}

# azd and the Azure CLI may be signed in to different subscriptions.
$subscription = if ($env:AZURE_SUBSCRIPTION_ID) { @('--subscription', $env:AZURE_SUBSCRIPTION_ID) } else { @() }
# Without a terminal, the Azure CLI cannot ask whether it may install the extension.
$reason = az extension add --name azure-iot --upgrade --only-show-errors 2>&1
if ($LASTEXITCODE -ne 0) {
    [Console]::Error.WriteLine("error: the Azure CLI's extension azure-iot cannot be installed: $reason")
    exit 1
}

$group = 'iothub-connector'
$common = @('--dps-name', $env:DPS_NAME, '--resource-group', $env:AZURE_RESOURCE_GROUP, '--enrollment-id', $group,
    '--output', 'none', '--only-show-errors') + $subscription
$null = az iot dps enrollment-group show @common 2>&1
if ($LASTEXITCODE -eq 0) {
    "enrollment group $group is there"
    exit 0
}
# The secondary key is one that nobody knows.
$bytes = New-Object byte[] 48
$random = [Security.Cryptography.RandomNumberGenerator]::Create()
$random.GetBytes($bytes)
$reason = az iot dps enrollment-group create @common --primary-key $env:ENROLLMENT_GROUP_KEY --secondary-key ([Convert]::ToBase64String($bytes)) 2>&1
if ($LASTEXITCODE -ne 0) {
    # Without AZURE_SUBSCRIPTION_ID, it was the one that the Azure CLI is set to.
    $used = if ($env:AZURE_SUBSCRIPTION_ID) { $env:AZURE_SUBSCRIPTION_ID } else { az account show --query id --output tsv --only-show-errors 2>$null }
    if (-not $used) { $used = '(none: run `az login`)' }
    [Console]::Error.WriteLine("error: enrollment group $group of $($env:DPS_NAME) cannot be made in subscription ${used}: $reason")
    [Console]::Error.WriteLine("       If this is the wrong one, set AZURE_SUBSCRIPTION_ID to the right one (with azd: ``azd env set AZURE_SUBSCRIPTION_ID ID``),")
    [Console]::Error.WriteLine("       then run ``azd up`` or this script again.")
    [Console]::Error.WriteLine("       Check that ``az account show`` names the right tenant, and that you may change $($env:DPS_NAME) (the role Contributor on")
    [Console]::Error.WriteLine("       $($env:AZURE_RESOURCE_GROUP)). Roles take some minutes to hold. Then run ``azd provision`` or this script again.")
    exit 1
}
"enrollment group $group is made"
