#!/bin/sh
# Makes the enrollment group from which the connector registers devices, unless it is there: this cannot be done in Bicep. azd runs
# it after it has made the resources; by hand: README.md, "Deploying by hand". Needs the Azure CLI, signed in.
set -eu

for name in DPS_NAME AZURE_RESOURCE_GROUP ENROLLMENT_GROUP_KEY; do
    eval "value=\${$name-}"
    if [ -z "$value" ]; then
        echo "error: $name is not set: with azd, run \`azd env set $name VALUE\` and \`azd provision\` again" >&2
        exit 2
    fi
done
if ! command -v az > /dev/null; then
    echo "error: there is no az: install the Azure CLI, sign in with \`az login\`, then run infra/enrollment-group.sh again" >&2
    exit 1
fi

group=iothub-connector
if az iot dps enrollment-group show --dps-name "$DPS_NAME" --resource-group "$AZURE_RESOURCE_GROUP" \
    --enrollment-id "$group" --output none 2> /dev/null; then
    echo "enrollment group $group is there"
else
    # The secondary key is one that nobody knows.
    az iot dps enrollment-group create --dps-name "$DPS_NAME" --resource-group "$AZURE_RESOURCE_GROUP" \
        --enrollment-id "$group" --primary-key "$ENROLLMENT_GROUP_KEY" \
        --secondary-key "$(head -c 48 /dev/urandom | base64 | tr -d '\n')" --output none
    echo "enrollment group $group is made"
fi
