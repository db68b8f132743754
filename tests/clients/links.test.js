// Linked channels: one signed publish reaches the clients of every dialect, in one order. The same
// with a browser's own EventSource beside these clients is in tests/browser/browser.test.js.

const { CONFIG, MOST_MS, READERS, deliver } = require("./links")
const { withServer } = require("./support")

withServer("linked channels: one publish reaches every dialect in one order",
  { config: CONFIG, threads: 2, timeout: 2 * MOST_MS }, (server) => deliver(server, READERS))
