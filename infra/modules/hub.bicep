// IoT Hub, and the Device Provisioning Service that registers devices in it. An enrollment group cannot be made here: it is
// made afterwards, by the hook in azure.yaml or as docs/how-to/deploy-by-hand.md says.

@description('Region of IoT Hub and the Device Provisioning Service.')
param location string

@description('Tags of every resource.')
param tags object

@description('Ends the names of the resources, many of which must be unique in all of Azure.')
param token string

@description('Units of the IoT Hub.')
param units int

resource hub 'Microsoft.Devices/IotHubs@2023-06-30' = {
  name: 'iot-${token}'
  location: location
  tags: tags
  sku: {
    name: 'S1'
    capacity: units
  }
  properties: {
    // For consumers: as long as they may be away. Commands for devices: docs/how-to/send-commands.md.
    eventHubEndpoints: {
      events: { retentionTimeInDays: 7, partitionCount: 4 }
    }
    cloudToDevice: {
      maxDeliveryCount: 10
      defaultTtlAsIso8601: 'P2D'
    }
  }
}

resource provisioningService 'Microsoft.Devices/provisioningServices@2022-12-12' = {
  name: 'dps-${token}'
  location: location
  tags: tags
  sku: {
    name: 'S1'
    capacity: 1
  }
  properties: {
    allocationPolicy: 'Hashed'
    iotHubs: [
      {
        // A link is made with the hub's first policy, iothubowner: in this version there is no other way.
        connectionString: 'HostName=${hub.properties.hostName};SharedAccessKeyName=${hub.listkeys().value[0].keyName};SharedAccessKey=${hub.listkeys().value[0].primaryKey}'
        location: location
      }
    ]
  }
}

output hubName string = hub.name
output hubHostName string = hub.properties.hostName
output provisioningServiceName string = provisioningService.name
output idScope string = provisioningService.properties.idScope
