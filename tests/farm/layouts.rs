//! Repositories whose packages are elsewhere than below `p/`: in a pool, or on another server. The
//! manager uploads them, and judges and undoes a publish by the URLs of its entries.

use std::fs;
use std::path::{Path, PathBuf};

use crate::remotes::tree;
use crate::support::farm::{Farm, FarmBuilder, published_in, remote_directory};
use crate::support::git_repo::{GitRepo, run};
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::tools::Tools;
use crate::support::wait::PATIENCE;

const POOL: &str = "/pool/{filename}";
const SERVER: &str = "https://packages.example.org/f/{filename}";
const UNDONE: &str = "publish was cut short, repository restored";
const PUBLISHED: [&str; 2] = ["tool 1.0-1 noarch", "tool 1.1-1 noarch"];

/// A `peipkg-repo` that publishes with `template`. Once there is a file `damage`, the next publish
/// runs that instead; `publish` in it is the real one.
fn with_template(template: &str) -> String {
    format!(
        "#!/bin/sh\n[ \"$1\" = publish ] || exec {{real}} \"$@\"\n\
         publish() {{ {{real}} \"$@\" --package-url-template '{template}'; }}\n\
         [ -e \"$HOME/damage\" ] || {{ publish \"$@\"; exit; }}\n\
         mv \"$HOME/damage\" \"$HOME/damaging\" && cd \"$HOME\" && . \"$HOME/damaging\"\n"
    )
}

/// A farm with `tool 1.0-1` published under `template`.
fn farm_with(template: &str, builder: FarmBuilder) -> (Farm, GitRepo) {
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = builder.with(&tool).program("peipkg-repo", &with_template(template)).build();
    farm.once().assert_success().assert_only_events();
    farm.assert_published(&PUBLISHED[..1]);
    (farm, repo)
}

/// The same; the manager was killed after `damage` in the publish of `tool 1.1-1`.
fn killed_in_a_publish(template: &str, damage: &str) -> (Farm, GitRepo) {
    let (farm, repo) = farm_with(template, Farm::builder());
    repo.add_versions(&["1.1"]);
    fs::write(farm.path("damage"), format!("{damage}\nkill -9 \"$PPID\"\n")).unwrap();
    assert_eq!(farm.once().status.code(), None);
    assert!(farm.path("state/journal").exists());
    (farm, repo)
}

fn empty_publish(farm: &Farm) {
    fs::remove_dir_all(farm.path("state/publish")).unwrap();
    fs::create_dir(farm.path("state/publish")).unwrap();
}

fn index(farm: &Farm) -> PathBuf {
    farm.path("state/repo/index/archive.json")
}

/// The package files of the repository.
fn packages(farm: &Farm) -> Vec<String> {
    let names = tree(&farm.repo_dir()).into_iter().map(|(name, _)| name);
    names.filter(|name| name.ends_with(".peipkg")).collect()
}

#[track_caller]
fn verify(repo: &Path) {
    run(std::process::Command::new(&Tools::get().repo)
        .args(["verify", "--mode", "both", "--repo"])
        .arg(repo));
}

#[test]
fn repository_of_a_deployed_tool_is_published_to_and_uploaded() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/peipkg-tools/tests/samples");
    for (name, template) in [("repository-pool", POOL), ("repository-absolute", SERVER)] {
        for script in ["#!/bin/sh\nexec {real} \"$@\"\n".to_owned(), with_template(template)] {
            let Some((_home, copy)) = remote_directory() else { return };
            let repo = GitRepo::program(&["1.0"]);
            let tool = Recipe::program("tool", &repo.file_url());
            let farm = Farm::builder().with(&tool).rclone(&copy).program("peipkg-repo", &script).build();
            fs::copy(samples.join("key.seed"), farm.key_path()).unwrap();
            for (file, bytes) in tree(&samples.join(name)) {
                let path = farm.repo_dir().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            let before = packages(&farm);
            let output = farm.once();
            output.assert_success().assert_only_events().event("upload complete");
            assert!(output.events("upload failed").is_empty(), "{output}");
            let all = ["long-path 1.2.3-1 noarch", "tool 1.0-1 noarch", "utf8-description 1.2.3-1 noarch"];
            farm.assert_published(&all);
            farm.assert_clean();
            assert!(tree(&copy) == tree(&farm.repo_dir()));
            assert_eq!(published_in(&copy), all);
            verify(&copy);
            let stored = packages(&farm);
            assert!(before.iter().all(|package| stored.contains(package)));
            let is_elsewhere = script.contains(SERVER);
            assert_eq!(stored.len(), before.len() + usize::from(!is_elsewhere), "{stored:?}");
        }
    }
}

#[test]
fn upload_pool_lost_keeps_it_on_the_remote() {
    let Some((_home, copy)) = remote_directory() else { return };
    let (farm, _repo) = farm_with(POOL, Farm::builder().rclone(&copy));
    assert_eq!(packages(&farm), ["pool/tool_1.0-1_noarch.peipkg"]);
    let before = tree(&copy);
    // The package below p/ is not the one that the index lists.
    let package = farm.repo_dir().join("pool/tool_1.0-1_noarch.peipkg");
    let conventional = farm.repo_dir().join("p/tool/1.0-1");
    fs::create_dir_all(&conventional).unwrap();
    fs::rename(&package, conventional.join("tool_1.0-1_noarch.peipkg")).unwrap();
    fs::write(farm.path("state/upload-owed"), "").unwrap();
    let failed = farm.once().assert_success().assert_only_events().event("upload failed");
    let expected = format!("the archive index names {}, but it is not there; restore it", package.display());
    assert!(failed["error"].contains(&expected), "{failed:?}");
    assert!(tree(&copy) == before);
}

#[test]
fn publish_whole_stands_by_its_urls() {
    for (template, files) in [(POOL, 2), ("/{filename}", 2), ("/{arch}/{name}/{version}/x", 0), (SERVER, 0)] {
        for is_emptied in [false, true] {
            let (farm, _repo) = killed_in_a_publish(template, "publish \"$@\"");
            if is_emptied {
                empty_publish(&farm);
            }
            let before = fs::read(index(&farm)).unwrap();
            let output = farm.once_without_builds(&PUBLISHED);
            assert!(output.events(UNDONE).is_empty(), "{template}: {output}");
            assert!(fs::read(index(&farm)).unwrap() == before, "{template}: the index was changed\n{output}");
            assert_eq!(packages(&farm).len(), files, "{template}");
        }
    }
}

#[test]
fn publish_without_the_file_at_its_url_is_undone() {
    let file = "state/repo/pool/tool_1.1-1_noarch.peipkg";
    let conventional = "state/repo/p/tool/1.1-1";
    for damage in [
        format!("rm {file}"),
        format!("echo half >{file}"),
        // The right file where the entry does not say.
        format!("mkdir -p {conventional} && mv {file} {conventional}"),
        format!("mv {file} state/repo"),
        // Another one where it says, the right one elsewhere.
        format!("mkdir -p {conventional} && cp {file} {conventional} && echo half >{file}"),
        ": >state/repo/index/archive.json".to_owned(),
    ] {
        for is_emptied in [false, true] {
            let (farm, _repo) = killed_in_a_publish(POOL, &format!("publish \"$@\"; {damage}"));
            if is_emptied {
                empty_publish(&farm);
            }
            let output = farm.once();
            output.assert_success().assert_only_events().event(UNDONE);
            assert_eq!(output.events("starting build").len(), usize::from(is_emptied), "{damage}: {output}");
            farm.assert_published(&PUBLISHED);
            farm.assert_clean();
            farm.assert_verifies();
            assert!(packages(&farm).contains(&"pool/tool_1.1-1_noarch.peipkg".to_owned()));
        }
    }
}

#[test]
fn publish_of_somebody_else_and_a_lost_pool_stops_for_a_person() {
    let (farm, _repo) = killed_in_a_publish(POOL, "publish \"$@\"");
    let publish = "mkdir none && peipkg-repo publish --in state/repo --new none --out state/repo \
                   --sign-key farm.key --timestamp \"$(date -u +%FT%TZ)\"";
    Running::spawn(&mut farm.shell(&farm.command(&[]), publish)).wait_exit(PATIENCE).assert_success();
    let (pool, aside) = (farm.path("state/repo/pool"), farm.path("aside"));
    fs::rename(&pool, &aside).unwrap();
    let parts = ["somebody has published since", "tool_1.1-1_noarch.peipkg is missing"];
    farm.once().assert_code(1).assert_one_line(&parts);
    fs::rename(&aside, &pool).unwrap();
    farm.once_without_builds(&PUBLISHED);
}

#[test]
fn journal_damaged_is_judged_by_the_urls() {
    for (template, damage, found) in [
        (POOL, "", ""),
        (POOL, "rm state/repo/pool/tool_1.1-1_noarch.peipkg", "is not the file that was built"),
        (SERVER, "", ""),
    ] {
        let (farm, _repo) = killed_in_a_publish(template, &format!("publish \"$@\"; {damage}"));
        let length = fs::metadata(farm.path("state/journal")).unwrap().len();
        fs::write(farm.path("state/journal"), vec![0; usize::try_from(length).unwrap()]).unwrap();
        if found.is_empty() {
            farm.once_without_builds(&PUBLISHED).event("journal is damaged, but the repository is whole");
        } else {
            farm.once().assert_code(1).assert_one_line(&["the repository is not whole", found]);
        }
    }
}

#[test]
fn publish_of_other_bytes_on_a_server_fails() {
    // Of a package that the repository does not store, only the entry tells the bytes.
    let (farm, repo) = farm_with(SERVER, Farm::builder());
    repo.add_versions(&["1.1"]);
    let zeros = "0".repeat(64);
    // The new entry is the first one.
    let forge = format!("sed -i 's/\"value\":\"[0-9a-f]*/\"value\":\"{zeros}/' state/repo/index/*.json");
    fs::write(farm.path("damage"), format!("publish \"$@\" && {forge}\n")).unwrap();
    let output = farm.once();
    output.assert_success().assert_only_events().event(UNDONE);
    assert!(output.event("publish failed")["error"].contains("is not the file that was built"), "{output}");
    farm.once_without_builds(&PUBLISHED);
}

/// A `peipkg-repo` that finds nothing wrong with URLs that lead out.
fn careless(farm: &Farm) {
    farm.write_program(
        "peipkg-repo",
        &with_template(POOL).replacen("#!/bin/sh\n", "#!/bin/sh\n[ \"$1\" = verify ] && exit 0\n", 1),
    );
}

#[test]
fn url_that_leads_out_of_the_repository_is_never_followed() {
    // The file is there, with the right bytes, but not in the repository.
    for url in ["/../tool", "../tool", "/pool/../../tool", "/index/tool", "/.tool", "//tool", "file:tool"] {
        let escaped = url.replace('/', "\\/");
        let damage = format!(
            "publish \"$@\" && cp state/repo/pool/tool_1.1-1_noarch.peipkg state/tool && \
             cp state/tool state/repo/.tool && cp state/tool state/repo/tool && cp state/tool state/repo/index/tool && \
             sed -i 's/\\/pool\\/tool_1.1-1_noarch.peipkg/{escaped}/' state/repo/index/*.json"
        );
        let (farm, repo) = farm_with(POOL, Farm::builder());
        careless(&farm);
        repo.add_versions(&["1.1"]);
        fs::write(farm.path("damage"), format!("{damage}\n")).unwrap();
        // The tool ends well.
        let output = farm.once();
        output.assert_success().event(UNDONE);
        assert!(output.event("publish failed")["error"].contains("the url "), "{url}: {output}");
        // The tool is killed with the manager.
        fs::write(farm.path("damage"), format!("{damage}\nkill -9 \"$PPID\"\n")).unwrap();
        assert_eq!(farm.once().status.code(), None);
        let bytes = fs::read(farm.path("state/tool")).unwrap();
        empty_publish(&farm);
        farm.once().assert_success().event(UNDONE);
        farm.assert_published(&PUBLISHED);
        assert!(fs::read(farm.path("state/tool")).unwrap() == bytes, "{url}");
    }
}

#[test]
fn url_that_leads_out_of_the_repository_is_not_uploaded() {
    let Some((_home, copy)) = remote_directory() else { return };
    let (farm, _repo) = farm_with(POOL, Farm::builder().rclone(&copy));
    let before = tree(&copy);
    careless(&farm);
    let package = farm.repo_dir().join("pool/tool_1.0-1_noarch.peipkg");
    fs::rename(&package, farm.path("state/tool")).unwrap();
    for name in ["active", "archive"] {
        let path = farm.repo_dir().join(format!("index/{name}.json"));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace("/pool/tool_1.0-1_noarch.peipkg", "/../tool")).unwrap();
    }
    fs::write(farm.path("state/upload-owed"), "").unwrap();
    let failed = farm.once().assert_success().assert_only_events().event("upload failed");
    assert!(failed["error"].contains("the url \"/../tool\" of tool_1.0-1_noarch.peipkg"), "{failed:?}");
    assert!(tree(&copy) == before);
}
