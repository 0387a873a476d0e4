// Questions to the node: with the reader's token, and with word of how the connection is.

const TOKEN = "tuflog-token";
/** How long an answer may take, in milliseconds. */
const PATIENCE = 20_000;

/** An answer that is not a success. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** Whether another token would help. */
  get wantsToken() {
    return this.status === 401 || this.status === 403;
  }
}

/** By how many seconds the node's clock is ahead of this one. */
let ahead = 0;

/** The node's time, in Unix seconds. */
export function now() {
  return Date.now() / 1000 + ahead;
}

/** From now on this token is sent; kept until the tab is closed. */
export function useToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

/** Part of an address: a path with all of its characters, `/` too. */
export function quoted(text) {
  return encodeURIComponent(text);
}

async function refusal(response) {
  const text = await response.text();
  try {
    return new Refusal(response.status, JSON.parse(text).error.message);
  } catch {
    return new Refusal(response.status, `the node answered with status ${response.status}`);
  }
}

/** Asks and answers the response, of which the head has come. Throws a [`Refusal`], or what fetch throws. */
export async function ask(address, { headers = {}, signal } = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const authorization = token ? { authorization: `Bearer ${token}` } : {};
  const response = await fetch(address, { headers: { ...headers, ...authorization }, signal, cache: "no-store" });
  const date = Date.parse(response.headers.get("date") ?? "");
  // The header has whole seconds: half a one on average is lost.
  if (!Number.isNaN(date) && Math.abs(date / 1000 + 0.5 - now()) > 1) ahead = date / 1000 + 0.5 - Date.now() / 1000;
  if (!response.ok) throw await refusal(response);
  return response;
}

/** Asks for JSON. */
export async function get(address) {
  const response = await ask(address, { signal: AbortSignal.timeout(PATIENCE) });
  return response.json();
}
