// A client of Pusher protocol 7 over the browser's WebSocket, and of the signed HTTP API.

import { channelAuth, signedQuery } from "./sign.js"

const RETRY_FIRST_MS = 500
const RETRY_MOST_MS = 10_000
const ANSWER_MS = 10_000
/** Whether a close code forbids a reconnect: 4000 to 4099. */
const isFinal = (code) => code >= 4000 && code < 4100

/** The kind of a channel, from the prefix of its name. */
export function kindOf(name) {
  if (name.startsWith("presence-")) return "presence"
  if (name.startsWith("private-")) return "private"
  return "public"
}

/** Parses JSON; returns a text that is not valid JSON unchanged. */
export function parsed(text) {
  if (typeof text !== "string") return text
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** The position of a message, if its channel has a history. */
const positionOf = ({ stream_id, serial }) => (stream_id ? { stream_id, serial } : undefined)

/**
 * One connection that reconnects automatically, with increasing delays. `app` is
 * `{id, key, secret}`; the secret may be empty. `user` is the member in presence channels. `on` has
 * the callbacks: `state(name, detail)`, `message({event, channel, data, user_id})`, `error(text)`,
 * and `channels()` after any change of the channels or their members.
 */
export class Client {
  constructor(app, prefix, user, on) {
    Object.assign(this, { app, prefix, user, on })
    /**
     * The subscribed channels by name: `{name, state, members, position, resumed}`. A channel with
     * a history has the position of its last event, and `resumed` says how its last resume ended:
     * "recovered" or "gap".
     */
    this.channels = new Map()
    this.socketId = null
    this.wanted = false
    this.retryMs = RETRY_FIRST_MS
  }

  connect() {
    this.wanted = true
    clearTimeout(this.timer)
    this.on.state("connecting")
    const scheme = location.protocol === "https:" ? "wss:" : "ws:"
    const path = `${this.prefix}/app/${encodeURIComponent(this.app.key)}`
    const url = `${scheme}//${location.host}${path}?protocol=7&client=polycast-console&version=1`
    const socket = new WebSocket(url)
    this.socket = socket
    socket.onmessage = ({ data }) => socket === this.socket && this.hear(data)
    socket.onclose = (event) => socket === this.socket && this.closed(event)
  }

  disconnect() {
    this.wanted = false
    clearTimeout(this.timer)
    this.socket?.close(1000)
    this.forget()
    this.socket = null
    this.on.state("disconnected")
  }

  /** Drops the connection, and connects again after `ms`: channels with a history are resumed. */
  drop(ms) {
    this.retryMs = ms
    this.socket?.close(3000)
  }

  forget() {
    clearTimeout(this.silence)
    this.socketId = null
    for (const channel of this.channels.values()) {
      channel.state = "waiting"
      channel.members.clear()
    }
    this.on.channels()
  }

  closed({ code, reason }) {
    this.forget()
    this.socket = null
    const detail = [code === 1006 ? "" : code, reason].filter(Boolean).join(" ")
    if (!this.wanted) return
    if (isFinal(code)) {
      this.wanted = false
      this.on.state("disconnected", detail)
      this.on.error(`The server closed the connection and refuses a reconnect: ${detail}`)
      return
    }
    this.on.state("waiting", detail)
    this.timer = setTimeout(() => this.connect(), this.retryMs)
    this.retryMs = Math.min(this.retryMs * 2, RETRY_MOST_MS)
  }

  /**
   * Restarts the activity timeout: after `activityMs` without a message it sends a ping, and after
   * `ANSWER_MS` more without a message it closes the connection with 4201.
   */
  listen() {
    clearTimeout(this.silence)
    this.silence = setTimeout(() => {
      this.send("pusher:ping", {})
      this.silence = setTimeout(() => this.socket?.close(4201), ANSWER_MS)
    }, this.activityMs)
  }

  send(event, data, channel) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false
    this.socket.send(JSON.stringify({ event, data, channel }))
    return true
  }

  hear(text) {
    const message = parsed(text)
    if (typeof message !== "object" || message === null) return
    if (this.activityMs) this.listen()
    const channel = this.channels.get(message.channel)
    const data = parsed(message.data)
    switch (message.event) {
      case "pusher:connection_established":
        this.socketId = data.socket_id
        this.activityMs = (data.activity_timeout || 120) * 1000
        this.retryMs = RETRY_FIRST_MS
        this.listen()
        this.on.state("connected", this.socketId)
        this.resume()
        for (const name of this.channels.keys()) this.ask(name)
        return
      case "pusher:ping":
        this.send("pusher:pong", {})
        return
      case "pusher:pong":
        return
      case "pusher:error":
        this.on.error(data?.code ? `${data.message} (${data.code})` : String(data?.message))
        return
      case "pusher_internal:subscription_succeeded":
        if (!channel) return
        channel.state = "subscribed"
        channel.resumed = ""
        if (channel.asked) channel.resumed = message.recovered ? "recovered" : "gap"
        channel.asked = false
        channel.position = positionOf(message)
        channel.members = new Map(Object.entries(data?.presence?.hash ?? {}))
        this.on.channels()
        return
      case "pusher:subscription_error":
        if (!channel) return
        this.channels.delete(channel.name)
        this.on.error(`${channel.name}: ${data?.error ?? "the subscription was refused"}`)
        this.on.channels()
        return
      case "pusher_internal:member_added":
        channel?.members.set(data.user_id, data.user_info)
        this.on.channels()
        break
      case "pusher_internal:member_removed":
        channel?.members.delete(data.user_id)
        this.on.channels()
        break
    }
    if (channel && message.stream_id) channel.position = positionOf(message)
    this.on.message({ ...message, data })
  }

  /** Asks for positions, and to resume after those that are known. The first message. */
  resume() {
    const positions = {}
    for (const channel of this.channels.values()) {
      channel.asked = Boolean(channel.position)
      if (channel.asked) positions[channel.name] = channel.position
    }
    this.send("polycast:resume", { channel_positions: positions })
  }

  subscribe(name) {
    if (this.channels.has(name)) return
    this.channels.set(name, { name, state: "waiting", members: new Map() })
    this.on.channels()
    if (this.socketId) this.ask(name)
  }

  async ask(name) {
    const data = { channel: name }
    const socketId = this.socketId
    try {
      if (kindOf(name) !== "public") {
        if (!this.app.secret) throw new Error("private and presence channels need the app's secret")
        if (kindOf(name) === "presence") data.channel_data = JSON.stringify(this.user)
        data.auth = await channelAuth(this.app, socketId, name, data.channel_data)
      }
      if (this.socketId === socketId && this.channels.has(name)) this.send("pusher:subscribe", data)
    } catch (error) {
      this.channels.delete(name)
      this.on.error(`${name}: ${error.message}`)
      this.on.channels()
    }
  }

  unsubscribe(name) {
    this.channels.delete(name)
    this.send("pusher:unsubscribe", { channel: name })
    this.on.channels()
  }

  /** Sends a signed request to the HTTP API; returns the parsed body, throws on an error status. */
  async request(method, where, parameters, body) {
    const path = `${this.prefix}/apps/${encodeURIComponent(this.app.id)}${where}`
    const text = body === undefined ? undefined : JSON.stringify(body)
    const query = await signedQuery(this.app, method, path, parameters, text)
    const headers = text === undefined ? {} : { "Content-Type": "application/json" }
    const response = await fetch(`${path}?${query}`, { method, headers, body: text })
    const answer = parsed(await response.text())
    if (!response.ok) {
      const error = new Error(`${answer?.error ?? answer} (${response.status})`)
      throw Object.assign(error, { status: response.status })
    }
    return answer
  }

  publish(channel, name, data) {
    return this.request("POST", "/events", {}, { name, channels: [channel], data })
  }

  /** What all cores know of a channel: its names if it is linked, and its history. */
  details(name) {
    return this.request("GET", `/channels/${encodeURIComponent(name)}`, { info: "history,link" })
  }

  /** The occupied channels by name, each with its number of subscriptions or of users. */
  async occupied() {
    const [all, presence] = await Promise.all([
      this.request("GET", "/channels", { info: "subscription_count" }),
      this.request("GET", "/channels", { filter_by_prefix: "presence-", info: "user_count" }),
    ])
    return new Map(Object.entries({ ...all.channels, ...presence.channels }))
  }
}
