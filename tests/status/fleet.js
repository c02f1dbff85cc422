// Cursors of ten thousand sites, written straight into Cosmos DB.
'use strict';

const assert = require('node:assert').strict;
const { createHmac } = require('node:crypto');

const CUSTOMER = 'Demo Water Utility';
const CONTAINER = 'dbs/M2MBackendForwarderData/colls/pollingAttempts';
// Requests at once.
const CONCURRENCY = 32;
const FAULTS = [
  { Kind: 'unauthorized', Text: 'the backend refuses the credentials (401): check Base64encodedUsernamePassword' },
  { Kind: 'timeout', Text: 'the backend did not answer within 40 s' },
];

// What a site's cursor holds; every 25th has failed, every 40th waits, every 60th has been silent for days.
function cursor(number, now) {
  const minutes = (count) => new Date(now - count * 60_000).toISOString();
  const hour = new Date(now - (now % 3_600_000)).toISOString();
  const failing = number % 25 === 0;
  const silent = number % 60 === 7;
  return {
    id: 'cursor',
    Kind: 'cursor',
    Customer_Id: CUSTOMER,
    Site_Id: `Pumping station ${String(number).padStart(5, '0')}`,
    LastValueFrom: minutes(silent ? 60 * 24 * 3 + number : 1 + (number % 9)),
    ScannedUntil: minutes(1),
    Unforwarded: number % 40 === 3 ? [`${now}-0000-00000000`] : [],
    ConsecutiveFailures: failing ? 1 + (number % 7) : 0,
    LastError: failing ? FAULTS[number % 2] : null,
    NotBefore: failing && number % 2 ? new Date(now + 600_000).toISOString() : null,
    Activity: {
      PolledAt: minutes(1),
      Polls: failing ? 'rrerrerrffff' : 'rererrerrrerrrerrrerrrer',
      Rows: { Last: hour, Counts: Array.from({ length: 24 }, (_, at) => (silent ? 0 : 40 + ((number * 7 + at * 13) % 37))) },
    },
  };
}

async function create(cosmos, document) {
  const date = new Date().toUTCString();
  const text = `post\ndocs\n${CONTAINER}\n${date.toLowerCase()}\n\n`;
  const signature = createHmac('sha256', Buffer.from(cosmos.ready.key, 'base64')).update(text).digest('base64');
  const answer = await fetch(`${cosmos.ready.endpoint}${CONTAINER}/docs`, {
    method: 'POST',
    headers: {
      authorization: encodeURIComponent(`type=master&ver=1.0&sig=${signature}`),
      'x-ms-date': date,
      'x-ms-version': '2020-07-15',
      'x-ms-documentdb-partitionkey': JSON.stringify([document.Customer_Id, document.Site_Id]),
      'content-type': 'application/json',
    },
    body: JSON.stringify(document),
  });
  const body = await answer.text();
  assert.equal(answer.status, 201, body);
}

// So many sites, of which the container (which must be there) knows none yet.
async function fill(cosmos, sites) {
  const now = Date.now();
  let next = 0;
  const work = async () => {
    while (next < sites) await create(cosmos, cursor(next++, now));
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, work));
}

// A cursor that somebody has edited.
const addOddCursor = (cosmos) =>
  create(cosmos, { ...cursor(0, Date.now()), Site_Id: 'Odd station', ConsecutiveFailures: 'many' });

module.exports = { CUSTOMER, addOddCursor, fill };
