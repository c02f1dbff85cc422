// Azurite's queues as Microsoft's SDK sees them: whoever looks into them here shares nothing with the connector.
'use strict';

const assert = require('node:assert').strict;
const { setTimeout: later } = require('node:timers/promises');

// Nothing here goes through a proxy. The SDK reads this when it is loaded.
process.env.NO_PROXY = '127.0.0.1';
const { QueueServiceClient } = require('@azure/storage-queue');

// Azurite cannot be told to wait, so it is asked again and again, for so many milliseconds.
const PATIENCE = 20_000;
const ASK_AGAIN = 50;
// As many messages as the service hands out at once.
const MOST = 32;

class Queue {
  constructor(connection, name) {
    this.client = QueueServiceClient.fromConnectionString(connection).getQueueClient(name);
  }

  // Messages, visible and not; 0 if there is no such queue.
  async count() {
    if (!(await this.client.exists())) return 0;
    return (await this.client.getProperties()).approximateMessagesCount;
  }

  // The stored texts, as they are, once there are so many messages; no more than these.
  async texts(count) {
    await this.reaches(count);
    if (count === 0) return [];
    const items = count <= MOST ? await this.peeked() : await this.taken();
    assert.equal(items.length, count, `visible messages in ${this.client.name}`);
    return items.map(({ messageText }) => messageText);
  }

  async peeked() {
    return (await this.client.peekMessages({ numberOfMessages: MOST })).peekedMessageItems;
  }

  // The service shows the first ones only; to see more, they must be taken. They stay invisible for a while.
  async taken() {
    const all = [];
    for (;;) {
      const { receivedMessageItems: items } = await this.client.receiveMessages({ numberOfMessages: MOST });
      if (items.length === 0) return all;
      all.push(...items);
    }
  }

  // Waits until there are so many messages, visible and not.
  async reaches(count) {
    const end = Date.now() + PATIENCE;
    let found = await this.count();
    while (found !== count && Date.now() < end) {
      await later(ASK_AGAIN);
      found = await this.count();
    }
    assert.equal(found, count, `messages in ${this.client.name} after ${PATIENCE} ms`);
  }

  // Puts a text as it is.
  async put(text) {
    await this.client.createIfNotExists();
    await this.client.sendMessage(text);
  }
}

// As the Functions host stores a message, unless host.json says something else.
const encoded = (text) => Buffer.from(text).toString('base64');

function decoded(stored) {
  const bytes = Buffer.from(stored, 'base64');
  assert.equal(bytes.toString('base64'), stored, 'the stored text is Base64, with padding and nothing else');
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
}

module.exports = { Queue, decoded, encoded };
