// What the server can be asked. Every refusal says what was found, what is needed and what to do.

import type { CaseListed, CaseView, JobState, Said, Vec3 } from "./types.ts";

/** The server refused. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly said: Said,
  ) {
    super(`${said.found}. Needed: ${said.needed}. ${said.do[0]?.toUpperCase() ?? ""}${said.do.slice(1)}.`);
  }
  /** Somebody else changed the case first. */
  get isConflict(): boolean {
    return this.status === 409 || this.said.revision !== undefined;
  }
}

/** The server cannot be reached. */
export class Gone extends Error {
  constructor() {
    super("The server does not answer.");
  }
}

/** This tab, as the server knows it. */
export const session = ((): string => {
  const known = sessionStorage.getItem("session");
  if (known) return known;
  const made = Array.from(crypto.getRandomValues(new Uint8Array(12)), (n) => n.toString(16).padStart(2, "0")).join("");
  sessionStorage.setItem("session", made);
  return made;
})();

async function call(method: string, path: string, body?: unknown): Promise<Response> {
  const headers: Record<string, string> = { "X-Session": session };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer: Response;
  try {
    answer = await fetch(`/api${path}`, { method, headers, body: body === undefined ? null : JSON.stringify(body) });
  } catch {
    throw new Gone();
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer: Response): Promise<Error> {
  try {
    const { error } = (await answer.json()) as { error: Said };
    if (error?.found) return new Refused(answer.status, error);
  } catch {
    // No JSON: said in our own words below.
  }
  const found = `the server answered ${answer.status}`;
  return new Refused(answer.status, { found, needed: "an answer", do: "try again" });
}

export const get = async <T>(path: string): Promise<T> => (await call("GET", path)).json() as Promise<T>;
export const post = async <T>(path: string, body: unknown): Promise<T> =>
  (await call("POST", path, body)).json() as Promise<T>;

export const listCases = (): Promise<CaseListed[]> => get("/cases");
export const openCase = (id: string): Promise<CaseView> => get(`/cases/${encodeURIComponent(id)}`);
export const isUp = async (): Promise<boolean> => {
  try {
    return (await fetch("/api/health", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
};
export const findPlace = async (id: string, scan: number, to: number, at: Vec3): Promise<Vec3 | null> =>
  (await post<{ at: Vec3 | null }>(`/cases/${encodeURIComponent(id)}/place`, { scan, to, at })).at;

/** Asks for a job and waits for its answer; lines of progress are told as they come. */
export async function runJob<T>(path: string, body: unknown, say: (line: string) => void): Promise<T> {
  const begun = await post<JobState>(path, body);
  const over = await followJob(begun.id, say);
  if (over.state === "done") return over.answer as T;
  const said = over.error ?? { found: "the work was cancelled", needed: "nothing", do: "ask for it again" };
  throw new Refused(over.error ? 422 : 499, said);
}

function followJob(id: string, say: (line: string) => void): Promise<JobState> {
  return new Promise((resolve, reject) => {
    const events = new EventSource(`/api/jobs/${encodeURIComponent(id)}/events`);
    events.addEventListener("progress", (event) => say(JSON.parse(event.data as string) as string));
    events.addEventListener("end", (event) => {
      events.close();
      resolve(JSON.parse(event.data as string) as JobState);
    });
    events.onerror = () => {
      // The browser would ask again for ever; a server that was restarted does not know the job.
      events.close();
      get<JobState>(`/jobs/${encodeURIComponent(id)}`).then((state) => {
        if (["done", "failed", "cancelled"].includes(state.state)) resolve(state);
        else setTimeout(() => followJob(id, say).then(resolve, reject), 300);
      }, reject);
    };
  });
}

/** Bytes of a file of the case, told how far it is; the headers say what kind of scan it is. */
export async function fetchBytes(
  path: string,
  tell: (share: number) => void,
): Promise<{ bytes: ArrayBuffer; headers: Headers }> {
  const answer = await call("GET", path);
  const size = Number(answer.headers.get("Content-Length") ?? 0);
  if (!answer.body || !size) return { bytes: await answer.arrayBuffer(), headers: answer.headers };
  const bytes = new Uint8Array(size);
  const reader = answer.body.getReader();
  let at = 0;
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    bytes.set(piece.value, at);
    at += piece.value.length;
    tell(at / size);
  }
  if (at !== size) throw new Gone();
  return { bytes: bytes.buffer, headers: answer.headers };
}

/** Sends scans; `tell` hears which share has been sent. */
export function upload(files: File[], tell: (share: number) => void): Promise<string> {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    for (const file of files) form.append("files", file, file.name);
    const request = new XMLHttpRequest();
    request.open("POST", "/api/uploads");
    request.setRequestHeader("X-Session", session);
    request.upload.onprogress = (event) => tell(event.lengthComputable ? event.loaded / event.total : 0);
    request.onerror = () => reject(new Gone());
    request.onload = () => {
      const answer = new Response(request.responseText, { status: request.status });
      if (request.status < 300) resolve((JSON.parse(request.responseText) as { id: string }).id);
      else void refusal(answer).then(reject);
    };
    request.send(form);
  });
}
