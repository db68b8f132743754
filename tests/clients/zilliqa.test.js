// The JavaScript SDK of Zilliqa, with epochs that are posted over HTTP.

const assert = require("node:assert/strict")
const { spawn } = require("node:child_process")
const { test } = require("node:test")
const { MessageType, SocketConnect, StatusType, SubscriptionBuilder } = require("@zilliqa-js/subscriptions")
const WebSocket = require("ws")
const { Server, until, within } = require("./support")

const TOKEN = "0123456789abcdef"
const A = "2ce491a0fd9e318b39172258101b7c836da7449b"
const B = "167e3980e04eab1e89ff84523ae8c77e008932dc"
const TEST_MS = 60000

/** A configuration with the Zilliqa endpoint on all paths; `more` has more keys of `[zilliqa]`. */
const config = (more = "") => `
[limits]
http_body_bytes = "16MiB"
[zilliqa]
publish_token = "${TOKEN}"
${more}
[[routes]]
endpoint = "zilliqa"
`

const block = (number, padding = 0) => ({
  body: { MicroBlockInfos: [], pad: "x".repeat(padding) },
  header: { BlockNum: String(number), NumTxns: 1, Version: 1 },
})

const log = (address, name) => ({
  _eventname: name,
  address: `0x${address}`,
  params: [{ vname: "bar1", type: "String", value: "abc" }],
})

const transaction = (logs) => ({
  ID: "1b".repeat(32),
  toAddr: A,
  senderPubKey: "0x0314738163B9BB67AD11AA464FE69A1147DF263E8970D7DCFD8F993DDD39E81BD9",
  amount: "1000",
  receipt: { success: true, event_logs: logs },
})

async function publish(server, number, { logs = [], padding = 0 } = {}) {
  const Transactions = logs.length > 0 ? [transaction(logs)] : []
  const body = JSON.stringify({ TxBlock: block(number, padding), TxHashes: [["1b".repeat(32)]], Transactions })
  const url = `http://${server.host}:${server.port}/epochs`
  const response = await fetch(url, { method: "POST", body, headers: { Authorization: `Bearer ${TOKEN}` } })
  assert.equal(response.status, 200, await response.clone().text())
}

/** Records all events of the SDK; `seen(name)` returns those with this name. */
function listen(subscription) {
  const seen = []
  for (const name of [...Object.values(MessageType), ...Object.values(StatusType), ...Object.values(SocketConnect)]) {
    subscription.emitter.on(name, (event) => seen.push([name, event]))
  }
  subscription.seen = (name) => seen.filter(([found]) => found === name).map(([, event]) => event)
  return subscription
}

function newBlock(server) {
  return listen(new SubscriptionBuilder().buildNewBlockSubscriptions(server.url("/")))
}

function eventLog(server, ...addresses) {
  const options = { addresses: addresses.map((address) => `0x${address}`) }
  return listen(new SubscriptionBuilder().buildEventLogSubscriptions(server.url("/"), options))
}

/** Closes a client; without `subscriptions = null` it would reconnect. */
function end(subscription) {
  subscription.subscriptions = null
  subscription.websocket.close()
}

function withZilliqa(name, options, body) {
  test(name, { timeout: TEST_MS }, async () => {
    const server = await Server.start({ threads: 2, config: config(), ...options })
    const clients = []
    const keep = (client) => clients.push(client) && client
    try {
      await body(server, keep)
    } finally {
      clients.forEach(end)
      await server.stop()
    }
  })
}

/** Runs a scene in a child process, because its errors are uncaught; returns what it reports. */
async function apart(scene, server) {
  const env = { ...process.env, ZILLIQA_SCENE: scene, ZILLIQA_URL: server.url("/") }
  delete env.NODE_TEST_CONTEXT
  const child = spawn(process.execPath, [__filename], { env, stdio: ["ignore", "pipe", "inherit"] })
  let output = ""
  child.stdout.on("data", (chunk) => (output += chunk))
  await within(`scene ${scene}`, new Promise((resolve) => child.on("exit", resolve)))
  return JSON.parse(output)
}

const SCENES = {
  refused: (builder, url) => builder.buildEventLogSubscriptions(url, { addresses: ["zil1x"] }).start(),
  transactions: (builder, url) => {
    const query = { query: "TxnLog", addresses: [`0x${A}`] }
    return builder.buildNewBlockSubscriptions(url).subscribe(query)
  },
}

if (process.env.ZILLIQA_SCENE) {
  const errors = []
  let settled = false
  process.on("uncaughtException", (error) => errors.push(error.message))
  process.on("unhandledRejection", (error) => errors.push(error.message))
  const started = SCENES[process.env.ZILLIQA_SCENE](new SubscriptionBuilder(), process.env.ZILLIQA_URL)
  started.finally(() => (settled = true))
  setTimeout(() => {
    process.stdout.write(JSON.stringify({ errors, settled }), () => process.exit(0))
  }, 700)
} else {
  scenes()
}

function scenes() {
  withZilliqa("a block comes until it is unsubscribed, and once more then", {}, async (server, keep) => {
    const client = keep(newBlock(server))
    assert.equal(await within("start", client.start()), true)
    assert.deepEqual(client.seen(StatusType.SUBSCRIBE_NEW_BLOCK), [{ query: "NewBlock" }])
    await publish(server, 15)
    await until("a block", () => client.seen(MessageType.NEW_BLOCK).length === 1)
    const [{ query, value }] = client.seen(MessageType.NEW_BLOCK)
    assert.deepEqual({ query, value }, {
      query: "NewBlock",
      value: { TxBlock: block(15), TxHashes: [["1b".repeat(32)]] },
    })
    assert.equal(await within("stop", client.stop()), true)
    await publish(server, 16)
    await until("the last block", () => client.seen(MessageType.UNSUBSCRIBE).length === 2)
    assert.equal(client.seen(MessageType.NEW_BLOCK).length, 2)
    assert.deepEqual(client.seen(MessageType.UNSUBSCRIBE)[1], { query: "Unsubscribe", value: ["NewBlock"] })
    await publish(server, 17)
    await new Promise((resolve) => setTimeout(resolve, 100))
    assert.equal(client.seen(MessageType.NEW_BLOCK).length, 2)
  })

  withZilliqa("two topics on one socket, both asked for before it is open", {}, async (server, keep) => {
    const client = keep(eventLog(server, A, B))
    const both = [client.subscribe({ query: "NewBlock" }), client.start()]
    assert.deepEqual(await within("both", Promise.all(both)), [true, true])
    await publish(server, 1, { logs: [log(A, "foo1"), log("0".repeat(40), "other")] })
    await publish(server, 2)
    await until("two epochs", () => client.seen(MessageType.EVENT_LOG).length === 2)
    const { address, ...rest } = log(A, "foo1")
    assert.deepEqual(client.seen(MessageType.EVENT_LOG), [
      { query: "EventLog", value: [{ address: A, event_logs: [rest] }] },
      { query: "EventLog" },
    ])
    assert.equal(client.seen(MessageType.NEW_BLOCK).length, 2)
  })

  test("a client comes back to a new server and asks again for all it had", { timeout: TEST_MS }, async () => {
    let server = await Server.start({ config: config() })
    const client = eventLog(server, A, B)
    try {
      await within("start", client.start())
      await within("blocks", client.subscribe({ query: "NewBlock" }))
      const { port } = server
      await server.stop()
      await until("the client's notice", () => client.seen(SocketConnect.RECONNECT).some((it) => it?.code === 1001))
      server = await Server.start({ config: config(), port })
      // The client waits for five seconds before it reconnects.
      await until("the echoes", () => client.seen(StatusType.SUBSCRIBE_NEW_BLOCK).length === 2)
      await publish(server, 1, { logs: [log(B, "again")] })
      await until("an event", () => client.seen(MessageType.EVENT_LOG).some((it) => it.value?.[0].address === B))
      assert.equal(client.seen(MessageType.NEW_BLOCK).length, 1)
    } finally {
      end(client)
      await server.stop()
    }
  })

  withZilliqa("an answer to a ping keeps a silent client", {
    config: config("ping_after_s = 1\nidle_timeout_s = 2"),
  }, async (server, keep) => {
    const client = keep(newBlock(server))
    await within("start", client.start())
    await new Promise((resolve) => setTimeout(resolve, 4000))
    await publish(server, 1)
    await until("a block", () => client.seen(MessageType.NEW_BLOCK).length === 1)
    assert.equal(client.seen(SocketConnect.RECONNECT).filter((it) => it !== undefined).length, 0)
  })

  withZilliqa("long notifications come in frames that the client accepts", {}, async (server, keep) => {
    const client = keep(newBlock(server))
    await within("start", client.start())
    let number = 0
    for (const padding of [500 << 10, 1000 << 10, 1100 << 10, 7 << 20]) {
      await publish(server, ++number, { padding })
      await until(`${padding} bytes`, () => client.seen(MessageType.NEW_BLOCK).length === number)
      const { TxBlock } = client.seen(MessageType.NEW_BLOCK)[number - 1].value
      assert.equal(TxBlock.body.pad.length, padding)
    }
  })

  withZilliqa("an error and the echo of a TxnLog query are uncaught in the client", {}, async (server) => {
    for (const scene of Object.keys(SCENES)) {
      assert.deepEqual(await apart(scene, server), { errors: ["unsupported message type"], settled: false })
    }
  })

  withZilliqa("what the client cannot say, by hand", {}, async (server) => {
    const socket = new WebSocket(server.url("/"))
    const heard = []
    socket.on("message", (data) => heard.push(String(data)))
    await within("open", new Promise((resolve) => socket.on("open", resolve)))
    const query = ` {"addresses" :["0x${A.toUpperCase()}"], "query":"TxnLog"}`
    socket.send(query)
    socket.send('{"query":"EventLog","addresses":[]}')
    await until("answers", () => heard.length === 2)
    assert.deepEqual(heard, [query, '{"type":"Error","error":"invalid addresses field"}'])
    await publish(server, 1, { logs: [log(B, "e")] })
    await until("a notification", () => heard.length === 3)
    assert.deepEqual(JSON.parse(heard[2]).values, [{
      query: "TxnLog",
      value: [{
        address: A,
        log: [{
          ID: "1b".repeat(32),
          amount: "1000",
          fromAddr: "4baf5fada8e5db92c3d3242618c5b47133ae003c",
          success: true,
          toAddr: A,
        }],
      }],
    }])
    socket.close()
  })
}
