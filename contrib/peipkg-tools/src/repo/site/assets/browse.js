// Search and the pages of the packages, in the browser. This one file runs twice: in the page it
// shows things, in a worker it reads the indexes. An index of many packages takes a second to read,
// and the page must not freeze meanwhile.
//
// Every text comes from a package, whose author may be hostile. Text becomes text nodes and
// attributes, never markup; a link is made only by `webLink` and `packageUrl`.
"use strict";

// ---- The worker: reads the indexes and answers questions about them -------------------------------

function answerQuestions() {
  const indexes = new Map();

  const text = (value) => (typeof value === "string" ? value : "");
  const list = (value) => (Array.isArray(value) ? value : []);
  const size = (value) => (Number.isFinite(value) && value >= 0 ? value : null);
  const isPackage = (entry) =>
    entry !== null && typeof entry === "object" && text(entry.name) !== "" && text(entry.version) !== "";

  // What the page shows of an entry. Anything may be in an entry that another tool has written.
  function shown(entry) {
    const build = entry.build ?? {};
    return {
      name: entry.name,
      version: entry.version,
      architecture: text(entry.architecture),
      description: text(entry.description),
      license: text(entry.license),
      homepage: text(entry.homepage),
      url: text(entry.url),
      hash: text(entry.hash?.value),
      download: size(entry.size_compressed),
      installed: size(entry.size_installed),
      built: text(build.timestamp),
      farm: text(build.farm_id),
    };
  }

  function relations(value) {
    const whole = list(value).filter(
      (one) => one !== null && typeof one === "object" && text(one.name) !== "",
    );
    return whole.map((one) => ({
      name: one.name,
      constraint: text(one.constraint) || text(one.version),
      arch: text(one.arch),
      root: text(one.root),
    }));
  }

  async function fetchIndex(kind) {
    const answer = await fetch(new URL(`../index/${kind}.json`, self.location.href), { cache: "no-cache" });
    if (!answer.ok) throw new Error(`index/${kind}.json: the server answers ${answer.status}`);
    const index = await answer.json();
    return { index, packages: list(index?.packages).filter(isPackage) };
  }

  async function readActive() {
    const { index, packages } = await fetchIndex("active");
    packages.sort((one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : 0));
    const names = packages.map((entry) => entry.name.toLowerCase());
    const texts = packages.map((entry, place) =>
      [names[place], text(entry.description), text(entry.license), text(entry.architecture)]
        .join("\n")
        .toLowerCase(),
    );
    const time = packages.map((entry) => Date.parse(text(entry.build?.timestamp)) || 0);
    const newest = packages
      .map((_, place) => place)
      .sort((one, other) => time[other] - time[one] || one - other);
    return {
      packages,
      names,
      texts,
      newest,
      version: size(index.index_version),
      published: text(index.generated_at),
    };
  }

  // The links between packages: who requires a name, who provides it.
  async function readLinks() {
    const { packages } = await indexOf("active");
    const required = new Map();
    const provided = new Map();
    const add = (map, key, value) => (map.has(key) ? map.get(key).push(value) : map.set(key, [value]));
    packages.forEach((entry, place) => {
      for (const [kind, field] of [
        ["", entry.dependencies],
        ["optional", entry.optional_dependencies],
      ]) {
        for (const one of relations(field))
          add(required, one.name, { place, kind, constraint: one.constraint });
      }
      for (const one of relations(entry.provides)) add(provided, one.name, entry.name);
    });
    return { required, provided, known: new Set(packages.map((entry) => entry.name)) };
  }

  // All versions, and how many packages each directory has: that decides the names of sidecars.
  async function readArchive() {
    const { packages } = await fetchIndex("archive");
    const versions = new Map();
    const directories = new Map();
    for (const entry of packages) {
      if (versions.has(entry.name)) versions.get(entry.name).push(entry);
      else versions.set(entry.name, [entry]);
      const directory = directoryOf(text(entry.url));
      directories.set(directory, (directories.get(directory) ?? 0) + 1);
    }
    return { versions, directories };
  }

  // Reads each once. A failure is not kept, so that the next question tries again.
  function indexOf(kind) {
    if (!indexes.has(kind)) {
      const read = { active: readActive, archive: readArchive, links: readLinks }[kind]();
      indexes.set(kind, read);
      read.catch(() => indexes.delete(kind));
    }
    return indexes.get(kind);
  }

  async function search({ query, from, count }) {
    const { packages, names, texts, newest, version, published } = await indexOf("active");
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    let found = newest;
    if (words.length > 0) {
      // The name itself, names that begin with the first word, names with all words, then texts.
      const ranks = [[], [], [], []];
      const whole = words.join(" ");
      for (let place = 0; place < texts.length; place++) {
        if (!words.every((word) => texts[place].includes(word))) continue;
        const name = names[place];
        const inName = words.every((word) => name.includes(word));
        ranks[name === whole ? 0 : inName && name.startsWith(words[0]) ? 1 : inName ? 2 : 3].push(place);
      }
      found = ranks.flat();
    }
    const rows = found.slice(from, from + count).map((place) => shown(packages[place]));
    return { rows, total: found.length, all: packages.length, version, published };
  }

  function whole(entry) {
    return {
      ...shown(entry),
      dependencies: relations(entry.dependencies),
      optional: relations(entry.optional_dependencies),
      conflicts: relations(entry.conflicts),
      replaces: relations(entry.replaces),
      provides: relations(entry.provides),
    };
  }

  // The current version of a package, who requires it, and who provides what any version of it
  // needs.
  async function details({ name }) {
    const [{ packages, version, published }, { required }] = await Promise.all([
      indexOf("active"),
      indexOf("links"),
    ]);
    const current = packages.find((entry) => entry.name === name);
    const names = new Set([name, ...relations(current?.provides).map((one) => one.name)]);
    const requiredBy = [...names].flatMap((needed) =>
      (required.get(needed) ?? []).map((one) => ({
        name: packages[one.place].name,
        constraint: one.constraint,
        kind: one.kind,
        through: needed === name ? "" : needed,
      })),
    );
    const others = requiredBy.filter((one) => one.name !== name);
    return { current: current && whole(current), requiredBy: others, version, published };
  }

  // Which packages have these names, or provide them.
  async function providers({ names }) {
    const { provided, known } = await indexOf("links");
    return new Map(
      names.map((name) => [
        name,
        { known: known.has(name), providers: [...new Set(provided.get(name) ?? [])] },
      ]),
    );
  }

  // All versions of a package, newest first, and whether each shares its directory with another
  // package.
  async function versions({ name }) {
    const archive = await indexOf("archive");
    return (archive.versions.get(name) ?? []).map((entry) => ({
      ...whole(entry),
      shared: archive.directories.get(directoryOf(text(entry.url))) > 1,
    }));
  }

  self.onmessage = async ({ data }) => {
    try {
      self.postMessage({
        id: data.id,
        answer: await { search, details, providers, versions }[data.ask](data),
      });
    } catch (error) {
      self.postMessage({ id: data.id, error: String(error?.message ?? error) });
    }
  };
}

// ---- Shared ---------------------------------------------------------------------------------------

function directoryOf(url) {
  return url.slice(0, url.lastIndexOf("/") + 1);
}

// ---- The page -------------------------------------------------------------------------------------

function browse() {
  const PAGE = 50; // rows that are added at a time: thousands would freeze the page
  const MOST = 500; // entries of a directory, or links of a kind, that are shown
  const base = new URL(".", location.href.split(/[?#]/)[0]).href;
  const at = (id) => document.getElementById(id);
  const title = document.title;

  // Makes an element. Strings become text.
  function el(tag, attributes, ...content) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...content.filter((one) => one !== null && one !== false && one !== ""));
    return element;
  }
  const said = (text, tag = "bdi") => (text === "" ? null : el(tag, null, text));

  // ---- Links

  // The address if it is a web address, else null.
  function webLink(text) {
    if (!/^https?:\/\/[^/?#:][^]*$/i.test(text) || /[\p{Cc}\p{Cf}\s\\]/u.test(text)) return null;
    try {
      const url = new URL(text);
      return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
    } catch {
      return null;
    }
  }

  // The address of a file that an index names: below the repository, or a web address.
  function packageUrl(url) {
    if (webLink(url)) return webLink(url);
    const segments = url.replace(/^\//, "").split("/");
    if (/^[^/]*:/.test(url) || /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}?#\\]/u.test(url)) return null;
    if (segments.some((one) => one === "" || one.startsWith("."))) return null;
    const encoded = segments.map(encode);
    return encoded.includes(null) ? null : base + encoded.join("/");
  }

  // Percent-encodes a text, or returns null for half a surrogate pair, which no URL can hold.
  function encode(text) {
    try {
      return encodeURIComponent(text);
    } catch {
      return null;
    }
  }

  const route = (...parts) => `#/p/${parts.map((part) => encode(part) ?? "").join("/")}`;

  function outside(text, label) {
    const href = webLink(text);
    return href ? el("a", { href, rel: "noopener noreferrer" }, label ?? text) : said(text);
  }

  function download(found, label, name) {
    const href = packageUrl(found.url);
    return (
      href && el("a", { href, rel: "noopener noreferrer", download: true, "aria-label": name ?? null }, label)
    );
  }

  // ---- Words

  // PSD-009 §2.1. Any other name must not get into a command that people copy.
  const isName = (name) => /^[a-z0-9](?!.*[-.]{2})[a-z0-9.+-]{0,62}[a-z0-9+]$/.test(name);

  function bytes(count) {
    if (count === null) return "";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    let value = count;
    for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
    return `${unit === 0 || value >= 9.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
  }

  function time(text) {
    const date = new Date(text);
    if (text === "" || Number.isNaN(date.getTime())) return said(text);
    return el("time", { datetime: text, title: `${text}, ${ago(date)}` }, date.toISOString().slice(0, 10));
  }

  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

  function ago(date) {
    const seconds = (date.getTime() - Date.now()) / 1000;
    for (const [unit, length] of [
      ["year", 31557600],
      ["month", 2629800],
      ["day", 86400],
      ["hour", 3600],
      ["minute", 60],
    ]) {
      if (Math.abs(seconds) >= length) return words.format(Math.trunc(seconds / length), unit);
    }
    return "just now";
  }

  const shorten = (text, most) => {
    const characters = text.length > most ? [...text] : [];
    return characters.length > most ? `${characters.slice(0, most).join("")}…` : text;
  };

  const counted = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

  // ---- Copying

  function copyButton(source, what) {
    const button = el("button", { type: "button", "aria-label": `Copy: ${what}` }, "Copy");
    button.addEventListener("click", async () => {
      let copied = true;
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch {
        // A page over plain HTTP has no clipboard, but it may copy what is selected.
        getSelection().selectAllChildren(source);
        copied = document.execCommand("copy");
      }
      button.textContent = copied ? "Copied" : "Press Ctrl+C";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    return button;
  }

  // The command that installs a package, with its button; nothing for a name that is none.
  function installCommand(name) {
    if (!isName(name)) return [];
    const command = el("code", null, `peipkg install ${name}`);
    return [command, copyButton(command, `peipkg install ${name}`)];
  }

  // ---- Questions to the workers

  // Starts a worker, and returns the function that asks it.
  function startWorker(script) {
    const worker = new Worker(script);
    const questions = new Map();
    let lastId = 0;
    worker.onmessage = ({ data }) => {
      const { resolve, reject } = questions.get(data.id);
      questions.delete(data.id);
      if (data.error === undefined) resolve(data.answer);
      else reject(new Error(data.error));
    };
    worker.onerror = () => {
      for (const { reject } of questions.values()) reject(new Error("the script could not be started"));
      questions.clear();
    };
    return (question, values) =>
      new Promise((resolve, reject) => {
        questions.set(++lastId, { resolve, reject });
        worker.postMessage({ id: lastId, ask: question, ...values });
      });
  }

  const policy = globalThis.trustedTypes?.createPolicy("browse-worker", { createScriptURL: (url) => url });
  const source = document.currentScript.src;
  const script = policy ? policy.createScriptURL(source) : source;
  let askActive = null;
  let askArchive = null;
  const ask = (question, values) => (askActive ??= startWorker(script))(question, values);
  // The archive index may be long. In a worker of its own it delays no search.
  const askVersions = (name) => (askArchive ??= startWorker(script))("versions", { name });

  function notice(text) {
    at("notice").textContent = text;
    at("notice").hidden = text === "";
  }

  // ---- The list

  let wanted = null; // the query that the list must show
  let listed = null; // the query that it shows
  let asking = false;

  // One element of the list. `page.rs` makes the same without JavaScript.
  function row(found) {
    const facts = [
      said(found.license),
      found.download !== null && `${bytes(found.download)} to download`,
      found.installed !== null && `${bytes(found.installed)} installed`,
      found.built && el("span", null, "built ", time(found.built), found.farm && " by ", said(found.farm)),
    ].filter(Boolean);
    return el(
      "li",
      { class: "package" },
      el(
        "p",
        { class: "line" },
        el("a", { class: "name", href: route(found.name) }, said(shorten(found.name, 100))),
        " ",
        said(shorten(found.version, 100)) && el("bdi", { class: "version" }, shorten(found.version, 100)),
        " ",
        found.architecture && el("bdi", { class: "arch" }, shorten(found.architecture, 40)),
      ),
      found.description && el("p", { class: "text" }, said(shorten(found.description, 300))),
      facts.length > 0 ? el("p", { class: "facts" }, ...facts.map((fact) => el("span", null, fact))) : null,
      el(
        "p",
        { class: "install" },
        ...installCommand(found.name),
        el(
          "span",
          { class: "links" },
          webLink(found.homepage) && outside(found.homepage, "homepage"),
          download(found, "download"),
        ),
      ),
    );
  }

  async function show(query) {
    wanted = query;
    // While the worker is busy only the last of several queries is worth an answer.
    if (asking) return;
    asking = true;
    try {
      while (listed !== wanted) {
        const now = wanted;
        const found = await ask("search", { query: now, from: 0, count: PAGE });
        if (now === wanted) {
          fill(now, found);
          listed = now;
        }
      }
      notice("");
    } catch (error) {
      wanted = null;
      notice(`The index cannot be read: ${error.message}. Below is the list from when the page was made.`);
    } finally {
      asking = false;
    }
  }

  function fill(query, found) {
    const searched = query.trim() !== "";
    at("list").replaceChildren(...found.rows.map(row));
    at("about").hidden = searched;
    at("front").classList.toggle("with-about", !searched);
    at("packages-title").textContent = searched ? "Results" : "Newest packages";
    at("status").textContent = searched
      ? `${counted(found.total, "package", "packages")} of ${found.all.toLocaleString("en")}`
      : counted(found.all, "package", "packages");
    at("more").hidden = found.rows.length >= found.total;
    describeIndex(found);
  }

  async function showMore() {
    const query = listed;
    const found = await ask("search", { query, from: at("list").children.length, count: PAGE }).catch(
      () => null,
    );
    if (query !== listed || found === null) return;
    const rows = found.rows.map(row);
    at("list").append(...rows);
    at("more").hidden = rows.length === 0 || at("list").children.length >= found.total;
    rows[0]?.querySelector("a").focus();
  }

  // The index may be newer than the page.
  function describeIndex({ version, published }) {
    if (version !== null) at("index-version").textContent = String(version);
    const date = new Date(published);
    if (published === "" || Number.isNaN(date.getTime())) return;
    at("published").dateTime = published;
    at("published").textContent = `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
    at("age").textContent = ` (${ago(date)})`;
  }

  // ---- The page of a package

  let opened = 0;
  const same = (one, other) => one.version === other.version && one.architecture === other.architecture;

  async function open(name, version, architecture) {
    const current = ++opened;
    const isCurrent = () => current === opened;
    const article = at("package");
    const heading = el("h1", { id: "package-title", tabindex: "-1" }, said(name));
    const back = el("p", null, el("a", { href: listRoute() }, "← All packages"));
    article.replaceChildren(back, heading, el("p", { class: "quiet" }, "Loading…"));
    document.title = `${shorten(name, 100)} – ${title}`;
    at("front").hidden = true;
    article.hidden = false;
    scrollTo(0, 0);
    heading.focus({ preventScroll: true });
    const archive = askVersions(name).catch((error) => ({ error: error.message }));
    let found;
    try {
      found = await ask("details", { name });
    } catch (error) {
      if (isCurrent())
        article.replaceChildren(
          back,
          heading,
          el("p", { class: "notice" }, `The index cannot be read: ${error.message}.`),
        );
      return;
    }
    describeIndex(found);
    const wanted = version === undefined ? found.current : { version, architecture };
    let shown = found.current && same(found.current, wanted) ? found.current : null;
    if (shown === null) {
      const all = await archive;
      shown = all.error ? null : (all.find((one) => (wanted ? same(one, wanted) : true)) ?? null);
      if (isCurrent() && shown === null) {
        const reason = all.error
          ? `The archive index cannot be read: ${all.error}.`
          : "There is no such package in the index.";
        article.replaceChildren(
          back,
          heading,
          el("p", { class: "notice" }, reason),
          all.length > 0 ? versions(all, null) : "",
        );
      }
    }
    if (!isCurrent() || shown === null) return;
    const related = [...shown.dependencies, ...shown.optional, ...shown.conflicts, ...shown.replaces];
    const known = await ask("providers", { names: related.map((one) => one.name) });
    if (!isCurrent()) return;
    heading.append(
      " ",
      el("bdi", { class: "version" }, shown.version),
      " ",
      shown.architecture && el("bdi", { class: "arch" }, shown.architecture),
    );
    const provenance = el("dl", { class: "details" });
    const history = el(
      "section",
      { "aria-labelledby": "versions-title" },
      el("h2", { id: "versions-title" }, "Versions"),
      el("p", { class: "quiet" }, "Loading…"),
    );
    const files = el(
      "section",
      { "aria-labelledby": "files-title" },
      el("h2", { id: "files-title" }, "Files"),
      el("p", { class: "quiet" }, "Loading…"),
    );
    article.replaceChildren(
      ...[
        back,
        heading,
        shown.description && el("p", { class: "lead" }, said(shown.description)),
        isName(name) && el("p", { class: "install" }, ...installCommand(name)),
        found.current &&
          !same(shown, found.current) &&
          el(
            "p",
            { class: "notice" },
            "This is not the current version. ",
            el("a", { href: route(name) }, "Show the current one"),
            ".",
          ),
        facts(shown, provenance),
        el(
          "div",
          { class: "columns" },
          relationSection("Depends on", shown.dependencies, known, "It depends on no other package."),
          requiredSection(found.requiredBy),
          relationSection("Works with", shown.optional, known),
          relationSection("Conflicts with", shown.conflicts, known),
          relationSection("Replaces", shown.replaces, known),
          relationSection("Provides", shown.provides, known),
        ),
        history,
        files,
      ].filter(Boolean),
    );
    heading.focus({ preventScroll: true });
    const all = await archive;
    if (!isCurrent()) return;
    history.replaceWith(
      all.error
        ? el("p", { class: "notice" }, `Older versions cannot be shown: ${all.error}.`)
        : versions(all, shown),
    );
    const shared = !all.error && all.some((one) => same(one, shown) && one.shared);
    loadSidecars(shown, shared, files, provenance, isCurrent);
  }

  function facts(shown, provenance) {
    const all = [
      ["Licence", said(shown.license)],
      ["Homepage", outside(shown.homepage)],
      [
        "Size",
        [
          shown.download !== null && `${bytes(shown.download)} to download`,
          shown.installed !== null && `${bytes(shown.installed)} installed`,
        ]
          .filter(Boolean)
          .join(", "),
      ],
      ["Built", shown.built && el("span", null, time(shown.built), shown.farm && " by ", said(shown.farm))],
      ["Package", download(shown, shorten(shown.url.split("/").pop(), 200) || "download") ?? said(shown.url)],
      ["SHA-256", shown.hash && el("code", { class: "fingerprint" }, shown.hash)],
    ];
    for (const [term, value] of all) if (value) pair(provenance, term, value);
    return el(
      "section",
      { "aria-labelledby": "facts-title" },
      el("h2", { id: "facts-title" }, "Details"),
      provenance,
    );
  }

  function pair(terms, term, value) {
    terms.append(el("dt", null, term), el("dd", null, value));
  }

  // A list that is cut where it would freeze the page.
  function cut(items, make, kind) {
    const shown = items.slice(0, MOST).map(make);
    const rest = items.length - shown.length;
    return rest > 0 ? [...shown, el("li", { class: "quiet" }, `and ${counted(rest, ...kind)} more`)] : shown;
  }

  function packageLink(name) {
    return el("a", { href: route(name) }, said(name));
  }

  function relationSection(heading, relations, known, none) {
    if (relations.length === 0 && !none) return null;
    const item = (one) => {
      const found = known.get(one.name) ?? { known: false, providers: [] };
      const content = [found.known ? packageLink(one.name) : said(one.name)];
      if (one.constraint) content.push(" ", said(one.constraint, "code"));
      if (one.arch) content.push(" ", el("bdi", { class: "arch" }, one.arch));
      if (one.root) content.push(" in root ", said(one.root, "code"));
      if (!found.known && found.providers.length > 0) {
        content.push(
          ", provided by ",
          ...found.providers
            .slice(0, 10)
            .flatMap((name, place) => (place ? [", ", packageLink(name)] : [packageLink(name)])),
        );
      }
      return el("li", null, ...content);
    };
    return el(
      "section",
      null,
      el("h2", null, heading),
      relations.length > 0
        ? el("ul", { class: "relations" }, ...cut(relations, item, ["package", "packages"]))
        : el("p", { class: "quiet" }, none),
    );
  }

  function requiredSection(requiredBy) {
    const item = (one) =>
      el(
        "li",
        null,
        packageLink(one.name),
        one.constraint && " ",
        said(one.constraint, "code"),
        one.through && " for ",
        said(one.through),
        one.kind && " (optional)",
      );
    return el(
      "section",
      null,
      el("h2", null, "Required by"),
      requiredBy.length > 0
        ? el("ul", { class: "relations" }, ...cut(requiredBy, item, ["package", "packages"]))
        : el("p", { class: "quiet" }, "No other package here requires it."),
    );
  }

  function versions(all, shown) {
    const line = (one) =>
      el(
        "tr",
        { "aria-current": shown && same(one, shown) ? "true" : false },
        el("td", null, el("a", { href: route(one.name, one.version, one.architecture) }, said(one.version))),
        el("td", null, said(one.architecture)),
        el("td", null, bytes(one.download)),
        el("td", null, time(one.built)),
        el("td", null, download(one, "download", `download ${one.version} ${one.architecture}`)),
      );
    const head = ["Version", "Architecture", "Size", "Built", "Download"].map((name) =>
      el("th", { scope: "col" }, name),
    );
    const rest = all.length - MOST;
    return el(
      "section",
      { "aria-labelledby": "versions-title" },
      el("h2", { id: "versions-title" }, "Versions"),
      el(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "versions-title" },
        el(
          "table",
          null,
          el("thead", null, el("tr", null, ...head)),
          el("tbody", null, ...all.slice(0, MOST).map(line)),
        ),
      ),
      rest > 0
        ? el("p", { class: "quiet" }, `and ${counted(rest, "older version", "older versions")}`)
        : null,
    );
  }

  // ---- What lies beside a package

  async function fetchJson(url) {
    const answer = await fetch(url, { cache: "no-cache" });
    return answer.ok ? answer.json() : null;
  }

  // A package alone in its directory has `manifest.json` beside it, others
  // `<package>.manifest.json`. The manifest tells which package it is of: an older publish may have
  // left another's.
  async function loadSidecars(shown, shared, section, provenance, isCurrent) {
    const url = packageUrl(shown.url);
    const none = (text) =>
      isCurrent() && section.replaceChildren(section.firstChild, el("p", { class: "quiet" }, text));
    if (url === null || !url.startsWith(new URL("/", base).href)) {
      return none("The package file is at another address, so its list of files is not here.");
    }
    const prefixes = [directoryOf(url), `${url}.`];
    if (shared) prefixes.reverse();
    for (const prefix of prefixes) {
      const manifest = await fetchJson(`${prefix}manifest.json`).catch(() => null);
      if (
        manifest === null ||
        ["name", "version", "architecture"].some((field) => manifest[field] !== shown[field])
      )
        continue;
      const files = await fetchJson(`${prefix}files.json`).catch(() => null);
      if (!isCurrent()) return undefined;
      showSource(provenance, manifest.build?.source_ref);
      if (!Array.isArray(files?.entries)) break;
      const entries = files.entries.filter((entry) => typeof entry?.path === "string");
      if (entries.length === 0) return none("It has no files.");
      const root = treeOf(entries);
      section.replaceChildren(
        section.firstChild,
        el("p", { class: "quiet" }, counted(entries.length, "file", "files")),
        el("ul", { class: "tree" }, ...branches(root, entries.length <= 60)),
      );
      return undefined;
    }
    return none("The list of its files is not in this repository.");
  }

  // The source reference of a build, such as git+https://example.org/x#refs/tags/v1.
  function showSource(provenance, reference) {
    if (typeof reference !== "string" || reference === "") return;
    const [address, ref] = reference.split(/#(.*)/s);
    pair(provenance, "Source", outside(address.replace(/^git\+/, "")) ?? said(reference));
    const tag = ref?.replace(/^refs\/tags\//, "") ?? "";
    if (tag !== "") pair(provenance, ref === tag ? "Commit or branch" : "Tag", said(tag, "code"));
  }

  function treeOf(entries) {
    const root = { directories: new Map(), files: [], count: 0 };
    for (const { path, size } of entries) {
      const parts = path.split("/").filter(Boolean);
      let node = root;
      node.count++;
      for (const part of parts.slice(0, -1)) {
        if (!node.directories.has(part))
          node.directories.set(part, { directories: new Map(), files: [], count: 0 });
        node = node.directories.get(part);
        node.count++;
      }
      node.files.push([parts.at(-1) ?? path, Number.isFinite(size) ? size : null]);
    }
    return root;
  }

  // The elements of a directory. Those of its directories are made when they are opened.
  function branches(node, isOpen) {
    const children = [
      ...[...node.directories].map((one) => [true, ...one]),
      ...node.files.map((one) => [false, ...one]),
    ];
    return cut(
      children,
      ([isDirectory, name, inside]) => {
        if (!isDirectory)
          return el(
            "li",
            null,
            said(name),
            inside === null ? null : el("span", { class: "size" }, bytes(inside)),
          );
        // A directory with nothing but a directory is not worth a click.
        let [label, only] = [name, inside];
        while (only.files.length === 0 && only.directories.size === 1) {
          const [[next, below]] = only.directories;
          [label, only] = [`${label}/${next}`, below];
        }
        const below = el("ul");
        const details = el(
          "details",
          null,
          el(
            "summary",
            null,
            said(`${label}/`),
            el("span", { class: "size" }, counted(only.count, "file", "files")),
          ),
          below,
        );
        const grow = () => below.children.length === 0 && below.append(...branches(only, isOpen));
        details.addEventListener("toggle", grow);
        if (isOpen) {
          details.open = true;
          grow();
        }
        return el("li", null, details);
      },
      ["entry", "entries"],
    );
  }

  // ---- Routes: #/ and #/?q=QUERY are the list, #/p/NAME[/VERSION/ARCHITECTURE] a package

  const search = at("search");
  let left = { y: 0, href: "" }; // where the list was left

  const listRoute = () => (search.value.trim() === "" ? "#/" : `#/?q=${encode(search.value) ?? ""}`);

  function readRoute() {
    const [path, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
    const parts = path.split("/").map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return "";
      }
    });
    if (parts[0] === "p" && parts[1])
      return { name: parts[1], version: parts[2], architecture: parts[3] ?? "" };
    return { query: new URLSearchParams(query ?? "").get("q") ?? "" };
  }

  function follow() {
    const { name, version, architecture, query } = readRoute();
    if (name !== undefined) {
      if (at("package").hidden) left = { y: scrollY, href: route(name) };
      open(name, version, architecture);
      return;
    }
    const returns = !at("package").hidden;
    opened++;
    at("package").hidden = true;
    at("front").hidden = false;
    document.title = title;
    if (document.activeElement !== search && search.value !== query) search.value = query;
    show(search.value);
    if (returns && document.activeElement !== search) {
      scrollTo(0, left.y);
      [...at("list").querySelectorAll("a.name")]
        .find((link) => link.hash === left.href)
        ?.focus({ preventScroll: true });
    }
  }

  let writing = 0;
  function onType() {
    if (!at("package").hidden) {
      location.hash = listRoute();
      return;
    }
    show(search.value);
    // Browsers refuse an address that changes at every key.
    clearTimeout(writing);
    writing = setTimeout(() => at("package").hidden && history.replaceState(null, "", listRoute()), 300);
  }

  // ---- Keys

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const target = event.target;
    const inText = target.matches?.("input, textarea, select");
    const links = [...at("list").querySelectorAll("a.name")];
    const place = links.indexOf(target);
    const onList = at("package").hidden;
    let handled = true;
    if (event.key === "/" && !inText) {
      search.focus();
      search.select();
    } else if (event.key === "Escape" && target === search && search.value !== "") {
      search.value = "";
      onType();
    } else if (event.key === "Escape" && !onList) location.hash = listRoute();
    else if (event.key === "Escape" && target === search) search.blur();
    else if (event.key === "Escape") search.focus();
    else if (event.key === "ArrowDown" && onList && (target === search || place >= 0))
      links[Math.min(place + 1, links.length - 1)]?.focus();
    else if (event.key === "ArrowUp" && onList && place >= 0) (links[place - 1] ?? search).focus();
    else handled = false;
    if (handled) event.preventDefault();
  }

  // Enter opens the first result, of the query as it is now.
  async function onSubmit(event) {
    event.preventDefault();
    // Without an index there is nothing to open; the list says why.
    const found = await ask("search", { query: search.value, from: 0, count: 1 }).catch(() => null);
    const first = found?.rows[0];
    if (first === undefined || search.value.trim() === "") return;
    history.replaceState(null, "", listRoute());
    search.blur();
    location.hash = route(first.name);
  }

  // ---- Start

  function completeCommands() {
    const { handle, anchors } = at("add").dataset;
    const flags = anchors.split(" ").map((anchor) => `--anchor ${anchor}`);
    // The client takes an address without TLS only if told so.
    if (location.protocol === "http:") flags.push("--insecure");
    at("add").textContent = [`peipkg repo add ${handle} ${base.replace(/\/$/, "")}`, ...flags].join(
      " \\\n    ",
    );
    at("address").remove();
    at("add").parentElement.after(copyButton(at("add"), "the command that adds the repository"));
  }

  if (location.protocol === "file:") {
    notice(
      "Search needs this page to come from a web server: a browser does not let a page that is a file read the index beside it.",
    );
    return;
  }
  at("home").href = "#/";
  at("form").hidden = false;
  at("front").classList.add("with-about");
  notice("");
  completeCommands();
  search.addEventListener("input", onType);
  at("form").addEventListener("submit", onSubmit);
  at("more").addEventListener("click", showMore);
  addEventListener("keydown", onKey);
  addEventListener("hashchange", follow);
  history.scrollRestoration = "manual";
  search.value = readRoute().query ?? "";
  follow();
}

if (typeof document === "undefined") answerQuestions();
else browse();
