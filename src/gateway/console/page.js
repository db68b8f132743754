// The user interface of the console: forms and lists for one client. Text from the server is only
// inserted by `textContent`, never as markup.

import { Client, kindOf } from "./client.js"
import { detailLines } from "./details.js"
import { showNodes } from "./nodes.js"
import { canSign } from "./sign.js"
import { ZenithClient } from "./zenith.js"

const EVENTS_MOST = 200
const CHANNELS_MOST = 200
const DATA_MOST = 4000
const ERRORS_MOST = 3
const MEMBERS_MOST = 60
const POLL_MS = 2000
const DETAILS_MOST = 5
/** How long a dropped connection stays away. */
const AWAY_MS = 3000

const $ = (id) => document.getElementById(id)

/** Creates an element with a class, a text, other properties, and children. */
function element(name, { text, className, ...rest } = {}, ...children) {
  const made = document.createElement(name)
  if (className) made.className = className
  if (text !== undefined) made.textContent = text
  for (const [key, value] of Object.entries(rest)) made[key] = value
  made.append(...children)
  return made
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`

// --- state ---

let settings
let client = null
/** The occupied channels of the application by name, from the last response of the HTTP API. */
let occupied = new Map()
/** The channels whose details are open, with what the last response of the HTTP API says. */
const details = new Map()
/** The content of the list of channels as JSON, to skip a redraw without a change. */
let shown = "[]"
/** The number of events that were not shown because the list was paused. */
let missed = 0
/** The number of all events since the list was last cleared. */
let total = 0
let paused = false

// --- errors ---

function fail(text) {
  const close = element("button", { text: "Dismiss", type: "button", className: "plain" })
  const line = element("p", { className: "error" }, element("span", { text }), close)
  close.onclick = () => line.remove()
  const same = [...$("errors").children].find((other) => other.firstChild.textContent === text)
  same?.remove()
  $("errors").append(line)
  while ($("errors").children.length > ERRORS_MOST) $("errors").firstChild.remove()
}

// --- connection ---

function showState(state, detail = "") {
  $("state").dataset.state = state
  const words = { waiting: "reconnecting soon" }
  $("state-name").textContent = words[state] ?? state
  $("state-detail").textContent = detail
  const off = state === "disconnected"
  $("connect").textContent = off ? "Connect" : "Disconnect"
  $("connect").classList.toggle("plain", !off)
  for (const id of ["apps", "key", "secret", "token"]) $(id).disabled = !off
  if ($("protocol")) $("protocol").disabled = !off
  $("drop").hidden = state !== "connected" || zenithChosen() !== null
}

$("drop").onclick = () => client?.drop?.(AWAY_MS)

/** The selected Zenith subprotocol; null if Pusher is selected. */
function zenithChosen() {
  const chosen = $("protocol")?.value ?? "Pusher"
  return chosen === "Pusher" ? null : chosen
}

function showProtocol() {
  const zenith = zenithChosen() !== null
  $("apps-label").hidden = zenith || settings.apps.length < 2
  $("key-label").hidden = $("publishing").hidden = zenith
  $("secret-label").hidden = $("secret-note").hidden = zenith || settings.demo
  $("token-label").hidden = $("token-note").hidden = !zenith
  $("key").required = !zenith
  $("channels-name").textContent = zenith ? "Topics" : "Channels"
  $("channel").value = zenith ? "Zenith/ServerInfo" : "news"
  $("channel").placeholder = zenith ? "Market/Security!ABC.XYZ" : "news, private-a, presence-b"
  $("channel").ariaLabel = `${zenith ? "Topic" : "Channel"} to subscribe to`
  $("channels-empty").textContent = zenith ? "No topic yet." : "No channel has a subscriber."
  const noun = zenith ? "topic" : "channel"
  $("events-empty").textContent = `Subscribe to a ${noun}, and its events appear here.`
}

function connectZenith(protocol) {
  const names = client instanceof ZenithClient ? [...client.channels.keys()] : []
  const access = { path: settings.zenith.path, protocol, token: $("token").value }
  const mine = new ZenithClient(access, {
    state: (state, detail) => client === mine && showState(state, detail),
    message: (message) => client === mine && showEvent(message),
    error: (text) => client === mine && fail(text),
    channels: () => client === mine && showChannels(),
    picture: (channel) => client === mine && pictureChanged(channel),
  })
  client = mine
  occupied = new Map()
  $("errors").replaceChildren()
  showChannels()
  names.forEach((name) => client.subscribe(name))
  client.connect()
}

function connect() {
  const zenith = zenithChosen()
  if (zenith) return connectZenith(zenith)
  const chosen = settings.apps.find((app) => app.id === $("apps").value)
  const key = $("key").value.trim()
  const app = { id: chosen?.key === key ? chosen.id : key, key, secret: $("secret").value }
  const number = Math.floor(Math.random() * 9000) + 1000
  const user = { user_id: `console-${number}`, user_info: { name: `Console ${number}` } }
  const names = client instanceof Client ? [...client.channels.keys()] : []
  const mine = new Client(app, settings.prefix, user, {
    state: (state, detail) => {
      if (client !== mine) return
      showState(state, detail)
      if (state === "connected") poll()
    },
    message: (message) => client === mine && showEvent(message),
    error: (text) => client === mine && fail(text),
    channels: () => client === mine && showChannels(),
  })
  client = mine
  $("errors").replaceChildren()
  if (app.secret && !canSign()) {
    fail("Private channels and publishing need signatures, which work only on https or localhost.")
  }
  names.forEach((name) => client.subscribe(name))
  client.connect()
}

$("connection").onsubmit = (event) => {
  event.preventDefault()
  if (client?.wanted) client.disconnect()
  else connect()
}

$("apps").onchange = () => {
  const app = settings.apps.find((app) => app.id === $("apps").value)
  $("key").value = app?.key ?? ""
  $("secret").value = app?.secret ?? ""
}

// --- channels ---

$("subscribe").onsubmit = (event) => {
  event.preventDefault()
  const name = $("channel").value.trim()
  if (!name) return
  if (!client?.wanted) {
    if (!$("connection").reportValidity()) return
    connect()
  }
  client.subscribe(name)
  $("publish-channel").value = name
  $("channel").select()
}

function countOf(name) {
  const facts = occupied.get(name)
  if (facts?.user_count !== undefined) return plural(facts.user_count, "user")
  if (facts?.subscription_count !== undefined) {
    return plural(facts.subscription_count, "subscription")
  }
  return ""
}

function members(channel) {
  const list = element("ul", { className: "members", ariaLabel: `Members of ${channel.name}` })
  for (const [id, info] of channel.members) {
    const name = typeof info?.name === "string" ? info.name : id
    const isMe = id === client.user.user_id
    const text = isMe ? `${name} (you)` : name
    list.append(element("li", { text, title: id, className: isMe ? "me" : "" }))
  }
  return list
}

function detailsButton(name) {
  const isOpen = details.has(name)
  const button = element("button", { text: "Details", type: "button", className: "plain" })
  button.ariaLabel = `Details of ${name}`
  button.setAttribute("aria-expanded", String(isOpen))
  button.dataset.details = name
  button.onclick = () => {
    if (!details.delete(name)) {
      if (details.size === DETAILS_MOST) details.delete(details.keys().next().value)
      details.set(name, null)
      poll()
    }
    showChannels()
  }
  return button
}

function detailsOf(name) {
  const facts = details.get(name)
  const lines = facts ? detailLines(facts) : [["", "asking the server"]]
  const rows = lines.flatMap(([term, text]) => [
    element("dt", { text: term }), element("dd", { text, className: "mono" }),
  ])
  return element("div", { className: "picture details" }, element("dl", {}, ...rows))
}

/** The position of a channel with a history, and how its last resume has ended. */
function offset({ position, resumed } = {}) {
  const parts = []
  if (position) {
    const title = `Stream ${position.stream_id}, offset ${position.serial}`
    parts.push(element("span", { text: `#${position.serial}`, title, className: "quiet mono" }))
  }
  if (resumed) parts.push(element("span", { text: resumed, className: `resumed ${resumed}` }))
  return parts
}

function channelLine(name) {
  const channel = client?.channels.get(name)
  const button = element("button", {
    text: channel ? "Unsubscribe" : "Subscribe",
    type: "button",
    className: "plain",
    ariaLabel: `${channel ? "Unsubscribe from" : "Subscribe to"} ${name}`,
  })
  button.dataset.channel = name
  button.onclick = () => (channel ? client.unsubscribe(name) : client?.subscribe(name))
  const kindName = client?.kindOf?.(name) ?? kindOf(name)
  const kind = element("span", { text: kindName, className: `kind ${kindName}` })
  const state = channel && channel.state !== "subscribed" ? "waiting" : countOf(name)
  const line = element(
    "li",
    { className: channel ? "mine" : "" },
    element("div", { className: "channel" },
      element("span", { text: name, className: "name mono", title: name }),
      element("span", { className: "row" },
        kind,
        element("span", { text: state, className: "count quiet" }),
        ...offset(channel),
        ...(client?.details ? [detailsButton(name)] : [])),
      button),
  )
  line.dataset.state = channel?.state ?? "foreign"
  if (channel?.members.size) line.append(members(channel))
  if (client?.details && details.has(name)) line.append(detailsOf(name))
  if (client instanceof ZenithClient) {
    const picture = element("div", { className: "picture" })
    pictures.set(name, picture)
    drawPicture(picture, channel?.picture)
    line.append(picture)
  }
  return line
}

/** The elements in which the pictures of topics are drawn, by topic name. */
const pictures = new Map()
/** The names of the topics whose pictures are redrawn in the next animation frame. */
const changed = new Set()

/** Schedules a redraw of a topic's picture: at most one in each animation frame. */
function pictureChanged(channel) {
  if (changed.size === 0) {
    requestAnimationFrame(() => {
      for (const name of changed) {
        const place = pictures.get(name)
        if (place) drawPicture(place, client?.channels.get(name)?.picture)
      }
      changed.clear()
    })
  }
  changed.add(channel.name)
}

function drawPicture(place, picture) {
  if (picture === undefined) return place.replaceChildren()
  if (Array.isArray(picture)) {
    const lines = picture.map((item) => JSON.stringify(item)).join("\n")
    return place.replaceChildren(element("pre", { text: textOf(lines) }))
  }
  if (typeof picture !== "object" || picture === null) {
    return place.replaceChildren(element("pre", { text: textOf(picture) }))
  }
  const members = Object.entries(picture)
  const rows = members.slice(0, MEMBERS_MOST).flatMap(([key, value]) => [
    element("dt", { text: key, className: "mono" }),
    element("dd", { text: textOf(value), className: "mono" }),
  ])
  const more = members.length - rows.length / 2
  if (more > 0) rows.push(element("dt", { text: `and ${plural(more, "member")} more` }))
  place.replaceChildren(element("dl", {}, ...rows))
}

function showChannels() {
  const mine = client ? [...client.channels.keys()] : []
  const others = [...occupied.keys()].filter((name) => !mine.includes(name))
  const names = [...mine.sort(), ...others.sort()]
  // Without a change the list is not replaced: replacing it during a click would lose the click.
  const state = (name) => {
    const { state, members, position, resumed } = client?.channels.get(name) ?? {}
    return [name, countOf(name), state, members, position, resumed, details.has(name), details.get(name)]
  }
  const now = JSON.stringify(names.map(state), (_, it) => (it instanceof Map ? [...it] : it))
  if (now === shown) return
  shown = now
  pictures.clear()
  // The focused button keeps the focus when the list is replaced.
  const { channel: focused, details: unfolded } = document.activeElement?.dataset ?? {}
  $("channels").replaceChildren(...names.slice(0, CHANNELS_MOST).map(channelLine))
  const buttons = [...$("channels").querySelectorAll("button")]
  if (focused) buttons.find((it) => it.dataset.channel === focused)?.focus()
  if (unfolded) buttons.find((it) => it.dataset.details === unfolded)?.focus()
  const option = (value) => element("option", { value })
  $("names").replaceChildren(...names.slice(0, CHANNELS_MOST).map(option))
  $("channels-empty").hidden = names.length > 0
  const cut = names.length > CHANNELS_MOST ? `${CHANNELS_MOST} of ` : ""
  $("channels-count").textContent = names.length ? `${cut}${names.length}` : ""
}

let polling = false
async function poll() {
  const mine = client
  if (polling || document.hidden || !mine?.socketId || !mine.app.secret || !canSign()) return
  if (mine.isBlind) return
  polling = true
  try {
    const found = await mine.occupied()
    if (mine === client) occupied = found
    for (const name of details.keys()) {
      const facts = await mine.details(name)
      if (mine === client && details.has(name)) details.set(name, facts)
    }
  } catch (error) {
    // After a 4xx status the request is not repeated, because it would fail again.
    mine.isBlind = error.status >= 400 && error.status < 500
    if (mine === client && mine.socketId) fail(`The list of channels: ${error.message}`)
  } finally {
    polling = false
  }
  if (mine === client) showChannels()
}

// --- events ---

function textOf(data) {
  if (data === undefined) return ""
  const text = typeof data === "string" ? data : JSON.stringify(data, null, 1)
  const flat = text.length < 160 ? text.replace(/\s*\n\s*/g, " ") : text
  if (flat.length <= DATA_MOST) return flat
  return `${flat.slice(0, DATA_MOST)} … (${flat.length} characters)`
}

function showEvent({ event, channel, data, user_id: user, serial }) {
  total++
  if (paused) {
    missed++
    return showCount()
  }
  const now = new Date()
  const time = now.toTimeString().slice(0, 8) + "." + String(now.getMilliseconds()).padStart(3, "0")
  const at = serial === undefined ? "" : `#${serial}`
  const origin = [channel, at, user].filter(Boolean).join(" · ")
  const line = element(
    "li",
    {},
    element("div", { className: "row" },
      element("span", { text: event, className: "name mono" }),
      element("span", { text: origin, className: "quiet mono" }),
      element("time", { text: time, className: "quiet mono", dateTime: now.toISOString() })),
  )
  const text = textOf(data)
  if (text) line.append(element("pre", { text }))
  $("events").prepend(line)
  while ($("events").children.length > EVENTS_MOST) $("events").lastChild.remove()
  showCount()
}

function showCount() {
  const shown = $("events").children.length
  const parts = [total > shown + missed ? `${shown} of ${total}` : shown || ""]
  if (missed) parts.push(`${missed} not shown`)
  $("events-count").textContent = parts.filter(Boolean).join(", ")
  $("events-empty").hidden = shown > 0
}

$("clear").onclick = () => {
  $("events").replaceChildren()
  total = missed = 0
  showCount()
}

$("pause").onclick = () => {
  paused = !paused
  $("pause").setAttribute("aria-pressed", String(paused))
}

// --- publishing ---

$("publish").onsubmit = async (event) => {
  event.preventDefault()
  $("published").textContent = ""
  const [channel, name] = [$("publish-channel").value.trim(), $("publish-event").value.trim()]
  const data = $("publish-data").value
  if (!client?.wanted) connect()
  try {
    if (!client.app.secret) throw new Error("publishing needs the app's secret")
    if (!canSign()) throw new Error("publishing needs signatures: https or localhost only")
    await client.publish(channel, name, data)
    $("published").textContent = `published at ${new Date().toTimeString().slice(0, 8)}`
  } catch (error) {
    fail(`Publish: ${error.message}`)
  }
}

$("publish-data").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault()
    $("publish").requestSubmit()
  }
}

// --- the server ---

/** Loads data of the page from the server. */
async function load(name) {
  // The token stays in the page's URL, so that the page can be reloaded.
  const token = new URLSearchParams(location.search).get("token")
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` }
  const response = await fetch(new URL(name, import.meta.url), { headers })
  if (!response.ok) throw new Error(`${(await response.text()).trim()} (${response.status})`)
  return response.json()
}

async function loadNodes() {
  if (document.hidden) return
  try {
    const { nodes } = await load("nodes")
    showNodes($("nodes-list"), nodes)
    $("nodes-count").textContent = String(nodes.length)
    $("nodes").hidden = false
  } catch (error) {
    fail(`Nodes: ${error.message}`)
  }
}

// --- start ---

async function start() {
  settings = await load("settings")
  $("version").textContent = settings.version
  $("demo").hidden = !settings.demo
  for (const { id, name } of settings.apps) {
    $("apps").append(element("option", { value: id, text: name ? `${name} (${id})` : id }))
  }
  $("apps").onchange()
  // If the server has Zenith, it is preselected; otherwise the choice of the protocol is removed.
  if (!settings.zenith) $("protocol-label").remove()
  else $("protocol").value = "ZenithJson"
  if (settings.zenith && settings.apps.length === 0) $("protocol").firstElementChild.remove()
  if ($("protocol")) $("protocol").onchange = showProtocol
  showProtocol()
  $("publish-data").value = '{"hello": "world"}'
  setInterval(poll, POLL_MS)
  if (settings.cluster) {
    loadNodes()
    setInterval(loadNodes, POLL_MS)
  }
  document.onvisibilitychange = poll
  if (settings.demo) {
    connect()
    client.subscribe("news")
  }
}

start().catch((error) => fail(`The page cannot start: ${error.message}`))
