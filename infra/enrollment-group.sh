#!/bin/sh
# Makes the enrollment group from which the connector registers devices, unless it is there: Bicep cannot make it. azd runs this
# after it has made the resources; by hand: docs/how-to/deploy-by-hand.md. Needs the Azure CLI, signed in.
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

# azd and the Azure CLI may be signed in to different subscriptions.
if [ -n "${AZURE_SUBSCRIPTION_ID-}" ]; then
    set -- --subscription "$AZURE_SUBSCRIPTION_ID"
else
    set --
fi
# Without a terminal, the Azure CLI cannot ask whether it may install the extension.
if ! reason=$(az extension add --name azure-iot --upgrade --only-show-errors 2>&1); then
    echo "error: the Azure CLI's extension azure-iot cannot be installed: $reason" >&2
    exit 1
fi

group=iothub-connector
of_group() {
    command=$1
    shift
    az iot dps enrollment-group "$command" --dps-name "$DPS_NAME" --resource-group "$AZURE_RESOURCE_GROUP" \
        --enrollment-id "$group" --output none --only-show-errors "$@" 2>&1
}

if of_group show "$@" > /dev/null; then
    echo "enrollment group $group is there"
    exit 0
fi
# The secondary key is one that nobody knows.
if ! reason=$(of_group create "$@" --primary-key "$ENROLLMENT_GROUP_KEY" \
    --secondary-key "$(head -c 48 /dev/urandom | base64 | tr -d '\n')"); then
    # Without AZURE_SUBSCRIPTION_ID, it was the one that the Azure CLI is set to.
    subscription=${AZURE_SUBSCRIPTION_ID:-$(az account show --query id --output tsv --only-show-errors 2> /dev/null || true)}
    echo "error: enrollment group $group of $DPS_NAME cannot be made in subscription ${subscription:-(none: run \`az login\`)}: $reason" >&2
    echo "       If this is the wrong one, set AZURE_SUBSCRIPTION_ID to the right one (with azd: \`azd env set AZURE_SUBSCRIPTION_ID ID\`)," >&2
    echo "       then run \`azd up\` or this script again." >&2
    echo "       Check that \`az account show\` names the right tenant, and that you may change $DPS_NAME (the role Contributor on" >&2
    echo "       $AZURE_RESOURCE_GROUP). Roles take some minutes to hold. Then run \`azd provision\` or this script again." >&2
    exit 1
fi
echo "enrollment group $group is made"
