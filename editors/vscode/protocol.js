// The language server protocol over the streams of a child process: requests, answers, notices.
"use strict";

const { spawn } = require("child_process");

class Connection {
  constructor(command, args, onNotice, onEnd) {
    this.process = spawn(command, args, { stdio: ["pipe", "pipe", "ignore"] });
    this.waiting = new Map();
    this.serial = 0;
    this.onNotice = onNotice;
    this.ended = false;
    let buffer = Buffer.alloc(0);
    this.process.stdout.on("data", (chunk) => {
      buffer = Buffer.concat([buffer, chunk]);
      for (;;) {
        const head = buffer.indexOf("\r\n\r\n");
        if (head < 0) return;
        const found = /Content-Length: (\d+)/i.exec(buffer.toString("ascii", 0, head));
        const length = found ? Number(found[1]) : 0;
        if (buffer.length < head + 4 + length) return;
        const text = buffer.toString("utf8", head + 4, head + 4 + length);
        buffer = buffer.subarray(head + 4 + length);
        this.receive(JSON.parse(text));
      }
    });
    const end = (error) => {
      if (this.ended) return;
      this.ended = true;
      for (const { reject } of this.waiting.values()) reject(new Error("the server has ended"));
      this.waiting.clear();
      onEnd(error);
    };
    this.process.on("error", end);
    this.process.on("exit", () => end());
    this.process.stdin.on("error", () => {});
  }

  receive(message) {
    if (message.method !== undefined) {
      if (message.id !== undefined) this.send({ id: message.id, result: null });
      this.onNotice(message.method, message.params);
      return;
    }
    const one = this.waiting.get(message.id);
    if (one === undefined) return;
    this.waiting.delete(message.id);
    if (message.error) one.reject(new Error(message.error.message));
    else one.resolve(message.result);
  }

  send(message) {
    if (this.ended) return;
    const body = Buffer.from(JSON.stringify({ jsonrpc: "2.0", ...message }), "utf8");
    this.process.stdin.write(`Content-Length: ${body.length}\r\n\r\n`);
    this.process.stdin.write(body);
  }

  notify(method, params) {
    this.send({ method, params });
  }

  request(method, params) {
    if (this.ended) return Promise.resolve(null);
    const id = ++this.serial;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.send({ id, method, params });
    });
  }

  stop() {
    if (this.ended) return Promise.resolve();
    return this.request("shutdown", null)
      .catch(() => null)
      .then(() => this.notify("exit", null));
  }
}

module.exports = { Connection };
