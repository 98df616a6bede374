//! Reads from a webhook's payload which repository changed, in the shapes of GitHub (and Gitea,
//! Forgejo and Gogs), of Bitbucket, and of GitLab.
//!
//! Pure. The caller checks the signature over the raw bytes before it parses anything.

use std::borrow::Cow;
use std::iter;

use peipkg_format::problem::excerpt;
use peipkg_format::sort;
use serde::Deserialize;
use serde_json::Value;

use crate::http::signature::is_form;
use crate::recipe::upstream_url::UpstreamUrl;

/// The longest address of a repository, in bytes, and how many are read. Each is compared with every
/// upstream if it matches none.
const MAX_ADDRESS: usize = 2048;
const MAX_ADDRESSES: usize = 16;

/// The forge that sent a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forge {
    /// GitHub's, or of a forge that names its repositories as GitHub or Bitbucket do.
    GitHub,
    /// GitLab's.
    GitLab,
}

/// The content of a webhook: the names of a repository (see [`UpstreamUrl::repository`]), or none if
/// the event concerns no repository. A name without a host begins with its slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Somebody set the webhook up; the repository did not change.
    Ping(Vec<String>),
    /// The repository changed.
    News(Vec<String>),
}

/// Why a signed payload is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    /// The form has no such field.
    #[error("the form has no field \"payload\"")]
    NoField,
    /// The payload is not JSON or does not have the expected shape. The reason may quote any string
    /// of the payload.
    #[error("the payload cannot be read: {}", excerpt(.0))]
    Json(String),
    /// There is a repository without a name.
    #[error("the payload names no repository")]
    NoName,
}

#[derive(Deserialize)]
struct Document {
    repository: Option<Repository>,
    /// GitLab's name for it; its `repository` is an older, shorter form.
    project: Option<Repository>,
}

/// What a payload says of a repository. A field of another shape than a forge's counts as absent: another
/// forge may use the name for something else.
#[derive(Deserialize)]
struct Repository(serde_json::Map<String, Value>);

impl Repository {
    /// Returns those of the fields `names` that are strings.
    fn texts(&self, names: &[&str]) -> Vec<String> {
        names.iter().filter_map(|name| self.0.get(*name)?.as_str()).map(str::to_owned).collect()
    }

    /// Returns the addresses that GitHub's family and Bitbucket give.
    fn addresses(&self) -> Vec<String> {
        // GitHub, Gitea, Forgejo, Gogs.
        let mut found = self.texts(&["html_url", "clone_url", "ssh_url"]);
        // Bitbucket. Only its Data Center has several to clone from.
        if let Some(links) = self.0.get("links") {
            let clones = links["clone"].as_array().map(Vec::as_slice).unwrap_or_default();
            let links = iter::once(&links["html"]).chain(clones);
            found.extend(links.filter_map(|link| link["href"].as_str()).map(str::to_owned));
        }
        if !found.is_empty() {
            return found;
        }
        // Without an address, the path alone has to do.
        found.extend(self.texts(&["full_name"]).first().map(|name| format!("/{name}")));
        let key = self.0.get("project").and_then(|project| project["key"].as_str());
        if let (Some(slug), Some(key)) = (self.texts(&["slug"]).first(), key) {
            // Bitbucket Data Center's paths for ssh and HTTP.
            found.extend([format!("/{key}/{slug}"), format!("/scm/{key}/{slug}")]);
        }
        found
    }

    /// Returns the addresses that GitLab gives. The homepage is its page on GitLab.
    fn addresses_of_gitlab(&self) -> Vec<String> {
        let web = ["web_url", "homepage"];
        let git = ["git_http_url", "git_ssh_url", "http_url", "ssh_url", "url"];
        self.texts(&[&web[..], &git].concat())
    }
}

/// Reads a body whose signature is right. `event` is the value of `X-GitHub-Event`, `content_type`
/// the value of `Content-Type`.
///
/// # Errors
/// When the body is not a payload of the forge's shape. A ping is never refused.
pub(crate) fn parse(
    forge: Forge,
    event: Option<&str>,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Payload, PayloadError> {
    let names = names(forge, content_type, body);
    if forge == Forge::GitHub && event == Some("ping") {
        return Ok(Payload::Ping(names.unwrap_or_default()));
    }
    names.map(Payload::News)
}

fn names(forge: Forge, content_type: Option<&str>, body: &[u8]) -> Result<Vec<String>, PayloadError> {
    let json: Cow<'_, [u8]> = if content_type.is_some_and(is_form) {
        let field = form_urlencoded::parse(body).find(|(name, _)| name == "payload");
        Cow::Owned(field.ok_or(PayloadError::NoField)?.1.into_owned().into_bytes())
    } else {
        Cow::Borrowed(body)
    };
    let document: Result<Document, _> = serde_json::from_slice(&json);
    let document = document.map_err(|error| PayloadError::Json(error.to_string()))?;
    let addresses: Option<Vec<String>> = match forge {
        Forge::GitHub => document.repository.as_ref().map(Repository::addresses),
        Forge::GitLab => {
            let places = [&document.project, &document.repository];
            places
                .into_iter()
                .flatten()
                .map(Repository::addresses_of_gitlab)
                .reduce(|all, more| [all, more].concat())
        }
    };
    match addresses {
        Some(addresses) if addresses.is_empty() => Err(PayloadError::NoName),
        addresses => Ok(names_of(&addresses.unwrap_or_default())),
    }
}

/// Returns the repository names of `addresses`. Skips what is not a URL: no recipe can have it as its
/// upstream.
fn names_of(addresses: &[String]) -> Vec<String> {
    let addresses = addresses.iter().filter(|address| address.len() <= MAX_ADDRESS).take(MAX_ADDRESSES);
    let urls = addresses.filter_map(|url| url.parse::<UpstreamUrl>().ok());
    let names = urls.map(|url| url.repository());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with('/')).collect();
    sort::sort(&mut names);
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(forge: Forge, body: &str, expected: &[&str]) {
        let names = match parse(forge, Some("push"), Some("application/json"), body.as_bytes()).unwrap() {
            Payload::News(names) | Payload::Ping(names) => names,
        };
        assert_eq!(names, expected, "{body}");
    }

    #[test]
    fn payload_of_each_forge_names_its_repository() {
        let github = r#"{"ref":"refs/tags/v1","repository":{"id":1,"html_url":"https://h/o/r","url":"https://api.h/o/r",
            "clone_url":"https://h/o/r.git","ssh_url":"git@ssh.h:o/r.git","homepage":"https://o.example"},"sender":{}}"#;
        check(Forge::GitHub, github, &["h/o/r", "ssh.h/o/r"]);
        let bitbucket = r#"{"repository":{"type":"repository","full_name":"Team/Repo","uuid":"{1}","project":{"key":"P"},
            "links":{"self":{"href":"https://api.bitbucket.org/2.0/repositories/team/repo"},
            "html":{"href":"https://bitbucket.org/Team/Repo"},"avatar":{"href":"https://bytebucket.org/x"}}}}"#;
        check(Forge::GitHub, bitbucket, &["bitbucket.org/team/repo"]);
        check(Forge::GitHub, r#"{"repository":{"full_name":"Team/Repo"}}"#, &["/team/repo"]);
        let data_center = r#"{"repository":{"slug":"repo","id":84,"name":"Repo","project":{"key":"PRJ"}}}"#;
        check(Forge::GitHub, data_center, &["/prj/repo", "/scm/prj/repo"]);
        let cloned = r#"{"repository":{"slug":"r","project":{"key":"P"},"links":{"clone":[
            {"href":"https://git.corp/scm/p/r.git","name":"http"},{"href":"ssh://git@git.corp:7999/p/r.git"}],"self":[1]}}}"#;
        check(Forge::GitHub, cloned, &["git.corp/p/r", "git.corp/scm/p/r"]);
        let gitlab = r#"{"object_kind":"tag_push","project":{"id":1,"web_url":"http://h/g/r","git_ssh_url":"git@ssh.h:g/r.git",
            "git_http_url":"http://h/g/r.git","homepage":"http://h/g/r","url":"git@h:g/r.git","ssh_url":"git@h:g/r.git"},
            "repository":{"name":"r","url":"ssh://git@old.h/g/r.git","homepage":"http://h/g/r","visibility_level":0}}"#;
        check(Forge::GitLab, gitlab, &["h/g/r", "old.h/g/r", "ssh.h/g/r"]);
        check(Forge::GitLab, r#"{"repository":{"url":"git@h:g/r.git"}}"#, &["h/g/r"]);
    }

    #[test]
    fn payload_with_fields_of_another_shape_is_read_without_them() {
        let strange =
            r#"{"repository":{"html_url":7,"links":"x","project":[],"slug":{},"clone_url":"https://h/a"}}"#;
        check(Forge::GitHub, strange, &["h/a"]);
        check(Forge::GitHub, r#"{"repository":{"html_url":"","clone_url":"https://h/a"}}"#, &["h/a"]);
    }

    #[test]
    fn payload_without_a_repository_names_none() {
        for forge in [Forge::GitHub, Forge::GitLab] {
            for body in [r#"{"zen":"x","hook_id":1}"#, "{}", r#"{"repository":null}"#, r#"{"test":true}"#] {
                check(forge, body, &[]);
            }
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        check(Forge::GitHub, &deep, &[]);
    }

    #[test]
    fn form_and_ping_of_github_are_read() {
        let json = r#"{"repository":{"html_url":"https://h/o/r"}}"#;
        let form =
            format!("x=1&payload={}", form_urlencoded::byte_serialize(json.as_bytes()).collect::<String>());
        let names = vec!["h/o/r".to_owned()];
        let read = |event, content_type, body: &str| {
            parse(Forge::GitHub, Some(event), Some(content_type), body.as_bytes()).unwrap()
        };
        let content_type = "Application/x-www-form-urlencoded; charset=utf-8";
        assert_eq!(read("push", content_type, &form), Payload::News(names.clone()));
        assert_eq!(read("ping", "application/json", json), Payload::Ping(names));
        for body in ["{}", "", "{"] {
            assert_eq!(read("ping", "application/json", body), Payload::Ping(vec![]));
        }
    }

    #[test]
    fn payload_of_no_known_shape_is_refused() {
        let error = |content_type: &str, body: &str| {
            let read = parse(Forge::GitHub, Some("push"), Some(content_type), body.as_bytes());
            read.unwrap_err().to_string()
        };
        for body in ["{", "[]", "null", r#"{"repository":7}"#, r#"{"repository":[]}"#] {
            assert!(error("application/json", body).starts_with("the payload cannot be read"), "{body}");
        }
        assert_eq!(error("application/json", r#"{"repository":{}}"#), "the payload names no repository");
        assert_eq!(error("application/x-www-form-urlencoded", "a=b"), "the form has no field \"payload\"");
        for key in ["repository", "project"] {
            let deep = format!("{{\"{key}\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
            assert!(error("application/json", &deep).starts_with("the payload cannot be read"));
        }
    }
}
