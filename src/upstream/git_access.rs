//! Hands git an upstream's URL and credentials.
//!
//! Every user of the machine can read the command lines of git and of the programs that git starts.
//! So a command line has only [`UpstreamUrl::address`]; secrets are in the environment, which only
//! the same user and root can read. git asks for credentials through a credential helper, so the
//! URLs of submodules on the same host need none. git has no such way for a query: there, git's
//! HTTP transport is started without a URL and finds it in its configuration.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use crate::process::Program;
use crate::recipe::upstream_url::UpstreamUrl;

const USER: &str = "PEIPKG_MANAGER_GIT_USER";
const PASSWORD: &str = "PEIPKG_MANAGER_GIT_PASSWORD";
const URL: &str = "PEIPKG_MANAGER_GIT_URL";

/// A credential helper that prints the password, an empty one for a user without password: hosts
/// take a token as the user. The shell's own `printf` is no process with a command line.
const HELPER: &str = concat!(
    "!f() { if test \"$1\" = get; then printf 'username=%s\\npassword=%s\\n' ",
    "\"$PEIPKG_MANAGER_GIT_USER\" \"$PEIPKG_MANAGER_GIT_PASSWORD\"; fi; }; f"
);

/// The remote whose URL has a query, and the remote that its transport reads. No URL looks so.
const REMOTE: &str = "peipkg-manager-upstream";
const SECRET_REMOTE: &str = "peipkg-manager-secret";

/// Returns what stands for `url` on git's command line, after [`grant`].
pub(super) fn name(url: &UpstreamUrl) -> String {
    url.with_query().map_or_else(|| url.address(), |_| REMOTE.to_owned())
}

/// Gives `git` access to `url`: its options and environment. Errors of git show no secret of `url`.
pub(super) fn grant(git: Program, url: &UpstreamUrl) -> Program {
    let mut git = git.hide(url.secrets());
    if let Some(credentials) = url.credentials() {
        let key = |name: &str| format!("credential.{}.{name}", credentials.site);
        let helper = key("helper");
        git = git.env(USER, OsString::from_vec(credentials.user));
        git = git.arg(format!("--config-env={}={USER}", key("username")));
        if let Some(password) = credentials.password {
            git = git.env(PASSWORD, OsString::from_vec(password));
            // Ask no other helper: the recipe's password counts.
            git = git.arg("-c").arg(format!("{helper}="));
        } else {
            git = git.env(PASSWORD, "");
        }
        git = git.arg("-c").arg(format!("{helper}={HELPER}"));
    }
    if let Some((secret, transport)) = url.with_query() {
        // Offer only a transport that needs no further process: git would start `git fetch-pack URL`
        // for a server without protocol version 2, and `git http-fetch URL` for one with files only.
        let alias = format!(
            "!f() {{ echo 'a URL with a query needs a server with protocol version 2' >&2; read -r _; printf 'stateless-connect\\noption\\ncheck-connectivity\\n\
             object-format\\n\\n'; exec git remote-{transport} {SECRET_REMOTE}; }}; f"
        );
        git = git.env(URL, secret).arg(format!("--config-env=remote.{SECRET_REMOTE}.url={URL}"));
        git = git.arg("-c").arg(format!("remote.{REMOTE}.vcs=peipkg-manager-query"));
        git = git.arg("-c").arg(format!("alias.remote-peipkg-manager-query={alias}"));
    }
    git
}
