// Zilliqa's SDK with a server that polls a simulated node (examples/zilliqa) over HTTP.

const assert = require("node:assert/strict")
const { spawn } = require("node:child_process")
const { once } = require("node:events")
const path = require("node:path")
const { test } = require("node:test")
const { MessageType, SubscriptionBuilder } = require("@zilliqa-js/subscriptions")
const { Server, until, within } = require("./support")

const NODE =
  process.env.ZILLIQA_NODE || path.join(__dirname, "../../target/debug/examples/zilliqa")
/** The contract of the simulated chain, which half of all transactions call. */
const CONTRACT = "1111111111111111111111111111111111111111"

/**
 * Starts a simulated node whose newest block is `tip`. To restart a node, `listen` is its earlier
 * address.
 */
async function startNode(shape, tip, listen = "127.0.0.1:0") {
  const args = ["node", "--shape", shape, "--tip", tip, "--block-ms", 100, "--listen", listen]
  const child = spawn(NODE, args.map(String), { stdio: ["ignore", "pipe", "inherit"] })
  const node = { child, output: "", tip: () => tip }
  child.stdout.on("data", (chunk) => {
    node.output += chunk
    for (const [, number] of String(chunk).matchAll(/^block (\d+):/gm)) tip = Number(number)
  })
  child.on("error", (error) => (node.output += error))
  await until("the node's first line", () => /listens on http:\/\/\S+\n/.test(node.output))
  node.address = /listens on http:\/\/(\S+)/.exec(node.output)[1]
  return node
}

async function stopNode(node) {
  node.child.kill("SIGKILL")
  await within("the node's end", once(node.child, "exit"))
}

/** The configuration of a server that polls the node at `address`. */
function config(address) {
  return `
[zilliqa]
contracts = "node"
[zilliqa.node]
urls = ["http://${address}"]
interval_ms = 50
retry_ms = 50
retry_max_ms = 200
[[routes]]
when = [{ path = "/" }]
endpoint = "zilliqa"
[[routes]]
endpoint = "apps"
[[apps]]
id = "1"
key = "app-key"
secret = "app-secret"
`
}

/** Closes a client; without `subscriptions = null` it would reconnect. */
function end(subscription) {
  subscription.subscriptions = null
  subscription.websocket.close()
}

/** Checks that every block arrived once and in order, with the events of its transactions. */
function check(heard) {
  const numbers = heard.map((epoch) => epoch.number)
  const expected = numbers.map((_, at) => numbers[0] + at)
  assert.deepEqual(numbers, expected)
  for (const { number, hashes, events } of heard) {
    const count = number % 4
    assert.equal(hashes.flat().filter((hash) => hash !== null).length, count)
    const told = []
    for (let at = 0; at < count; at += 2) told.push(`${number}.${at}`)
    assert.deepEqual(events, told)
  }
}

/**
 * Subscribes a client to both topics on one socket; `heard` lists the received epochs, each with
 * its number, transaction hashes and events.
 */
async function watch(url) {
  const subscription = new SubscriptionBuilder().buildEventLogSubscriptions(url, {
    addresses: [`0x${CONTRACT}`],
  })
  const heard = []
  subscription.emitter.on(MessageType.NEW_BLOCK, ({ value }) => {
    const number = Number(value.TxBlock.header.BlockNum)
    heard.push({ number, hashes: value.TxHashes, events: undefined })
  })
  subscription.emitter.on(MessageType.EVENT_LOG, ({ value }) => {
    // An epoch may arrive before the client is subscribed to NewBlock; it is ignored.
    if (heard.length === 0) return
    const logs = value ? value[0].event_logs : []
    heard.at(-1).events = logs.map((log) => log.params[0].value)
    if (value) assert.equal(value[0].address, CONTRACT)
  })
  await within("the subscription", subscription.start())
  await within("the second one", subscription.subscribe({ query: MessageType.NEW_BLOCK }))
  return { subscription, heard }
}

for (const shape of ["zq1", "zq2"]) {
  test(`${shape}: blocks and events of a node, over an outage`, { timeout: 60000 }, async () => {
    let node = await startNode(shape, 100)
    const server = await Server.start({ config: config(node.address), threads: 2 })
    const { subscription, heard } = await watch(server.url("/"))
    try {
      await until("blocks", () => heard.length >= 10)
      // The node is restarted; meanwhile its chain has grown by 50 blocks.
      await stopNode(node)
      const before = node.tip()
      node = await startNode(shape, before + 50, node.address)
      await until("those since then", () => heard.at(-1).number >= before + 55)
      await until("whole epochs", () => heard.every((epoch) => epoch.events !== undefined))
      check(heard)
    } finally {
      end(subscription)
      await stopNode(node)
      await server.stop()
    }
  })
}
