//! Webhook payloads of the forges: the examples of their documentation with the repository's
//! addresses.

/// A repository's addresses.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// The page for people.
    pub(crate) html: String,
    /// For `git clone` over HTTP.
    pub(crate) clone: String,
    /// For `git clone` over SSH.
    pub(crate) ssh: String,
}

impl Addresses {
    /// Derives the addresses from a clone URL as a forge does.
    pub(crate) fn of(url: &str) -> Self {
        let base = url.strip_suffix(".git").unwrap_or(url);
        let name = base.rsplit_once("://").map_or(base, |(_, rest)| rest);
        let (host, path) = name.split_once('/').expect("a URL with a path");
        let host = host.split(':').next().expect("a host");
        Self { html: base.to_owned(), clone: format!("{base}.git"), ssh: format!("git@{host}:{path}.git") }
    }

    fn fill(&self, template: &str) -> String {
        template.replace("{html}", &self.html).replace("{clone}", &self.clone).replace("{ssh}", &self.ssh)
    }
}

/// GitHub's `push` event of a new tag.
pub(crate) fn github_push(addresses: &Addresses, tag: &str) -> String {
    addresses.fill(
        r#"{"ref":"refs/tags/{tag}","before":"0000000000000000000000000000000000000000",
"after":"6113728f27ae82c7b1a177c8d03f9e96e0adf246","created":true,"deleted":false,"forced":false,"base_ref":"refs/heads/main",
"compare":"{html}/compare/{tag}","commits":[],"head_commit":{"id":"6113728f27ae82c7b1a177c8d03f9e96e0adf246","tree_id":
"f9d2a07e9488b91af2641b26b9407fe22a451433","distinct":true,"message":"Prepare \"{tag}\" – naïve café ☕","timestamp":
"2019-05-15T15:20:41Z","url":"{html}/commit/6113728f27ae82c7b1a177c8d03f9e96e0adf246","author":{"name":"Codertocat","email":
"21031067+Codertocat@users.noreply.github.com","username":"Codertocat"},"added":[],"removed":[],"modified":["README.md"]},
"repository":{"id":186853002,"node_id":"MDEwOlJlcG9zaXRvcnkxODY4NTMwMDI=","name":"Hello-World","full_name":
"Codertocat/Hello-World","private":false,"owner":{"name":"Codertocat","login":"Codertocat","id":21031067,"type":"User",
"html_url":"https://github.com/Codertocat","site_admin":false},"html_url":"{html}","description":null,"fork":false,"url":
"{html}","git_url":"git://github.com/Codertocat/Hello-World.git","ssh_url":"{ssh}","clone_url":"{clone}","svn_url":"{html}",
"created_at":1557933565,"pushed_at":1557933657,"homepage":null,"size":0,"language":"Ruby","default_branch":"master",
"stargazers":0,"master_branch":"master"},"pusher":{"name":"Codertocat","email":"21031067+Codertocat@users.noreply.github.com"},
"sender":{"login":"Codertocat","id":21031067,"html_url":"https://github.com/Codertocat","type":"User","site_admin":false}}"#,
    )
    .replace("{tag}", tag)
}

/// GitHub's `create` event of a tag.
pub(crate) fn github_create(addresses: &Addresses, tag: &str) -> String {
    addresses
        .fill(
            r#"{"ref":"{tag}","ref_type":"tag","master_branch":"master","description":null,"pusher_type":"user","repository":
{"id":186853002,"name":"Hello-World","full_name":"Codertocat/Hello-World","private":false,"owner":{"login":"Codertocat"},
"html_url":"{html}","url":"https://api.github.com/repos/Codertocat/Hello-World","tags_url":
"https://api.github.com/repos/Codertocat/Hello-World/tags","created_at":"2019-05-15T15:19:25Z","git_url":
"git://github.com/Codertocat/Hello-World.git","ssh_url":"{ssh}","clone_url":"{clone}","default_branch":"master"},
"sender":{"login":"Codertocat","id":21031067}}"#,
        )
        .replace("{tag}", tag)
}

/// GitHub's `release` event.
pub(crate) fn github_release(addresses: &Addresses, tag: &str) -> String {
    addresses
        .fill(
            r#"{"action":"published","release":{"url":"https://api.github.com/repos/Codertocat/Hello-World/releases/17372790",
"html_url":"{html}/releases/tag/{tag}","id":17372790,"tag_name":"{tag}","target_commitish":"master","name":null,"draft":false,
"author":{"login":"Codertocat","html_url":"https://github.com/Codertocat"},"prerelease":false,"assets":[],"body":null},
"repository":{"id":186853002,"full_name":"Codertocat/Hello-World","html_url":"{html}","ssh_url":"{ssh}","clone_url":"{clone}"},
"sender":{"login":"Codertocat"}}"#,
        )
        .replace("{tag}", tag)
}

/// GitHub's `ping` event of a repository's webhook.
pub(crate) fn github_ping(addresses: &Addresses) -> String {
    addresses.fill(
        r#"{"zen":"Responsive is better than fast.","hook_id":30,"hook":{"type":"Repository","id":30,"name":"web","active":true,
"events":["push"],"config":{"content_type":"json","insecure_ssl":"0","secret":"********","url":"https://farm.example.org/"},
"ping_url":"https://api.github.com/repos/Codertocat/Hello-World/hooks/30/pings"},"repository":{"id":186853002,"full_name":
"Codertocat/Hello-World","html_url":"{html}","ssh_url":"{ssh}","clone_url":"{clone}"},"sender":{"login":"Codertocat"}}"#,
    )
}

/// Gitea's and Forgejo's `push` event of a new tag.
pub(crate) fn gitea_push(addresses: &Addresses, tag: &str) -> String {
    addresses
        .fill(
            r#"{
  "ref": "refs/tags/{tag}",
  "before": "0000000000000000000000000000000000000000",
  "after": "bffeb74224043ba2feb48d137756c8a9331c449a",
  "compare_url": "{html}/compare/0000000000000000000000000000000000000000...bffeb74224043ba2feb48d137756c8a9331c449a",
  "commits": [],
  "total_commits": 0,
  "head_commit": null,
  "repository": {
    "id": 140,
    "owner": {"id": 1, "login": "gitea", "full_name": "Gitea", "email": "someone@gitea.io", "username": "gitea"},
    "name": "webhooks",
    "full_name": "gitea/webhooks",
    "description": "",
    "private": false,
    "fork": false,
    "html_url": "{html}",
    "ssh_url": "{ssh}",
    "clone_url": "{clone}",
    "website": "",
    "default_branch": "master"
  },
  "pusher": {"id": 1, "login": "gitea", "username": "gitea"},
  "sender": {"id": 1, "login": "gitea", "username": "gitea"}
}"#,
        )
        .replace("{tag}", tag)
}

/// Gogs's `push` event of a new tag.
pub(crate) fn gogs_push(addresses: &Addresses, tag: &str) -> String {
    addresses
        .fill(
            r#"{"ref":"refs/tags/{tag}","before":"0000000000000000000000000000000000000000","after":
"bffeb74224043ba2feb48d137756c8a9331c449a","compare_url":"{html}/compare/28e1879d029cb852e4844d9c718537df08844e03...{tag}",
"commits":[{"id":"bffeb74224043ba2feb48d137756c8a9331c449a","message":"!@#0^%\u003e\u003cwebhooks yay!","url":
"{html}/commit/bffeb74224043ba2feb48d137756c8a9331c449a","author":{"name":"Unknwon","email":"u@gogs.io","username":"unknwon"}}],
"repository":{"id":140,"owner":{"id":1,"login":"unknwon","full_name":"Unknwon","email":"u@gogs.io","username":"unknwon"},"name":
"webhooks","full_name":"unknwon/webhooks","description":"","private":false,"fork":false,"html_url":"{html}","ssh_url":"{ssh}",
"clone_url":"{clone}","website":"","stars_count":0,"watchers_count":1,"default_branch":"master"},
"pusher":{"id":1,"login":"unknwon","username":"unknwon"},"sender":{"id":1,"login":"unknwon","username":"unknwon"}}"#,
        )
        .replace("{tag}", tag)
}

/// Bitbucket Cloud's `repo:push` event of a new tag. It has no clone URL.
pub(crate) fn bitbucket_push(addresses: &Addresses, tag: &str) -> String {
    addresses
        .fill(
            r#"{"push":{"changes":[{"old":null,"new":{"type":"tag","name":"{tag}","target":{"type":"commit","hash":
"709d658dc5b6d6afcd46049c2f332ee3f515a67d"},"links":{"html":{"href":"{html}/commits/tag/{tag}"}}},"created":true,"forced":false,
"closed":false,"commits":[],"truncated":false}]},"repository":{"type":"repository","links":{"self":{"href":
"https://api.bitbucket.org/2.0/repositories/bitbucket/bitbucket"},"html":{"href":"{html}"},"avatar":{"href":"{html}/avatar/32/"}},
"uuid":"{673a6070-3421-46c9-9d48-90745f7bfe8e}","full_name":"team_name/repo_name","name":"repo_name","scm":"git","is_private":true,
"project":{"type":"project","name":"Untitled project","uuid":"{3b7898dc-6891-4225-ae60-24613bb83080}","key":"proj"},"website":
"https://mywebsite.com/","owner":{"type":"team","username":"teamawesome"},"workspace":{"type":"workspace","slug":"team_name"}},
"actor":{"type":"user","nickname":"evzijst","display_name":"Erik van Zijst"}}"#,
        )
        .replace("{tag}", tag)
}

/// GitLab's `push` or `tag_push` event: `kind`.
pub(crate) fn gitlab_push(addresses: &Addresses, kind: &str, tag: &str) -> String {
    addresses
        .fill(
            r#"{"object_kind":"{kind}","event_name":"{kind}","before":"0000000000000000000000000000000000000000","after":
"82b3d5ae55f7080f1e6022629cdb57bfae7cccc7","ref":"refs/tags/{tag}","ref_protected":true,"checkout_sha":
"82b3d5ae55f7080f1e6022629cdb57bfae7cccc7","message":null,"user_id":1,"user_name":"John Smith","user_username":"jsmith",
"user_avatar":"https://s.gravatar.com/avatar/d4c74594d841139328695756648b6bd6?s=8","project_id":1,"project":{"id":1,"name":
"Example","description":"","web_url":"{html}","avatar_url":null,"git_ssh_url":"{ssh}","git_http_url":"{clone}","namespace":"Jsmith",
"visibility_level":0,"path_with_namespace":"jsmith/example","default_branch":"master","homepage":"{html}","url":"{ssh}","ssh_url":
"{ssh}","http_url":"{clone}"},"repository":{"name":"Example","url":"{ssh}","description":"","homepage":"{html}","git_http_url":
"{clone}","git_ssh_url":"{ssh}","visibility_level":0},"commits":[],"total_commits_count":0,"push_options":{}}"#,
        )
        .replace("{kind}", kind)
        .replace("{tag}", tag)
}
