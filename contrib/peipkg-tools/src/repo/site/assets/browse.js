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
    if (!Array.isArray(index?.packages)) throw new Error(`index/${kind}.json: has no list of packages`);
    return { index, packages: index.packages.filter(isPackage) };
  }

  async function readActive() {
    const { index, packages } = await fetchIndex("active");
    packages.sort((one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : 0));
    const names = packages.map((entry) => entry.name.toLowerCase());
    const provided = packages.map((entry) => relations(entry.provides).map((one) => one.name.toLowerCase()));
    const texts = packages.map((entry, place) =>
      [entry.name, text(entry.description), text(entry.license), text(entry.architecture), ...provided[place]]
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
      provided,
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
    const { packages, names, provided, texts, newest, version, published } = await indexOf("active");
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    let found = newest;
    if (words.length > 0) {
      // The name itself, who provides it, names that begin with the first word, names with all
      // words, then texts.
      const ranks = [[], [], [], [], []];
      const whole = words.join(" ");
      for (let place = 0; place < texts.length; place++) {
        if (!words.every((word) => texts[place].includes(word))) continue;
        const name = names[place];
        const inName = words.every((word) => name.includes(word));
        const rank = [
          name === whole,
          provided[place].includes(whole),
          inName && name.startsWith(words[0]),
          inName,
          true,
        ].indexOf(true);
        ranks[rank].push(place);
      }
      found = ranks.flat();
    }
    // A name alone opens one of its architectures only.
    const isRepeated = (place) =>
      [place - 1, place + 1].some((other) => packages[other]?.name === packages[place].name);
    const rows = found
      .slice(from, from + count)
      .map((place) => ({ ...shown(packages[place]), repeated: isRepeated(place) }));
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

  // The current version of a package, for each architecture that the index lists, and who requires
  // it.
  async function details({ name }) {
    const [{ packages, version, published }, { required }] = await Promise.all([
      indexOf("active"),
      indexOf("links"),
    ]);
    const currents = packages.filter((entry) => entry.name === name).map(whole);
    const names = new Set([name, ...currents.flatMap((one) => one.provides).map((one) => one.name)]);
    const requiredBy = [...names].flatMap((needed) =>
      (required.get(needed) ?? []).map((one) => ({
        name: packages[one.place].name,
        constraint: one.constraint,
        kind: one.kind,
        through: needed === name ? "" : needed,
      })),
    );
    const others = requiredBy.filter((one) => one.name !== name);
    return { currents, requiredBy: others, version, published };
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

  // The first of these files that is the provenance of the package with this digest. Asked here, because
  // a page would log each file that is not there as an error.
  async function provenance({ urls, hash }) {
    for (const url of urls) {
      try {
        const answer = await fetch(url, { cache: "no-cache" });
        const payload = answer.ok ? (await answer.json()).payload : "";
        const bytes = Uint8Array.from(atob(payload), (one) => one.charCodeAt(0));
        const { subject } = JSON.parse(new TextDecoder().decode(bytes));
        if (subject.some((one) => one.digest.sha256 === hash)) return url;
      } catch {
        // There is none, or it is of another package.
      }
    }
    return null;
  }

  self.onmessage = async ({ data }) => {
    try {
      self.postMessage({
        id: data.id,
        answer: await { search, details, providers, versions, provenance }[data.ask](data),
      });
    } catch (error) {
      self.postMessage({ id: data.id, error: String(error?.message ?? error) });
    }
  };
}

// ---- Shared ---------------------------------------------------------------------------------------

const size = (value) => (Number.isFinite(value) && value >= 0 ? value : null);

// The path of a package file below the repository, or null. `package_url.rs` decides the same.
function pathOf(url) {
  const isRooted = url.startsWith("/");
  const segments = (isRooted ? url.slice(1) : url).split("/");
  if (!isRooted && segments[0].includes(":")) return null;
  if (/[\\?#\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(url)) return null;
  return segments.some((one) => one === "" || one.startsWith(".")) ? null : segments.join("/");
}

function directoryOf(url) {
  const path = pathOf(url) ?? url;
  return path.slice(0, path.lastIndexOf("/") + 1);
}

// ---- The page -------------------------------------------------------------------------------------

function browse() {
  const PAGE = 50; // rows that are added at a time: thousands would freeze the page
  const MOST = 500; // entries of a directory, or links of a kind, that are added at a time
  const base = address(".", location.href.split(/[?#]/)[0]);
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

  // An address of this site. Browsers refuse to fetch one with the user and the password that the
  // visitor has typed before the host.
  function address(relative, from) {
    const url = new URL(relative, from);
    url.username = url.password = "";
    return url.href;
  }

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
    const path = pathOf(url);
    if (path === null) return webLink(url);
    const encoded = path.split("/").map(encode);
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
  const routeOfVersion = (one) => route(one.name, one.version, one.architecture);
  const routeOfRow = (one) => (one.repeated ? routeOfVersion(one) : route(one.name));

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

  const policy = globalThis.trustedTypes?.createPolicy("browse-worker", { createScriptURL: (url) => url });
  const source = address(document.currentScript.src);
  const script = policy ? policy.createScriptURL(source) : source;

  // Starts a worker, and returns the function that asks it.
  function startWorker(onFailure) {
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
      worker.terminate();
      onFailure();
      for (const { reject } of questions.values()) reject(new Error("the script could not be started"));
      questions.clear();
    };
    return (question, values) =>
      new Promise((resolve, reject) => {
        questions.set(++lastId, { resolve, reject });
        worker.postMessage({ id: lastId, ask: question, ...values });
      });
  }

  // Asks a worker. One that failed is not kept, so that the next question starts another.
  const workers = new Map();
  async function ask(question, values, kind = "active") {
    if (!workers.has(kind))
      workers.set(
        kind,
        startWorker(() => workers.delete(kind)),
      );
    return workers.get(kind)(question, values);
  }
  // The archive index may be long. In a worker of its own it delays no search.
  const askVersions = (name) => ask("versions", { name }, "archive");

  function notice(text) {
    at("notice").textContent = text;
    at("notice").hidden = text === "";
  }

  // ---- The list

  let wanted = null; // the query that the list must show
  let listed = null; // the query that it shows
  let asking = false;
  const made = {
    list: [...at("list").children],
    status: at("status").textContent,
    none: [...at("none").childNodes],
  };

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
        el("a", { class: "name", href: routeOfRow(found) }, said(shorten(found.name, 100))),
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
    const slow = setTimeout(() => {
      at("status").textContent = "Loading the index…";
      at("list").setAttribute("aria-busy", "true");
    }, 200);
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
      showMade(wanted, error.message);
      wanted = listed = null;
    } finally {
      clearTimeout(slow);
      at("list").removeAttribute("aria-busy");
      asking = false;
    }
  }

  function fill(query, found) {
    head(query);
    at("list").replaceChildren(...found.rows.map(row));
    at("status").textContent = isSearch(query)
      ? `${counted(found.total, "package", "packages")} of ${found.all.toLocaleString("en")}`
      : counted(found.all, "package", "packages");
    at("more").hidden = found.rows.length >= found.total;
    at("none").hidden = found.total > 0;
    const all = el("a", { href: "#/" }, "Show all packages");
    at("none").replaceChildren(
      ...(found.all === 0 ? made.none : ["No package matches “", said(query.trim()), "”. ", all, "."]),
    );
    describeIndex(found);
  }

  // Without an index there are the packages that the page itself has, but no results.
  function showMade(query, reason) {
    head(query);
    const below = isSearch(query) ? "" : " Below is the list from when the page was made.";
    notice(`The index cannot be read: ${reason}.${below}`);
    at("list").replaceChildren(...(isSearch(query) ? [] : made.list));
    at("status").textContent = isSearch(query) ? "" : made.status;
    at("more").hidden = true;
    at("none").hidden = isSearch(query) || made.list.length > 0;
    at("none").replaceChildren(...made.none);
  }

  const isSearch = (query) => query.trim() !== "";

  function head(query) {
    at("about").hidden = isSearch(query);
    at("front").classList.toggle("with-about", !isSearch(query));
    at("packages-title").textContent = isSearch(query) ? "Results" : "Newest packages";
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
    const heading = el("h1", { id: "package-title", tabindex: "-1" }, said(shorten(name, 100)));
    const label = isSearch(search.value) ? "← Results" : "← All packages";
    const back = el("p", null, el("a", { href: listRoute() }, label));
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
    const { currents } = found;
    const wanted = version === undefined ? currents[0] : { version, architecture };
    let shown = currents.find((one) => same(one, wanted)) ?? null;
    if (shown === null) {
      const all = await archive;
      shown = all.error ? null : (all.find((one) => (wanted ? same(one, wanted) : true)) ?? null);
      if (isCurrent() && shown === null) {
        const reason = all.error
          ? `The archive index cannot be read: ${all.error}.`
          : "There is no such package in the index.";
        const { providers } = (await relatives([name])).get(name) ?? { providers: [] };
        if (!isCurrent()) return;
        article.replaceChildren(
          back,
          heading,
          el("p", { class: "notice" }, reason),
          ...(providers.length > 0 ? [el("p", null, "Provided by ", ...links(providers), ".")] : []),
          all.length > 0 ? versions(all, null) : "",
        );
      }
    }
    if (!isCurrent() || shown === null) return;
    const related = [...shown.dependencies, ...shown.optional, ...shown.conflicts, ...shown.replaces];
    const known = await relatives(related.map((one) => one.name));
    if (!isCurrent()) return;
    heading.append(
      " ",
      el("bdi", { class: "version" }, shorten(shown.version, 100)),
      " ",
      shown.architecture && el("bdi", { class: "arch" }, shorten(shown.architecture, 40)),
    );
    // The index may list a version for one of its architectures only.
    const isOld = currents.every((one) => one.version !== shown.version);
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
        // The command would install the current version.
        isOld
          ? el(
              "p",
              { class: "notice" },
              "This is not the current version. ",
              ...(currents.length > 0
                ? [el("a", { href: route(name) }, "Show the current one"), "."]
                : ["The index lists no current one."]),
            )
          : isName(name) && el("div", null, el("p", { class: "install" }, ...installCommand(name)), addFirst()),
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
    await loadSidecars(shown, shared, files, provenance, isCurrent);
    linkProvenance(shown, shared, provenance, isCurrent);
  }

  // The command that adds the repository, for those whom a link brought to this page.
  function addFirst() {
    const command = el("code", null, at("add").textContent);
    return el(
      "details",
      null,
      el("summary", null, "Add the repository first"),
      el("pre", null, command),
      copyButton(command, "the command that adds the repository"),
      el("p", { class: "quiet" }, at("trust").textContent),
    );
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

  // Appends the elements of some items, and a button for the next: all at once would freeze the page.
  function grow(parent, items, make, from = 0) {
    const end = from + MOST;
    parent.append(...items.slice(from, end).map(make));
    if (items.length <= end) return parent;
    const more = () => {
      last.remove();
      grow(parent, items, make, end);
      const first = parent.children[end];
      first.tabIndex = -1;
      (first.querySelector("a, summary") ?? first).focus();
    };
    const left = (items.length - end).toLocaleString("en");
    const button = el("button", { type: "button", click: more }, `Show more (${left} left)`);
    const isTable = parent.localName === "tbody";
    const last = isTable ? el("tr", null, el("td", { colspan: "5" }, button)) : el("li", null, button);
    parent.append(last);
    return parent;
  }

  function packageLink(name) {
    return el("a", { href: route(name) }, said(name));
  }

  const links = (names) => names.flatMap((name, place) => [place > 0 && ", ", packageLink(name)]);

  // Which packages have these names, or provide them. Nothing without an index.
  const relatives = (names) => ask("providers", { names }).catch(() => new Map());

  function relationSection(heading, relations, known, none) {
    if (relations.length === 0 && !none) return null;
    const item = (one) => {
      const found = known.get(one.name) ?? { known: false, providers: [] };
      const content = [found.known ? packageLink(one.name) : said(one.name)];
      if (one.constraint) content.push(" ", said(one.constraint, "code"));
      if (one.arch) content.push(" ", el("bdi", { class: "arch" }, one.arch));
      if (one.root) content.push(" in root ", said(one.root, "code"));
      if (!found.known && found.providers.length > 0) {
        content.push(", provided by ", ...links(found.providers.slice(0, 10)));
      }
      return el("li", null, ...content);
    };
    return el(
      "section",
      null,
      el("h2", null, heading),
      relations.length > 0
        ? grow(el("ul", { class: "relations" }), relations, item)
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
        ? grow(el("ul", { class: "relations" }), requiredBy, item)
        : el("p", { class: "quiet" }, "No other package here requires it."),
    );
  }

  function versions(all, shown) {
    const line = (one) =>
      el(
        "tr",
        { "aria-current": shown && same(one, shown) ? "true" : false },
        el("td", null, el("a", { href: routeOfVersion(one) }, said(one.version))),
        el("td", null, said(one.architecture)),
        el("td", null, bytes(one.download)),
        el("td", null, time(one.built)),
        el("td", null, download(one, "download", `download ${one.version} ${one.architecture}`)),
      );
    const head = ["Version", "Arch", "Size", "Built", "File"].map((name) =>
      el("th", { scope: "col" }, name),
    );
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
          grow(el("tbody"), all, line),
        ),
      ),
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
    if (!url?.startsWith(new URL("/", base).href)) {
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
        branches(el("ul", { class: "tree" }), root, entries.length <= 60 ? Infinity : 1),
      );
      return undefined;
    }
    return none("The list of its files is not in this repository.");
  }

  async function linkProvenance(shown, shared, provenance, isCurrent) {
    const url = packageUrl(shown.url);
    if (!url?.startsWith(new URL("/", base).href)) return;
    const urls = [`${directoryOf(url)}provenance.json`, `${url}.provenance.json`];
    if (shared) urls.reverse();
    const href = await ask("provenance", { urls, hash: shown.hash }).catch(() => null);
    if (href === null || !isCurrent()) return;
    pair(provenance, "Signed origin", el("a", { href, rel: "noopener noreferrer" }, "Provenance"));
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
    for (const entry of entries) {
      const parts = entry.path.split("/").filter(Boolean);
      let node = root;
      node.count++;
      for (const part of parts.slice(0, -1)) {
        if (!node.directories.has(part))
          node.directories.set(part, { directories: new Map(), files: [], count: 0 });
        node = node.directories.get(part);
        node.count++;
      }
      node.files.push([parts.at(-1) ?? entry.path, size(entry.size)]);
    }
    return root;
  }

  // Appends what is in a directory. What is in its directories is made when they are opened; those
  // of the first `levels` are open.
  function branches(list, node, levels) {
    const children = [
      ...[...node.directories].map((one) => [true, ...one]),
      ...node.files.map((one) => [false, ...one]),
    ];
    return grow(list, children, ([isDirectory, name, inside]) => {
      if (!isDirectory)
        return el("li", null, said(name), inside !== null && el("span", { class: "size" }, bytes(inside)));
      // A directory with nothing but a directory is not worth a click.
      let [label, only] = [name, inside];
      while (only.files.length === 0 && only.directories.size === 1) {
        const [[next, below]] = only.directories;
        [label, only] = [`${label}/${next}`, below];
      }
      const below = el("ul");
      const count = el("span", { class: "size" }, counted(only.count, "file", "files"));
      const details = el("details", null, el("summary", null, said(`${label}/`), count), below);
      const fillOnce = () => below.children.length === 0 && branches(below, only, levels - 1);
      details.addEventListener("toggle", fillOnce);
      if (levels > 0) {
        details.open = true;
        fillOnce();
      }
      return el("li", null, details);
    });
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
      if (at("package").hidden) left = { y: scrollY, href: location.hash };
      open(name, version, architecture);
      return;
    }
    const returns = !at("package").hidden;
    opened++;
    at("package").hidden = true;
    at("front").hidden = false;
    document.title = title;
    if (search.value !== query) search.value = query;
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
      // At once: the address must not bring back an older query than the one being typed.
      history.pushState(null, "", listRoute());
      follow();
      return;
    }
    show(search.value);
    // Browsers refuse an address that changes at every key.
    clearTimeout(writing);
    writing = setTimeout(writeAddress, 300);
  }

  function writeAddress() {
    clearTimeout(writing);
    if (at("package").hidden) history.replaceState(null, "", listRoute());
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
    writeAddress();
    search.blur();
    location.hash = routeOfRow(first);
  }

  // ---- Start

  function completeCommands() {
    const { handle, anchors } = at("add").dataset;
    const flags = anchors.split(" ").map((anchor) => `--anchor ${anchor}`);
    // The client takes an address without TLS only if told so.
    if (location.protocol === "http:") flags.push("--insecure");
    // What has a meaning for a shell is escaped; brackets are of an IPv6 address, which knows no escape.
    const escaped = (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`;
    const url = base.replace(/\/$/, "").replace(/[^\w.~:/%[\]-]/g, escaped);
    at("add").textContent = [`peipkg repo add ${handle} ${url}`, ...flags].join(" \\\n    ");
    at("address").remove();
    at("add").parentElement.after(copyButton(at("add"), "the command that adds the repository"));
  }

  // On a phone it would fill the first screen.
  at("use").open = !matchMedia("(max-width: 40rem)").matches;
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
  // Leaving the box, for a result say, must not lose what was typed last.
  search.addEventListener("change", writeAddress);
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
