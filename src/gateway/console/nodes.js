// The nodes of the server's cluster: a table that is loaded again every few seconds.

const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`

/** The cells of a node's row. */
export function nodeCells({ id, state, release, connections, age_ms, is_own, has_same_settings }) {
  const name = is_own ? `${id} (this one)` : id
  const note = has_same_settings ? "" : "other applications or settings"
  return [name, state, release, String(connections), seconds(age_ms), note]
}

/** Fills the table `body` with a row for each node. */
export function showNodes(body, nodes) {
  const rows = nodes.map((node) => {
    const row = document.createElement("tr")
    row.dataset.state = node.state
    for (const text of nodeCells(node)) row.insertCell().textContent = text
    return row
  })
  body.replaceChildren(...rows)
}
