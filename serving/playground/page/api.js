// Talking to the server this page came from, and what can go wrong in words a person can act on.

const KEY = "genrec.key"; // in this tab's session only, never in the address or on disk for good

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

// `kind` is what the page does about it: auth, overload, timeout, refused (the request), gone (no server), failed.
export class Failure extends Error {
  constructor(kind, message, more = {}) {
    super(message);
    this.kind = kind;
    this.code = more.code ?? null;
    this.param = more.param ?? null;
    this.status = more.status ?? 0;
    this.retryAfter = more.retryAfter ?? 0;
    this.requestId = more.requestId ?? null;
  }
}

const KINDS = { 401: "auth", 403: "auth", 408: "timeout", 429: "overload", 503: "overload", 504: "timeout" };

// Returns {data, ms}; throws a Failure, or an AbortError where `signal` says that nobody waits any more.
export async function call(path, { body, signal } = {}) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  const start = performance.now();
  let answer;
  let data;
  try {
    answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "omit",
      cache: "no-store",
    });
    data = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (answer && !(error instanceof TypeError)) {
      throw new Failure("failed", "The server answered with something that is not JSON.", { status: answer.status });
    }
    throw new Failure("gone", "The server cannot be reached.");
  }
  if (answer.ok) return { data, ms: performance.now() - start };
  const error = data.error ?? {};
  const kind = KINDS[answer.status] ?? (answer.status >= 500 ? "failed" : "refused");
  throw new Failure(kind, error.message ?? `The server answered with status ${answer.status}.`, {
    code: error.code,
    param: error.param,
    status: answer.status,
    retryAfter: Number(answer.headers.get("retry-after") ?? 0),
    requestId: answer.headers.get("x-request-id"),
  });
}
