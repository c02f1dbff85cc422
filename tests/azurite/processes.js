// Processes that the tests start: they end with the tests, whatever happens.
'use strict';

const { spawn } = require('node:child_process');
const { once } = require('node:events');
const { createInterface } = require('node:readline');

// Whoever takes longer to start, or prints nothing that is waited for within this time (milliseconds), is given up.
const PATIENCE = 20_000;
// How long a process may take to end when it is asked to.
const GRACE = 5_000;
// Lines of output that are quoted when something fails.
const QUOTED = 30;

const running = new Set();
// The Functions host takes its handler along, so it must not be killed at once.
process.on('exit', () => running.forEach(({ child }) => child.kill('SIGTERM')));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

class Process {
  constructor(name, command, args, options) {
    this.name = name;
    this.lines = [];
    this.waiting = new Set();
    this.child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    this.ended = once(this.child, 'close').then(
      () => this.#over(`ended with ${this.child.exitCode ?? this.child.signalCode}`),
      (error) => this.#over(`cannot be started: ${error.message}`),
    );
    for (const stream of [this.child.stdout, this.child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        this.lines.push(line);
        this.#look();
      });
    }
    running.add(this);
  }

  // The first lines that match, as results of the match, once there are so many; lines printed before count.
  async printed(pattern, count = 1) {
    const wanted = { pattern, count };
    const found = new Promise((resolve, reject) => Object.assign(wanted, { resolve, reject }));
    const error = (why) => this.#error(`${why} before ${count} lines matched ${pattern}`);
    const timer = setTimeout(() => wanted.reject(error(`took more than ${PATIENCE} ms`)), PATIENCE);
    wanted.over = (why) => wanted.reject(error(why));
    this.waiting.add(wanted);
    this.#look();
    if (this.why) wanted.over(this.why);
    return found.finally(() => {
      clearTimeout(timer);
      this.waiting.delete(wanted);
    });
  }

  count(pattern) {
    return this.lines.filter((line) => pattern.test(line)).length;
  }

  tail() {
    return this.lines.slice(-QUOTED).join('\n');
  }

  async stop() {
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), GRACE);
    await this.ended;
    clearTimeout(timer);
  }

  #look() {
    for (const { pattern, count, resolve } of this.waiting) {
      const matches = this.lines.map((line) => pattern.exec(line)).filter(Boolean);
      if (matches.length >= count) resolve(matches);
    }
  }

  #over(why) {
    running.delete(this);
    this.why = why;
    this.waiting.forEach(({ over }) => over(why));
  }

  #error(problem) {
    return new Error(`${this.name} ${problem}:\n${this.tail()}`);
  }
}

const stopAll = () => Promise.all([...running].map((started) => started.stop()));

module.exports = { Process, stopAll };
