//! Repositories to look at: real packages, made by the real tools, and indexes with anything in
//! them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::git_repo::run;
use crate::support::tools::Tools;

/// The time of the publish.
pub(crate) const PUBLISHED: &str = "2026-05-01T12:34:56Z";

/// A repository with packages.
pub(crate) struct Repository {
    home: TempDir,
}

impl Repository {
    /// Makes an empty repository.
    pub(crate) fn new(name: &str, description: &str) -> Self {
        let repository = Self { home: TempDir::with_prefix("site-").expect("a temporary directory") };
        fs::write(repository.path("key"), [7; 32]).expect("a key");
        fs::create_dir(repository.path("new")).expect("a directory");
        let mut command = Command::new(&Tools::get().repo);
        command.args(["init", "--name", name, "--description", description, "--timestamp", PUBLISHED]);
        run(command.arg("--sign-key").arg(repository.path("key")).arg("--out").arg(repository.root()));
        repository
    }

    /// Makes a repository of six packages in seven versions, which depend on each other.
    pub(crate) fn small() -> Self {
        let repository = Self::new("small", "Packages of the tests");
        let relation = |name: &str, constraint: &str| json!([{"name": name, "constraint": constraint}]);
        let mut libc = manifest("libc", "2.40-1", "x86_64", "The C library");
        libc["provides"] = json!([{"name": "libc-api", "version": "2.40-1"}]);
        repository.add(&libc, &["usr/lib/x86_64-linux-peios/libc.so.6"]);
        let mut curl = manifest("curl", "8.10.1-1", "x86_64", "Transfers data by URL");
        curl["dependencies"] = relation("libc", ">= 2.0");
        repository.add(&curl, &["usr/bin/curl"]);
        let mut curl = manifest("curl", "8.11.0-1", "x86_64", "Transfers data by URL, with TLS");
        curl["dependencies"] = json!([{"name": "libc-api", "constraint": ">= 2.0"}, {"name": "zlib-ng"}]);
        curl["build"]["timestamp"] = "2026-04-30T10:30:00Z".into();
        repository.add(&curl, &["usr/bin/curl", "usr/share/doc/curl/README", "usr/share/doc/curl/old/NEWS"]);
        let mut jq = manifest("jq", "1.7.1-3", "x86_64", "A JSON processor");
        jq["dependencies"] = relation("libc", ">= 2.0");
        jq["optional_dependencies"] = json!([{"name": "curl"}]);
        repository.add(&jq, &["usr/bin/jq"]);
        repository
            .add(&manifest("curl-doc", "8.11.0-1", "noarch", "Manual pages"), &["usr/share/man/man1/curl.1"]);
        repository
            .add(&manifest("json-schemas", "3-1", "noarch", "Schemas"), &["usr/share/json-schemas/a.json"]);
        repository.publish();
        repository
    }

    /// The root of the repository.
    pub(crate) fn root(&self) -> PathBuf {
        self.path("repo")
    }

    /// The fingerprint of its key.
    pub(crate) fn fingerprint(&self) -> String {
        let key =
            fs::read_dir(self.root().join("keys")).expect("keys").next().expect("a key").expect("a key");
        key.file_name().to_str().and_then(|name| name.strip_suffix(".pub")).expect("a public key").to_owned()
    }

    /// Packs a package with these files, each with its path as content, for the next publish.
    pub(crate) fn add(&self, manifest: &Value, files: &[&str]) {
        let staged = TempDir::with_prefix_in("staged-", self.home.path()).expect("a temporary directory");
        for file in files {
            let path = staged.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, file).expect("a file");
        }
        let described = self.path("manifest.json");
        fs::write(&described, manifest.to_string()).expect("a manifest");
        let field = |name: &str| manifest[name].as_str().expect("text");
        let name = format!("{}_{}_{}.peipkg", field("name"), field("version"), field("architecture"));
        let mut command = Command::new(&Tools::get().build);
        command.arg("pack").arg("--manifest").arg(described).arg("--staged").arg(staged.path());
        run(command.arg("--out").arg(self.path("new").join(name)).arg("--sign-key").arg(self.path("key")));
    }

    /// Publishes the packages that were added.
    pub(crate) fn publish(&self) {
        self.publish_with(&[]);
    }

    /// Publishes with more arguments.
    pub(crate) fn publish_with(&self, arguments: &[&str]) {
        let mut command = Command::new(&Tools::get().repo);
        command.arg("publish").arg("--in").arg(self.root()).arg("--new").arg(self.path("new"));
        command.arg("--out").arg(self.root()).arg("--sign-key").arg(self.path("key"));
        run(command.args(["--timestamp", PUBLISHED]).args(arguments));
    }

    /// Replaces both indexes by ones with these entries, as another tool might write them.
    pub(crate) fn replace_indexes(&self, entries: &[Value]) {
        self.replace_index("active", entries);
        self.replace_index("archive", entries);
    }

    /// Replaces one index.
    pub(crate) fn replace_index(&self, kind: &str, entries: &[Value]) {
        let index = json!({
            "schema_version": 1, "repo": "small", "kind": kind, "index_version": 7,
            "generated_at": PUBLISHED, "packages": entries,
        });
        fs::write(self.root().join(format!("index/{kind}.json")), index.to_string()).expect("an index");
    }

    /// The entries of the archive index.
    pub(crate) fn archive(&self) -> Vec<Value> {
        let index = fs::read(self.root().join("index/archive.json")).expect("an index");
        let mut index: Value = serde_json::from_slice(&index).expect("an index");
        serde_json::from_value(index["packages"].take()).expect("a list")
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.home.path().join(relative)
    }
}

/// The manifest of a package without relations.
pub(crate) fn manifest(name: &str, version: &str, architecture: &str, description: &str) -> Value {
    json!({
        "schema_version": 1, "name": name, "version": version, "architecture": architecture,
        "description": description, "license": "MIT", "homepage": format!("https://example.org/{name}"),
        "dependencies": [], "optional_dependencies": [], "conflicts": [], "provides": [], "replaces": [],
        "side_effects": [], "size_installed": 0, "sd_overrides": [],
        "build": {
            "timestamp": "2026-04-20T10:30:00Z", "farm_id": "farm-1",
            "source_ref": format!("git+https://example.org/{name}.git#refs/tags/v{version}"),
        },
    })
}

/// The `file:` URL of a path.
pub(crate) fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}
