//! The command line of `peipkg-repo`: turns arguments into requests, and results into text.

use std::path::Path;

use peipkg_format::regular_file;

use crate::cli::table::{Command, Flag, Missing, Tool};
use crate::cli::{Failure, Options};
use crate::package_reader::{self, Comparison};
use crate::timestamp::Timestamp;

use super::error::RepoError;
use super::template::Template;
use super::verify::Mode;
use super::{init, keys, publish, verify};

/// The name of the program, which opens every line on standard error.
pub const PROGRAM: &str = "peipkg-repo";

/// The program's commands and flags.
pub static TOOL: Tool = Tool {
    name: PROGRAM,
    about: "keeps a signed repository of packages",
    commands: &[
        Command {
            name: "init",
            about: "creates an empty repository in a directory that is empty or missing",
            flags: &[
                Flag::text("--name", "NAME", "short name, recorded in repo.json").required(),
                Flag::text("--description", "TEXT", "one line for people"),
                SIGN_KEY,
                TIMESTAMP,
                Flag::directory("--out", "the repository").required(),
                NO_SITE,
            ],
            missing: Missing::IsFailure,
            run: run_init,
        },
        Command {
            name: "publish",
            about: "adds packages, all or none, and signs the new indexes; a key of the repository must \
                    have signed each package",
            flags: &[
                Flag::directory("--in", "the repository before the publish").required(),
                Flag::directory(
                    "--new",
                    "the packages to add; required unless --rebuild is given. If there are none, the sidecars of \
                     all packages (manifest.json, files.json) are healed",
                ),
                Flag::switch(
                    "--rebuild",
                    "makes the indexes anew from all packages; signs repo.json again if its signature is \
                     not valid",
                ),
                Flag::directory(
                    "--all-packages-dir",
                    "the directory of all packages, at any depth; required with --rebuild",
                ),
                SIGN_KEY,
                TIMESTAMP,
                Flag::directory("--out", "the repository after the publish; may be the same as --in")
                    .required(),
                Flag::text(
                    "--package-url-template",
                    "TEMPLATE",
                    "URLs of the new packages, with {filename}, or {name}, {version} and {arch}; a path is \
                     also where publish stores the package, https:// is stored elsewhere; the default is \
                     /p/{name}/{version}/{filename}",
                ),
                NO_SITE,
            ],
            missing: Missing::IsFailure,
            run: run_publish,
        },
        Command {
            name: "verify",
            about: "reports every issue of a repository; changes nothing",
            flags: &[
                Flag::directory("--repo", "the repository").required(),
                Flag::word(
                    "--mode",
                    "MODE",
                    &["metadata", "hashes", "both"],
                    "metadata: descriptor, indexes, signatures; hashes: every package file; both (default): \
                     metadata, then hashes if there was no issue",
                ),
                Flag::directory(
                    "--all-packages-dir",
                    "the directory of the packages; the default is the repository",
                ),
            ],
            missing: Missing::IsFailure,
            run: run_verify,
        },
        Command {
            name: "keys",
            about: "lists the keys of a repository; with --sign-key, changes them and signs repo.json",
            flags: &[
                Flag::directory("--repo", "the repository").required(),
                Flag::file(
                    "--sign-key",
                    "KEY",
                    "private key that signs repo.json; clients must know it already, or they refuse the change",
                ),
                Flag::file("--add", "KEY", "makes this key active: a private key, or a public key in PEM")
                    .list(),
                Flag::text(
                    "--retire",
                    "FINGERPRINT",
                    "makes this key transitioning: its signatures count until the time of --until",
                ),
                Flag::text("--until", "TIME", "RFC 3339 in UTC, such as 2026-05-01T12:00:00Z; for --retire"),
                Flag::text(
                    "--revoke",
                    "FINGERPRINT",
                    "revokes this key for good: its signatures count no more",
                ),
                NO_SITE,
            ],
            missing: Missing::IsUsage,
            run: run_keys,
        },
        Command {
            name: "compare",
            about: "says whether two packages are equal, and which members differ first",
            flags: &[
                Flag::file("--first", "FILE", "a package").required(),
                Flag::file("--second", "FILE", "another package").required(),
            ],
            missing: Missing::IsUsage,
            run: |options| run_compare(&options.path("--first")?, &options.path("--second")?),
        },
    ],
};

const NO_SITE: Flag =
    Flag::switch("--no-site", "leaves out the browse site: index.html, feed.xml and assets/");

const SIGN_KEY: Flag =
    Flag::file("--sign-key", "KEY", "Ed25519 private key: PEM PKCS#8, or the raw seed of 32 bytes")
        .required();

const TIMESTAMP: Flag = Flag::text(
    "--timestamp",
    "TIME",
    "RFC 3339 in UTC, such as 2026-05-01T12:00:00Z; recorded as generated_at",
)
.required();

fn run_init(options: &Options) -> Result<String, Failure> {
    let description = match options.optional("--description") {
        None => String::new(),
        Some(text) => text.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::Usage(format!("--description: expected text, found {}", text.display()))
        })?,
    };
    let request = init::Request {
        name: options.text("--name")?.to_owned(),
        description,
        sign_key: options.path("--sign-key")?,
        timestamp: options.timestamp()?,
        out: options.path("--out")?,
        site: !options.switch("--no-site"),
    };
    init::run(&request).map_err(RepoError::into_failure)
}

fn run_publish(options: &Options) -> Result<String, Failure> {
    let wrong = |message: &str| Err(Failure::Usage(message.to_owned()));
    let source = match (
        options.switch("--rebuild"),
        options.optional_path("--new"),
        options.optional_path("--all-packages-dir"),
    ) {
        (false, Some(new), None) => publish::Source::New(new),
        (true, None, Some(all)) => publish::Source::Rebuild(all),
        (false, None, _) => {
            return Err(Failure::Failed(vec!["missing required flag --new, or --rebuild".to_owned()]));
        }
        (true, _, None) => {
            return Err(Failure::Failed(vec![
                "missing required flag --all-packages-dir, which --rebuild needs".to_owned(),
            ]));
        }
        (true, Some(_), _) => return wrong("--new and --rebuild exclude each other"),
        (false, _, Some(_)) => return wrong("--all-packages-dir is for --rebuild only"),
    };
    let template = match options.optional("--package-url-template") {
        None => Template::default(),
        Some(text) => Template::parse(&text.to_string_lossy())
            .map_err(|error| Failure::Usage(format!("--package-url-template: {error}")))?,
    };
    let request = publish::Request {
        input: options.path("--in")?,
        source,
        sign_key: options.path("--sign-key")?,
        timestamp: options.timestamp()?,
        output: options.path("--out")?,
        template,
        site: !options.switch("--no-site"),
    };
    publish::run(&request).map_err(RepoError::into_failure)
}

fn run_verify(options: &Options) -> Result<String, Failure> {
    let mode = match options.optional("--mode").map(|mode| mode.to_string_lossy()).as_deref() {
        None | Some("both") => Mode::Both,
        Some("metadata") => Mode::Metadata,
        Some("hashes") => Mode::Hashes,
        Some(other) => {
            return Err(Failure::Usage(format!(
                "--mode: expected metadata, hashes or both, found {other:?}"
            )));
        }
    };
    let request = verify::Request {
        repo: options.path("--repo")?,
        mode,
        all_packages: options.optional_path("--all-packages-dir"),
    };
    let report = verify::run(&request);
    match report.issues.len() {
        0 => Ok(report.summary()),
        count => {
            let noun = if count == 1 { "issue" } else { "issues" };
            Err(Failure::Audit { issues: report.issues, summary: format!("{count} {noun} found") })
        }
    }
}

fn run_keys(options: &Options) -> Result<String, Failure> {
    let wrong = |message: &str| Err(Failure::Usage(message.to_owned()));
    let text = |name| options.optional(name).map(|_| options.text(name).map(str::to_owned)).transpose();
    let retire = match (text("--retire")?, text("--until")?) {
        (None, None) => None,
        (Some(fingerprint), Some(until)) => {
            let until = Timestamp::parse(&until);
            let until = until.map_err(|error| Failure::Usage(format!("--until: {error}")))?;
            Some((fingerprint, until))
        }
        (Some(_), None) => return wrong("--retire needs --until TIME"),
        (None, Some(_)) => return wrong("--until is for --retire only"),
    };
    let (add, revoke) = (options.all("--add").map(Into::into).collect::<Vec<_>>(), text("--revoke")?);
    let change = match options.optional_path("--sign-key") {
        Some(sign_key) => Some(keys::Change { sign_key, add, retire, revoke }),
        None if add.is_empty() && retire.is_none() && revoke.is_none() => None,
        None => return wrong("--add, --retire and --revoke need --sign-key KEY"),
    };
    let request = keys::Request { repo: options.path("--repo")?, change, site: !options.switch("--no-site") };
    keys::run(&request).map_err(RepoError::into_failure)
}

/// Like cmp(1), exits with 1 if the packages differ and with 2 if a file cannot be read. Prints a line if
/// they differ only in what is not signed.
fn run_compare(first: &Path, second: &Path) -> Result<String, Failure> {
    let unreadable = |path: &Path, error| Failure::Usage(format!("{}: {error}", path.display()));
    let open = |path| regular_file::open(path).map_err(|error| unreadable(path, error));
    match package_reader::compare(open(first)?, open(second)?) {
        Ok(Comparison::Same(remark)) if remark.is_empty() => Ok(remark),
        Ok(Comparison::Same(remark)) => Ok(remark + "\n"),
        Ok(Comparison::Different(lines)) => Err(Failure::Different(lines)),
        Err(error) => Err(unreadable(first, error)),
    }
}
