//! The forms in which provenance is written and read.

use super::*;

/// The statement of a build of two packages.
fn statement() -> Statement {
    let subject =
        |name: &str, digit: &str| Subject { name: name.into(), digest: Sha256 { sha256: digit.repeat(64) } };
    Statement::new(
        vec![subject("a_1-1_noarch.peipkg", "a"), subject("b_1-1_noarch.peipkg", "b")],
        ExternalParameters {
            source: "git+https://example.org/x".into(),
            tag: "v1".into(),
            recipe: "x".into(),
            version: "1-1".into(),
            submodules: false,
            export_version: true,
        },
        InternalParameters::default(),
        vec![
            Dependency {
                name: SOURCE.into(),
                uri: "git+https://example.org/x@refs/tags/v1".into(),
                digest: Digests { git_commit: "c0ffee".into(), ..Digests::default() },
                ..Dependency::default()
            },
            Dependency {
                name: RECIPE.into(),
                digest: Digests { dir_hash: "d1".into(), ..Digests::default() },
                ..Dependency::default()
            },
        ],
        RunDetails {
            builder: Builder {
                id: builder_id("farm 1"),
                version: Versions { git: "2.39".into(), ..Versions::default() },
            },
            metadata: Metadata {
                started_on: "2026-01-01T00:00:00Z".into(),
                finished_on: "2026-01-01T00:00:01Z".into(),
            },
        },
    )
}

fn is_signed(_: &[u8], signature: &[u8]) -> bool {
    signature == b"good"
}

fn written(statement: &Statement) -> Vec<u8> {
    statement.write("k".into(), &|_| b"good".to_vec())
}

#[test]
fn statement_is_written_in_one_form() {
    let expected = concat!(
        r#"{"_type":"https://in-toto.io/Statement/v1","subject":["#,
        r#"{"name":"a_1-1_noarch.peipkg","digest":{"sha256":"AAAA"}},"#,
        r#"{"name":"b_1-1_noarch.peipkg","digest":{"sha256":"BBBB"}}],"#,
        r#""predicateType":"https://slsa.dev/provenance/v1","predicate":{"#,
        r#""buildDefinition":{"buildType":"urn:peipkg-manager:build:v1","externalParameters":{"#,
        r#""source":"git+https://example.org/x","tag":"v1","recipe":"x","version":"1-1","#,
        r#""submodules":false,"exportVersion":true},"resolvedDependencies":["#,
        r#"{"name":"source","uri":"git+https://example.org/x@refs/tags/v1","digest":{"gitCommit":"c0ffee"}},"#,
        r#"{"name":"recipe","digest":{"dirHash":"d1"}}]},"runDetails":{"#,
        r#""builder":{"id":"urn:peipkg-manager:farm:farm%201","version":{"git":"2.39"}},"#,
        r#""metadata":{"startedOn":"2026-01-01T00:00:00Z","finishedOn":"2026-01-01T00:00:01Z"}}}}"#
    );
    let expected = expected.replace("AAAA", &"a".repeat(64)).replace("BBBB", &"b".repeat(64));
    let envelope = Envelope::parse(&written(&statement())).unwrap();
    let payload = envelope.verified(PAYLOAD_TYPE, &is_signed).unwrap();
    assert_eq!(String::from_utf8_lossy(payload), expected);
}

#[test]
fn statement_written_is_read_again() {
    let read = Statement::read(&written(&statement()), &is_signed).unwrap();
    assert_eq!(read, statement());
    assert!(read.is_about("a_1-1_noarch.peipkg", &"a".repeat(64)));
    assert!(!read.is_about("a_1-1_noarch.peipkg", &"b".repeat(64)));
    assert!(!read.is_about("a_1-2_noarch.peipkg", &"a".repeat(64)));
    assert_eq!(read.dependency(SOURCE).unwrap().digest.git_commit, "c0ffee");
    assert_eq!(read.parameters().tag, "v1");
    let error = Statement::read(&written(&statement()), &|_, _| false).unwrap_err();
    assert_eq!(error.to_string(), "is not signed by a key of the repository");
    assert_eq!(claimed_subjects(&written(&statement())), ["a_1-1_noarch.peipkg", "b_1-1_noarch.peipkg"]);
    assert!(claimed_subjects(b"{}").is_empty());
}

#[test]
fn statement_of_another_writer_is_read_by_the_rules_of_slsa() {
    let json = String::from_utf8(serde_json::to_vec(&statement()).unwrap()).unwrap();
    let change = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        Statement::parse(json.replacen(from, to, 1).as_bytes())
    };
    // Unknown fields do not count; null, empty and missing are the same.
    change(r#"{"_type""#, r#"{"new":[1],"_type""#).unwrap();
    change(r#""gitCommit":"c0ffee""#, r#""gitCommit":null,"sha1":"x""#).unwrap();
    change(r#","metadata":{"#, r#","byproducts":[],"metadata":null,"x":{"#).unwrap();
    change(r#","version":{"git":"2.39"}"#, "").unwrap();
    let error = |from: &str, to: &str| change(from, to).unwrap_err().to_string();
    assert!(error(r#""submodules""#, r#""compiler":"x","submodules""#).contains("unknown field `compiler`"));
    assert!(
        error("Statement/v1", "Statement/v2").contains("its _type is \"https://in-toto.io/Statement/v2\"")
    );
    assert!(error("provenance/v1", "provenance/v0.2").contains("its predicateType is"));
    assert!(error(":build:v1", ":build:v2").contains("its buildType is"));
    assert!(error(r#""tag":"v1","#, "").contains("missing field `tag`"));
    assert!(Statement::parse(b"[]").is_err());
    // A value of another type is no absent one.
    for (from, to, field) in [
        (r#""tag":"v1""#, r#""tag":7"#, "tag"),
        (r#""exportVersion":true"#, r#""exportVersion":"no""#, "exportVersion"),
        (r#""digest":{"gitCommit":"c0ffee"}"#, r#""digest":"c0ffee""#, "digest"),
        (r#""resolvedDependencies":["#, r#""resolvedDependencies":7,"x":["#, "resolvedDependencies"),
        (
            r#""resolvedDependencies":["#,
            r#""internalParameters":{"signingKeys":[1]},"resolvedDependencies":["#,
            "signingKeys",
        ),
    ] {
        assert!(error(from, to).contains(&format!("field `{field}` has another type")), "{to}");
    }
    for missing in [r#""sha256":""#, r#""id":"urn"#, r#""subject":["#, r#""runDetails":{"#] {
        let name = missing.split('"').nth(1).unwrap_or_default();
        assert!(error(missing, &missing.replace(name, "other")).contains(&format!("missing field `{name}`")));
    }
}

#[test]
fn farm_becomes_a_uri() {
    assert_eq!(builder_id("farm-1.example"), "urn:peipkg-manager:farm:farm-1.example");
    assert_eq!(builder_id("a/ü"), "urn:peipkg-manager:farm:a%2F%C3%BC");
    assert_eq!(percent_encoded("a/ b", b"/"), "a/%20b");
}
