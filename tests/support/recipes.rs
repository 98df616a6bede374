//! Recipes that build real packages out of the repositories of `GitRepo::program`.

/// A recipe for a farm. Its id is its name, and the first package's too unless [`Recipe::package`]
/// changes that.
#[must_use]
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The name of its directory.
    pub id: String,
    url: Option<String>,
    tag_pattern: String,
    package: String,
    doc_package: bool,
    upstream: String,
    watch: String,
    build_sh: Option<String>,
}

impl Recipe {
    /// One noarch package with `usr/bin/<package>` and `usr/share/doc/<package>/README`, for each
    /// tag `v<digits and dots>` of the upstream at `url`.
    pub fn program(id: &str, url: &str) -> Self {
        Self {
            id: id.to_owned(),
            url: Some(url.to_owned()),
            tag_pattern: r"^v(\d+(?:\.\d+)*)$".to_owned(),
            package: id.to_owned(),
            doc_package: false,
            upstream: String::new(),
            watch: String::new(),
            build_sh: None,
        }
    }

    /// Like [`Recipe::program`], but the build script fails after a line on standard error.
    pub fn failing(id: &str, url: &str) -> Self {
        Self::program(id, url).build_sh("echo 'this build fails on purpose' >&2\nexit 7\n")
    }

    /// A recipe without `[upstream]`, which the manager never builds.
    pub fn manual(id: &str) -> Self {
        Self { url: None, ..Self::program(id, "") }
    }

    /// Gives the package another name than the recipe's.
    pub fn package(mut self, name: &str) -> Self {
        name.clone_into(&mut self.package);
        self
    }

    /// Moves the documentation into a second package, `<package>-doc`, which depends on the first
    /// with `same_build`.
    pub fn with_doc(mut self) -> Self {
        self.doc_package = true;
        self
    }

    /// Sets `[upstream] tag_pattern`.
    pub fn tag_pattern(mut self, pattern: &str) -> Self {
        pattern.clone_into(&mut self.tag_pattern);
        self
    }

    /// Adds a line to `[upstream]`, like `submodules = true` or `peios_revision = 2`.
    pub fn upstream(mut self, line: &str) -> Self {
        self.upstream.push_str(line);
        self.upstream.push('\n');
        self
    }

    /// Adds a line to `[watch]`, like `github_webhook = true`.
    pub fn watch(mut self, line: &str) -> Self {
        self.watch.push_str(line);
        self.watch.push('\n');
        self
    }

    /// Replaces the build script, which runs as `sh <script>` after `set -eu`.
    pub fn build_sh(mut self, script: &str) -> Self {
        self.build_sh = Some(script.to_owned());
        self
    }

    /// Runs `script` before the usual build, for example to wait at a latch or to leave a file.
    pub fn before_build(self, script: &str) -> Self {
        let usual = self.usual_build();
        self.build_sh(&format!("{script}\n{usual}"))
    }

    /// The text of `peipkg.toml`.
    pub fn toml(&self) -> String {
        let Self { package, upstream, watch, .. } = self;
        let mut text = String::from("[meta]\nlicense = \"MIT\"\nbuild_script = \"build.sh\"\n\n");
        let globs = if self.doc_package { r#""usr/bin/**""# } else { r#""usr/bin/**", "usr/share/doc/**""# };
        text += &stanza(package, "A program", "", globs);
        if self.doc_package {
            let needs = format!("dependencies = [{{ name = \"{package}\", same_build = true }}]\n");
            text += &stanza(&format!("{package}-doc"), "Its documentation", &needs, r#""usr/share/doc/**""#);
        }
        if let Some(url) = &self.url {
            let pattern = &self.tag_pattern;
            text += &format!("[upstream]\ngit = \"{url}\"\ntag_pattern = '{pattern}'\n{upstream}\n");
        }
        if !watch.is_empty() {
            text += &format!("[watch]\n{watch}");
        }
        text
    }

    /// The text of `build.sh`.
    pub fn script(&self) -> String {
        let body = self.build_sh.clone().unwrap_or_else(|| self.usual_build());
        format!("set -eu\n{body}")
    }

    fn usual_build(&self) -> String {
        let doc = format!("\"$DESTDIR/usr/share/doc/{}\"", self.package);
        let program = format!("\"$DESTDIR/usr/bin/{}\"", self.package);
        format!(
            "mkdir -p \"$DESTDIR/usr/bin\" {doc}\n\
             cp \"$SOURCE_DIR/program.sh\" {program}\n\
             cp \"$SOURCE_DIR/README\" {doc}\n"
        )
    }
}

fn stanza(name: &str, description: &str, more: &str, globs: &str) -> String {
    let head = format!("[[package]]\nname = \"{name}\"\narchitecture = \"noarch\"\n");
    format!("{head}description = \"{description}\"\n{more}files = [{globs}]\n\n")
}
