//! The command line of `peipkg-repo`: turns arguments into requests, and results into text.

use std::sync::Arc;

use signal_hook::consts::SIGXFSZ;

use crate::cli::{Failure, Options, usage};

use super::error::RepoError;
use super::template::Template;
use super::verify::Mode;
use super::{init, publish, verify};

/// The name of the program, which opens every line on standard error.
pub const PROGRAM: &str = "peipkg-repo";

const HELP: &str = "\
peipkg-repo: keeps a signed repository of packages

usage: peipkg-repo init    --name NAME [--description TEXT] --sign-key KEY --timestamp TIME --out DIR
                           [--no-site]
       peipkg-repo publish --in DIR (--new DIR | --rebuild --all-packages-dir DIR) --sign-key KEY
                           --timestamp TIME --out DIR [--package-url-template TEMPLATE] [--no-site]
       peipkg-repo verify  --repo DIR [--mode metadata|hashes|both] [--all-packages-dir DIR]

init        creates an empty repository in a directory that is empty or missing
  --name NAME             short name, recorded in repo.json
  --description TEXT      one line for people
publish     adds packages, all or none, and signs the new indexes; a key of the repository must
            have signed each package
  --in DIR                the repository before the publish
  --new DIR               the packages to add
  --out DIR               the repository after the publish; may be the same as --in
  --package-url-template TEMPLATE
                          URLs of the new packages, with {name}, {version}, {arch} and
                          {filename}; the default is /p/{name}/{version}/{filename}
  --rebuild               makes the indexes anew from all packages; signs repo.json again if its
                          signature is not valid
  --all-packages-dir DIR  the directory of all packages, at any depth
verify      reports every issue of a repository; changes nothing
  --repo DIR              the repository
  --mode MODE             metadata: descriptor, indexes, signatures; hashes: every package file;
                          both (default): metadata, then hashes if there was no issue
  --all-packages-dir DIR  the directory of the packages; the default is the repository

  --sign-key KEY          Ed25519 private key: PEM PKCS#8, or the raw seed of 32 bytes
  --timestamp TIME        RFC 3339 in UTC, such as 2026-05-01T12:00:00Z; recorded as generated_at
  --no-site               leaves out the browse site: index.html, feed.xml and assets/
  -h, --help              print this text
  -V, --version           print the version
";

/// Runs the command that the arguments name, and returns its standard output.
pub fn run(mut parser: lexopt::Parser) -> Result<String, Failure> {
    // By default, this signal kills a process at its limit for the size of files. Handled, the
    // write fails, and the error says which. If the handler is refused, the default remains.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    match parser.next().map_err(usage)? {
        Some(lexopt::Arg::Value(command)) => match command.to_str() {
            Some("init") => run_init(&mut parser),
            Some("publish") => run_publish(&mut parser),
            Some("verify") => run_verify(&mut parser),
            _ => Err(Failure::Usage(format!(
                "unknown command {}, expected init, publish or verify",
                command.display()
            ))),
        },
        Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h')) => Ok(HELP.to_owned()),
        Some(lexopt::Arg::Long("version") | lexopt::Arg::Short('V')) => {
            Ok(format!("{PROGRAM} {}\n", env!("CARGO_PKG_VERSION")))
        }
        Some(other) => Err(usage(other.unexpected())),
        None => Err(Failure::Usage("no command given, expected init, publish or verify".to_owned())),
    }
}

fn run_init(parser: &mut lexopt::Parser) -> Result<String, Failure> {
    let once = ["--name", "--description", "--sign-key", "--timestamp", "--out"];
    let Some(options) = Options::parse(parser, &once, &[], &["--no-site"])? else {
        return Ok(HELP.to_owned());
    };
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

fn run_publish(parser: &mut lexopt::Parser) -> Result<String, Failure> {
    let once = [
        "--in",
        "--new",
        "--sign-key",
        "--timestamp",
        "--out",
        "--package-url-template",
        "--all-packages-dir",
    ];
    let Some(options) = Options::parse(parser, &once, &[], &["--rebuild", "--no-site"])? else {
        return Ok(HELP.to_owned());
    };
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

fn run_verify(parser: &mut lexopt::Parser) -> Result<String, Failure> {
    let once = ["--repo", "--mode", "--all-packages-dir"];
    let Some(options) = Options::parse(parser, &once, &[], &[])? else { return Ok(HELP.to_owned()) };
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
        count => Err(Failure::Audit { issues: report.issues, summary: format!("{count} issues found") }),
    }
}
