//! Upstreams that list their tags and then hang in each fetch: they take their share of the builder,
//! and no more.

use rustix::process::Signal;

use crate::support::client;
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::recipes::Recipe;
use crate::support::smart_http::{Fault, SmartHttp};
use crate::support::wait::{PATIENCE, wait_until};

/// How long a fetch may take here: much longer than the builds of the other recipe together.
const BUILD_LIMIT: &str = "11s";

#[test]
fn fetch_hangs_delays_another_recipe_once() {
    let (http, latch) = (SmartHttp::new(), Latch::new());
    let hangs = http.serve("hangs.git", &GitRepo::program(&["1", "2", "3", "4"]));
    let good = http.serve("good.git", &GitRepo::program(&["1", "2"]));
    let first = http.serve("first.git", &GitRepo::program(&["1"]));
    let farm = Farm::builder().http().with(&Recipe::program("first", &first).before_build(&latch.script()));
    let farm = farm.config_extra(&format!("[build]\ntimeout = \"{BUILD_LIMIT}\"\n")).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    // Let the manager list everything while the builder is busy; then silence the upstream.
    latch.wait_reached();
    for (id, url) in [("a-hangs", &hangs), ("b-good", &good)] {
        farm.add(&Recipe::program(id, url));
    }
    daemon.signal(Signal::HUP);
    wait_until("all versions are queued", PATIENCE, || {
        client::status(addr)["queue"].as_array().unwrap().len() == 6
    });
    http.fault("hangs.git", Fault::Silent);
    latch.open();

    let failed = daemon.wait_event("build failed", PATIENCE);
    assert_eq!([&failed["recipe"], &failed["version"]], ["a-hangs", "4-1"]);
    wait_until("the other recipes are built", PATIENCE, || farm.published().len() == 3);
    assert_eq!(daemon.events().iter().filter(|event| event["msg"] == "build failed").count(), 1, "{daemon}");

    // A changed recipe ends the wait of the version that failed.
    http.clear_faults();
    farm.add(&Recipe::program("a-hangs", &hangs).before_build(": changed"));
    daemon.signal(Signal::HUP);
    wait_until("the upstream's other versions are built", PATIENCE, || farm.published().len() == 7);
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0).assert_only_events();
}
