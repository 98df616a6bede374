//! A farm in a temporary home: configuration, key, recipes and state, and the real manager run on
//! it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::executable;
use super::git_repo::{isolate, run};
use super::optional::find_program;
use super::optional::require;
use super::recipes::Recipe;
use super::running::{Output, Running};
use super::tools::Tools;
use super::wait::PATIENCE;

/// The raw seed of every test farm: any 32 bytes are an Ed25519 private key.
pub const SEED: [u8; 32] = *b"a test farm's key, known to all!";

/// The webhook secret of a farm with [`FarmBuilder::http`].
pub const SECRET: &str = "it's a secret to everybody";

/// The description of a farm; [`FarmBuilder::build`] creates it.
#[must_use]
pub struct FarmBuilder {
    recipes: Vec<(String, String, String)>,
    extra: String,
    addr: Option<String>,
    remote: Option<String>,
    interval: String,
    pem: bool,
    programs: Vec<(String, String)>,
    config: Option<String>,
}

impl FarmBuilder {
    /// Adds a recipe from its parts.
    pub fn recipe(mut self, id: &str, toml: &str, build_sh: &str) -> Self {
        self.recipes.push((id.to_owned(), toml.to_owned(), build_sh.to_owned()));
        self
    }

    /// Adds a recipe.
    pub fn with(self, recipe: &Recipe) -> Self {
        self.recipe(&recipe.id, &recipe.toml(), &recipe.script())
    }

    /// Appends `text` to the configuration: whole tables, like `[build]` or `[[grant]]`.
    pub fn config_extra(mut self, text: &str) -> Self {
        self.extra.push_str(text);
        self.extra.push('\n');
        self
    }

    /// Replaces the whole configuration. `{home}` stands for the farm's directory.
    pub fn config_text(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// Listens on a free port of 127.0.0.1, with [`SECRET`] as the webhook secret.
    pub fn http(self) -> Self {
        self.http_on("127.0.0.1:0")
    }

    /// Listens on `addr`, with [`SECRET`] as the webhook secret.
    pub fn http_on(mut self, addr: &str) -> Self {
        self.addr = Some(addr.to_owned());
        self
    }

    /// Uploads with rclone into the local directory `remote`.
    pub fn rclone(mut self, remote: &Path) -> Self {
        self.remote = Some(remote.display().to_string());
        self
    }

    /// Sets `[poll] default_interval`, which is `1000h` otherwise. The second poll falls anywhere
    /// within the interval, depending on the URL: with an hour, it would fall into a test now and
    /// then.
    pub fn default_interval(mut self, interval: &str) -> Self {
        interval.clone_into(&mut self.interval);
        self
    }

    /// Writes the signing key as PEM PKCS#8, by openssl, instead of as a raw seed.
    pub fn pem_key(mut self) -> Self {
        self.pem = true;
        self
    }

    /// Puts a script called `name` (with its `#!` line) at the front of the `PATH`, as a stand-in
    /// for a tool. `{real}` in the script becomes the path of the program that it hides.
    pub fn program(mut self, name: &str, script: &str) -> Self {
        self.programs.push((name.to_owned(), script.to_owned()));
        self
    }

    /// Creates the farm's directories and files.
    pub fn build(self) -> Farm {
        let home = TempDir::with_prefix("farm-").expect("a temporary directory");
        let farm = Farm { home };
        for directory in [farm.recipes_dir(), farm.bin_dir()] {
            fs::create_dir(directory).expect("a directory of the farm");
        }
        write_key(&farm.key_path(), self.pem);
        fs::write(farm.path("webhook-secret"), format!("{SECRET}\n")).expect("the webhook secret");
        fs::set_permissions(farm.path("webhook-secret"), fs::Permissions::from_mode(0o600)).expect("a mode");
        for (id, toml, build_sh) in &self.recipes {
            farm.write_recipe(id, toml, build_sh);
        }
        for (name, script) in &self.programs {
            farm.write_program(name, script);
        }
        let config = self.config.clone().unwrap_or_else(|| self.config_default());
        let config = config.replace("{home}", &farm.home().display().to_string());
        fs::write(farm.config_path(), config).expect("the configuration");
        farm
    }

    fn config_default(&self) -> String {
        let mut text = String::from(
            "[manager]\nid = \"test-farm\"\nrecipes_dir = \"{home}/recipes\"\nstate_dir = \"{home}/state\"\n\n\
             [repo]\nname = \"test-repo\"\ndescription = \"a repository of a test\"\n\n\
             [signing]\nkey_file = \"{home}/farm.key\"\n\n",
        );
        text += &format!("[poll]\ndefault_interval = \"{}\"\n\n", self.interval);
        if let Some(remote) = &self.remote {
            text += &format!("[upload]\nbackend = \"rclone\"\nremote = \"{remote}\"\n\n");
        }
        if let Some(addr) = &self.addr {
            text +=
                &format!("[http]\naddr = \"{addr}\"\nwebhook_secret_file = \"{{home}}/webhook-secret\"\n\n");
        }
        text + &self.extra
    }
}

/// A farm. Dropping it removes its directory, so drop the processes in it first.
pub struct Farm {
    home: TempDir,
}

impl Farm {
    /// Describes a farm without recipes, HTTP or upload, with the raw key and a poll interval of
    /// 1000 hours.
    pub fn builder() -> FarmBuilder {
        FarmBuilder {
            recipes: Vec::new(),
            extra: String::new(),
            addr: None,
            remote: None,
            interval: "1000h".to_owned(),
            pem: false,
            programs: Vec::new(),
            config: None,
        }
    }

    /// The farm's directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A path in the farm's directory.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.home().join(relative)
    }

    /// `recipes_dir`.
    pub fn recipes_dir(&self) -> PathBuf {
        self.path("recipes")
    }

    /// `state_dir`, which the manager creates.
    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// The published repository.
    pub fn repo_dir(&self) -> PathBuf {
        self.path("state/repo")
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// The signing key.
    pub fn key_path(&self) -> PathBuf {
        self.path("farm.key")
    }

    /// The directory in front of the `PATH`.
    pub fn bin_dir(&self) -> PathBuf {
        self.path("bin")
    }

    /// Adds or replaces a recipe.
    pub fn add(&self, recipe: &Recipe) {
        self.write_recipe(&recipe.id, &recipe.toml(), &recipe.script());
    }

    /// Adds or replaces a recipe from its parts.
    pub fn write_recipe(&self, id: &str, toml: &str, build_sh: &str) {
        let directory = self.recipes_dir().join(id);
        fs::create_dir_all(&directory).expect("the recipe's directory");
        fs::write(directory.join("build.sh"), build_sh).expect("build.sh");
        fs::write(directory.join("peipkg.toml"), toml).expect("peipkg.toml");
    }

    /// Removes a recipe.
    pub fn remove_recipe(&self, id: &str) {
        fs::remove_dir_all(self.recipes_dir().join(id)).expect("a recipe to remove");
    }

    /// Adds or replaces a stand-in, as [`FarmBuilder::program`] does.
    pub fn write_program(&self, name: &str, script: &str) {
        let script = if script.contains("{real}") {
            let tools = Tools::get();
            let real = match name {
                "peipkg-build" => tools.build.clone(),
                "peipkg-repo" => tools.repo.clone(),
                _ => find_program(name).unwrap_or_else(|| panic!("{name} is not on the PATH")),
            };
            script.replace("{real}", &real.display().to_string())
        } else {
            script.to_owned()
        };
        let (file, fresh) = (self.bin_dir().join(name), self.bin_dir().join(format!(".{name}")));
        executable::write(&fresh, script.as_bytes());
        fs::rename(fresh, file).expect("a stand-in");
    }

    /// Prepares the manager with `arguments`, in the farm's directory, isolated from the machine's
    /// configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let tools = Tools::get();
        let mut path = self.bin_dir().into_os_string();
        path.push(":");
        path.push(tools.path());
        let mut command = Command::new(&tools.manager);
        isolate(&mut command).args(arguments).current_dir(self.home());
        command.env("PATH", path).env("HOME", self.home()).env("RCLONE_CONFIG", "/dev/null");
        command
    }

    /// Prepares a shell that runs `script`, with the environment of `command` and its program and
    /// arguments as `"$@"`.
    pub fn shell(&self, command: &Command, script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).arg("sh").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.current_dir(self.home());
        shell
    }

    /// Runs the manager with `arguments` and `--config` and waits for its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.start(arguments).wait_exit(PATIENCE)
    }

    /// Runs one sweep and waits for its end.
    #[track_caller]
    pub fn once(&self) -> Output {
        self.run(&["--once"])
    }

    /// Runs a sweep that must publish the saved packages without a build. Afterwards exactly
    /// `published` must be in the repository.
    #[track_caller]
    pub fn once_without_builds(&self, published: &[&str]) -> Output {
        let output = self.once();
        output.assert_success().assert_only_events();
        assert!(output.events("starting build").is_empty(), "{output}");
        self.assert_published(published);
        self.assert_clean();
        self.assert_verifies();
        output
    }

    /// Starts the daemon.
    #[track_caller]
    pub fn daemon(&self) -> Running {
        self.start(&[])
    }

    /// Starts the manager with `arguments` and `--config`.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::spawn(self.command(arguments).arg("--config").arg(self.config_path()))
    }

    /// Lists the archive index as sorted lines of `name version architecture`; none without a
    /// repository.
    #[track_caller]
    pub fn published(&self) -> Vec<String> {
        published_in(&self.repo_dir())
    }

    /// The names of the pending packages' directories in `publish/`.
    #[track_caller]
    pub fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("state/publish")).expect("publish/");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    /// Fails the test unless the published list is `expected`, in any order.
    #[track_caller]
    pub fn assert_published(&self, expected: &[&str]) {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(self.published(), expected);
    }

    /// Fails the test if the working directories of the state directory hold anything.
    #[track_caller]
    pub fn assert_clean(&self) {
        for name in ["sources", "stage", "publish"] {
            let directory = self.state_dir().join(name);
            let entries = fs::read_dir(&directory).into_iter().flatten();
            let left: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }

    /// Verifies the repository, metadata and packages, with `peipkg-repo`; fails the test if it
    /// does not verify. Returns the summary.
    #[track_caller]
    pub fn assert_verifies(&self) -> String {
        let mut command = Command::new(&Tools::get().repo);
        run(command.args(["verify", "--mode", "both", "--repo"]).arg(self.repo_dir()))
    }
}

/// A temporary directory, and a path in it that does not exist yet, for a remote. `None` without
/// rclone.
pub fn remote_directory() -> Option<(TempDir, PathBuf)> {
    require("rclone").then(|| {
        let home = tempfile::tempdir().expect("a temporary directory");
        let remote = home.path().join("copy");
        (home, remote)
    })
}

/// Lists the archive index of the repository at `repo` as sorted lines of `name version
/// architecture`.
#[track_caller]
pub fn published_in(repo: &Path) -> Vec<String> {
    let file = repo.join("index/archive.json");
    let Ok(text) = fs::read(&file) else { return Vec::new() };
    let index: serde_json::Value =
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let packages = index["packages"].as_array().expect("a list of packages");
    let field = |package: &serde_json::Value, key: &str| package[key].as_str().expect("a string").to_owned();
    let line = |package| ["name", "version", "architecture"].map(|key| field(package, key)).join(" ");
    let mut lines: Vec<String> = packages.iter().map(line).collect();
    lines.sort_unstable();
    lines
}

/// Writes the key of [`SEED`] to `path`, raw or as PEM.
fn write_key(path: &Path, pem: bool) {
    if pem {
        // PKCS#8 of an Ed25519 key is this prefix and the seed (RFC 8410 §7); openssl checks it and
        // writes the PEM.
        let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        der.extend(SEED);
        let file = path.with_extension("der");
        fs::write(&file, der).expect("the key as DER");
        run(Command::new("openssl").args(["pkey", "-inform", "DER", "-in"]).arg(&file).arg("-out").arg(path));
    } else {
        fs::write(path, SEED).expect("the key");
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}
