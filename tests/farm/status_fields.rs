//! The fields of `/status`: each is in the monitoring page, and each log event of a state that lasts
//! has one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use peipkg_manager::status;
use serde_json::Value;

use crate::manual::{files_below, logged_events, read, rows};

/// The log events that tell of a moment: afterwards, nothing is different, or another event tells what.
/// Whoever adds an event decides: a moment, or a state that lasts and has a field of `/status`, which
/// `docs/monitoring.md` names.
const MOMENTS: [(&str, &str); 29] = [
    ("repository created", "the key is in `repo.json` and in the repository's `keys`"),
    ("polling upstream", "its end tells"),
    ("listing upstream", "how one poll is done"),
    ("one request did not list upstream", "two requests follow at once"),
    (
        "fetch hung, leaving other versions of this upstream to the next sweep",
        "only a sweep, which has no `/status`",
    ),
    (
        "build timed out, leaving other versions of this recipe to the next sweep",
        "only a sweep, which has no `/status`",
    ),
    ("publish of several versions failed, publishing each alone", "each then succeeds or is in `failures`"),
    ("build interrupted", "the manager ends"),
    ("pending packages are already published, removing them", "nothing is left to do"),
    ("loose package is published already, removing it", "nothing is left to do"),
    ("loose packages found, publishing them", "they are in `queue` as pending"),
    ("publish stands, although the tool failed", "the versions are published"),
    ("publish was cut short, repository restored", "the versions are pending again"),
    ("pending packages are gone, building the version again", "the version is in `queue`"),
    ("journal is damaged, but the repository is whole", "the journal is dropped"),
    ("webhook server listening", "otherwise there is no `/status`"),
    ("webhook payload refused", "one request"),
    ("request refused", "one request"),
    ("cannot accept a connection", "one client"),
    ("POST to an unknown path", "anybody can send one"),
    ("http gate failed", "there is no `/status` any more"),
    ("builds go on", "all is well again"),
    ("waiting for the program of [notify]", "the manager ends"),
    ("published tag points back", "all is well again"),
    ("dedup check succeeded", "all is well again"),
    ("notification succeeded", "all is well again"),
    ("stopping before all notifications are sent", "the manager ends"),
    ("cannot reach the service manager", "one message"),
    ("peipkg-manager stopped", "the manager ends"),
];

/// The names of all fields of a document, as the monitoring page writes them.
fn names(value: &Value, prefix: &str, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = if key == "KEY" { "*" } else { key };
                let name = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
                if key != "*" {
                    names.insert(name.clone());
                }
                self::names(value, &name, names);
            }
        }
        Value::Array(items) => {
            for item in items.iter().filter(|item| item.is_object()) {
                self::names(item, &format!("{prefix}[]"), names);
            }
        }
        _ => {}
    }
}

/// The names of all fields of `/status`.
fn fields() -> BTreeSet<String> {
    let text = || "x".to_owned();
    let time = status::Time::default;
    let failure = status::Failure {
        failures: 1,
        next_retry: time(),
        stage: "build",
        last_error: text(),
        log: None,
        log_tail: vec![],
        failed_at: std::time::Duration::ZERO,
    };
    let done = || status::Done { finished_at: time(), took_seconds: 1.5 };
    let poll = status::Poll {
        last_poll: None,
        tags_seen: None,
        error: None,
        next_poll: None,
        tags_matched: None,
        newest_published: None,
        last_success: Some(Box::new(done())),
    };
    let full = status::Status {
        recipes: vec!["KEY".into()],
        in_flight: Some(status::InFlight {
            recipe: "KEY".into(),
            version: text(),
            started_at: time(),
            log: None,
        }),
        failures: Some([("KEY".to_owned(), failure)].into()),
        queue: vec![status::Queued { recipe: "KEY".into(), version: text(), reason: "poll" }],
        polls: [("KEY".into(), poll)].into_iter().collect(),
        webhooks: status::Webhooks {
            last_unmatched: Some(status::UnmatchedWebhook {
                received: time(),
                repositories: vec![],
                reason: "x",
                nearest: None,
            }),
            ..status::Webhooks::default()
        },
        upload: Some(status::Upload {
            failures: 1,
            started_at: Some(time()),
            next_try: Some(time()),
            last_error: None,
        }),
        notifications: Some(status::Notifications::default()),
        last_upload: Some(done()),
        held: vec![status::Held { recipe: "KEY".into(), version: None, reason: "x", until: "x" }],
        reload_refused: Some(status::RefusedReload { at: time(), problems: vec![], problems_length: 0 }),
        warnings: vec![status::Warning { event: "x", recipe: None, subject: text(), detail: text() }],
        ..status::Status::default()
    };
    let mut found = BTreeSet::new();
    names(&serde_json::from_slice(&full.to_json()).unwrap(), "", &mut found);
    found
}

#[test]
fn monitoring_page_has_every_field_of_the_status() {
    let page = read("docs/monitoring.md");
    let list = page.split("\n## ").find(|section| section.starts_with("`/status`")).unwrap();
    let documented: BTreeSet<String> = rows(list).map(|row| row[0].to_owned()).collect();
    assert_eq!(documented, fields());
}

/// A state that lasts, as the monitoring page has it.
struct State {
    /// What ends it.
    until: String,
    field: String,
    /// The heading of its section of the page, or another place.
    place: String,
    metric: String,
}

/// The states that last, by the log events that begin them, from both tables of the page.
fn lasting() -> BTreeMap<String, State> {
    let page = read("docs/monitoring.md");
    let list = page.split("\n## ").find(|section| section.starts_with("What lasts")).unwrap();
    let rows = list.lines().filter(|line| line.starts_with("| `"));
    let state = |row: &str| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let plain = |cell: &str| cell.trim_matches('`').to_owned();
        let (field, place, metric) = match cells[..] {
            [_, _] => ("warnings[].event", "Warnings", "warnings"),
            [_, _, field, place, metric] => (field, place, metric),
            _ => panic!("a row of two or five cells: {row}"),
        };
        let state = State {
            until: cells[1].to_owned(),
            field: plain(field),
            place: place.to_owned(),
            metric: plain(metric),
        };
        (plain(cells[0]), state)
    };
    rows.map(state).collect()
}

#[test]
fn log_events_are_moments_or_have_a_field_of_the_status() {
    let (logged, lasting, fields) = (logged_events(), lasting(), fields());
    let moments: BTreeMap<&str, &str> = MOMENTS.into();
    for event in logged.keys() {
        let places =
            usize::from(moments.contains_key(event.as_str())) + usize::from(lasting.contains_key(event));
        assert_eq!(places, 1, "decide about {event:?}: a moment, or in the table of docs/monitoring.md");
    }
    for event in moments.keys() {
        assert!(logged.contains_key(*event), "there is no event {event:?}");
    }
    for (event, state) in &lasting {
        assert!(logged.contains_key(event), "there is no event {event:?}");
        assert!(fields.contains(&state.field), "{event}: there is no field {}", state.field);
    }
}

#[test]
fn states_that_last_have_an_end_a_place_on_the_page_and_a_metric() {
    let logged = logged_events();
    let sources = |directory: &str| -> String {
        files_below(directory, "rs").iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    };
    let (page, metrics) = (sources("src/http/page"), fs::read_to_string("src/http/metrics.rs").unwrap());
    let mut ended = BTreeSet::new();
    for (event, State { until, place, metric, .. }) in lasting() {
        assert!(!until.is_empty(), "{event} has no end, nor a reason why there is none");
        // A name with a space is of an event, the others of keys and fields.
        for name in until.split('`').skip(1).step_by(2).filter(|name| name.contains(' ')) {
            assert!(logged.contains_key(name), "{event}: there is no event {name:?}");
            ended.insert(name.to_owned());
        }
        let is_section = page.contains(&format!("<h2>{place}</h2>"));
        assert!(is_section || ["top", "last line"].contains(&&*place), "{event}: the page has no {place}");
        assert!(metrics.contains(&format!("\"{metric}\"")), "{event}: there is no metric {metric}");
    }
    // An event by which all is well again ends something.
    for (event, _) in MOMENTS.iter().filter(|(_, reason)| *reason == "all is well again") {
        assert!(ended.contains(*event), "{event:?} ends nothing that lasts");
    }
}

#[test]
fn advice_of_the_page_and_sample_alerts_are_about_warnings() {
    for alert in read("contrib/prometheus/peipkg-manager.rules.yml").split("event=\"").skip(1) {
        let event = alert.split('"').next().unwrap();
        assert!(warned().contains(event), "there is no warning {event:?}");
    }
    let source = fs::read_to_string("src/http/page/sections.rs").unwrap();
    let advice = source.split("fn advice(").nth(1).unwrap().split("_ => ").next().unwrap();
    let events: Vec<&str> =
        advice.split("\" =>").filter_map(|arm| arm.rsplit_once('"').map(|(_, event)| event)).collect();
    let events = &events[..events.len() - 1];
    assert!(events.len() >= 3, "{advice}");
    for event in events {
        assert!(warned().contains(*event), "there is no warning {event:?}");
    }
}

/// The events that the sources put into `warnings` of `/status`.
fn warned() -> BTreeSet<String> {
    let mut events = BTreeSet::new();
    for path in files_below("src", "rs") {
        let source = fs::read_to_string(&path).unwrap();
        let mut starts =
            vec!["troubles::begin(", "troubles::begin_of(", "troubles::begin_while_there(", "let event = "];
        if path.ends_with("farm/warnings.rs") {
            starts.push(": &str =");
        }
        for start in starts {
            let texts = source.split(start).skip(1).filter_map(|call| call.trim_start().strip_prefix('"'));
            events.extend(texts.map(|text| text.split('"').next().unwrap().to_owned()));
        }
    }
    // The end of a sentence, and no event.
    events.remove("raise peios_revision");
    events
}

#[test]
fn warnings_of_the_status_are_the_log_events_that_the_page_says() {
    let documented = lasting().into_iter().filter(|(_, state)| state.field == "warnings[].event");
    assert_eq!(warned(), documented.map(|(event, _)| event).collect());
}
